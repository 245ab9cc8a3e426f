"""Makes a training run again in a temporary folder, and compares data, weights and metrics."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.context import Context
from bitstorm.core import errors
from bitstorm.core.file_system import Root
from bitstorm.core.results import Result
from bitstorm.core.schema import indicator_table
from bitstorm.core.settings import Training
from bitstorm.core.workspace import DATA_SETS
from bitstorm.model import runs, training_run
from bitstorm.model.runs import Run
from bitstorm.model.training_data import prepare
from bitstorm.model.training_run import Attempt, Prepared, changes_between
from bitstorm.store import seal, snapshots
from bitstorm.store.digest import dataset_digest
from bitstorm.store.snapshots import Snapshot

EQUAL, DIFFERS, UNCHECKED, SKIPPED = "equal", "differs", "cannot be checked", "skipped"
# The values of a record that follow from its settings and its snapshot.
DERIVED = (
    "prices", "frequency", "features", "batch_size", "learning_rate", "seed", "scaler", "split",
    "windows", "warm_up",
)  # fmt: skip
# The parts of `metrics.json` that follow from the run and the snapshot alone.
TEST_PART = ("test", "model", "persistence", "verdict", "grades", "interval")
_MOST = 3


@dataclass(frozen=True)
class Step:
    """One comparison: `result` is one of the four words above, `detail` says why."""

    name: str
    result: str
    detail: str

    def __str__(self) -> str:
        return f"{self.result}: {self.detail}"


@dataclass(frozen=True, repr=False)
class Reproduced(Result):
    """`equal` where each step is equal or was skipped on request."""

    run: str
    equal: bool
    steps: tuple[Step, ...]

    def facts(self) -> Mapping[str, Any]:
        """The run, and a line for each step."""
        return {"run": self.run, **{step.name: str(step) for step in self.steps}}


def reproduced(run: str, *steps: Step) -> Reproduced:
    """The result of all steps."""
    return Reproduced(run, all(step.result in (EQUAL, SKIPPED) for step in steps), steps)


def failure(result: Reproduced) -> str:
    """Why the run is not reproduced, in one sentence."""
    wrong = [f"{s.name} {s}" for s in result.steps if s.result in (DIFFERS, UNCHECKED)]
    return f"run {result.run} is not reproduced: {'; '.join(wrong)}"


def recorded(run: Run) -> tuple[Training, list[str]]:
    """The run's settings, and the IDs of its indicators: several where it was resumed on others.
    Raises ModelError where the record lacks a value that a reproduction needs."""
    with runs.record_errors(run):
        record = run.record
        missing = {*DERIVED, "indicators_digest", "fitted", "sessions", "files"} - record.keys()
        if missing:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        used = [session["indicators"] for session in record["sessions"]]
        return runs.settings_of(run), list(dict.fromkeys([*used, record["indicators"]]))


@contextmanager
def temporary_folder(context: Context) -> Iterator[Path]:
    """A folder on the workspace's disk, which Spark's executors see; deleted after the block."""
    context.workspace.cache.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="reproduce-", dir=context.workspace.cache) as folder:
        yield Path(folder)


def scratch(context: Context, folder: Path, *links: str, **changes: Any) -> Context:
    """The context, with these changes, of a workspace in a new folder. It has links to these parts
    of the real workspace; everything else is written into the folder."""
    folder.mkdir()
    for name in links:
        (folder / name).symlink_to(context.workspace.root / name)
    own = frozenset(DATA_SETS) - set(links)
    workspace = replace(context.workspace, root=folder, own=own)
    return replace(context, workspace=workspace, **changes)


def stored_step(root: Root, identity: str) -> tuple[Snapshot | None, Step]:
    """The snapshot with this ID, and whether its files are intact; None where one is not."""
    try:
        found = snapshots.required(root, snapshot=identity)
        snapshots.check_content(found)
    except errors.SnapshotMissing as error:
        return None, Step(root.name, UNCHECKED, str(error))
    except errors.SnapshotDamaged as error:
        return None, Step(root.name, DIFFERS, str(error))
    return found, Step(root.name, EQUAL, f"{identity}, all files have the hash of the manifest")


def digest_step(snapshot: Snapshot, recorded: str) -> Step:
    """Whether the digest of the indicators, computed again from the files, is the recorded one."""
    manifest = snapshot.manifest
    table = indicator_table(manifest.details["windows"])
    try:
        months = seal.digests_of(snapshot.folder, manifest.files, table)
    except errors.SealBroken as error:
        return Step("indicators", DIFFERS, str(error))
    digest = dataset_digest(months)
    problems = [f"the digest of {month} differs" for month in _apart(manifest.months, months)]
    if digest != recorded:
        problems.append(f"the record has the digest {recorded}, the files have {digest}")
    return _compared("indicators", problems, f"{snapshot.id}, digest {digest[:12]}")


def recomputed_step(before: Snapshot, after: Snapshot) -> Step:
    """Whether indicators that were computed again have the digests of the stored ones."""
    old, new = before.manifest, after.manifest
    problems = [
        f"{', '.join(_columns_apart(before, after, month)) or 'the rows'} of {month}"
        for month in _apart(old.months, new.months)
    ]
    made_with = ({"details": m.details, "versions": m.versions} for m in (old, new))
    equal = f"computed again from prices {new.details['prices']}"
    return _compared("recomputed", problems, equal, reasons=differences(*made_with))


def data_step(
    context: Context, run: Run, attempt: Attempt, stack: ExitStack
) -> tuple[Prepared | None, Step]:
    """The data of the run, open until the stack ends, and whether its split, scaler, features and
    counts are the recorded ones."""
    try:
        data = stack.enter_context(prepare(context, attempt))
    except errors.DataError as error:
        return None, Step("data", DIFFERS, str(error))
    again = training_run.record_of(attempt, data)
    problems = differences(*({key: some[key] for key in DERIVED} for some in (run.record, again)))
    counts = ", ".join(f"{count:,} {part}" for part, count in data.counts.items())
    return data, _compared("data", problems, f"split, scaler, features, {counts} windows")


def network_step(
    context: Context, run: Run, attempt: Attempt, data: Prepared | None
) -> tuple[Run | None, Step]:
    """The run trained again, and whether both have the same weights, bit by bit, and losses.

    Raises ModelError where the training breaks off."""
    if data is None:
        return None, Step("network", UNCHECKED, "there is no data to train it on")
    try:
        # Before the training, so that a damaged file is found at once.
        before, losses = runs.load_weights(run), _losses(run)
        again = training_run.fit(context, attempt, data)
    except errors.BrokenOff as error:
        reason = str(error).partition(": `bitstorm train")[0]
        raise errors.ModelError(f"{reason}: `bitstorm reproduce` starts again") from error
    except errors.ModelError as error:
        return None, Step("network", DIFFERS, str(error))
    fitted = (
        {k: v for k, v in some.record["fitted"].items() if k != "seconds"} for some in (run, again)
    )
    problems = _weights_apart(before, runs.load_weights(again))
    problems += differences(losses, _losses(again))[:1] + differences(*fitted)[:1]
    reasons = changes_between(run.record, again.record)
    equal = f"{len(before)} arrays of weights, {len(losses) // 2} epochs, to the last bit"
    return again, _compared("network", problems, equal, reasons=reasons)


def metrics_step(before: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]]) -> Step:
    """Whether the metrics of the test part with the stored weights are those of the others."""
    problems = []
    for name, metrics in others.items():
        if apart := differences(_test_part(before), _test_part(metrics)):
            problems.append(f"{name} {apart[0]}, {len(apart)} values in all")
    detail = f"{before['test']['windows']:,} windows of the test part, {', '.join(others)}"
    return _compared("metrics", problems, detail)


def published(path: Path, run: Run) -> dict[str, Any] | None:
    """The published metrics, None where they are of another run or snapshot, or not readable."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        made_with = (found["run"], found["snapshot"]["indicators"])
        return dict(found) if made_with == (run.name, run.record["indicators"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Each value that differs, by its dotted key, in words."""
    old, new = dict(runs.flattened(before)), dict(runs.flattened(after))
    return [
        f"{key} was {old.get(key)!r} and is {new.get(key)!r}"
        for key in old | new
        if old.get(key) != new.get(key)
    ]


def _compared(
    name: str, problems: Sequence[str], equal: str, *, reasons: Sequence[str] | None = None
) -> Step:
    """The step with these problems. `reasons` are other differences that can explain them; None
    where none can."""
    if not problems:
        return Step(name, EQUAL, equal)
    texts = [*problems[:_MOST]]
    if len(problems) > _MOST:
        texts.append(f"{len(problems) - _MOST} more")
    if reasons is not None:
        other = "another machine, since versions, threads and code are the recorded ones"
        texts.append(f"likely reason: {', '.join(reasons) or other}")
    return Step(name, DIFFERS, "; ".join(texts))


def _apart(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return sorted(m for m in before.keys() | after.keys() if before.get(m) != after.get(m))


def _columns_apart(before: Snapshot, after: Snapshot, month: str) -> list[str]:
    """The columns of the month that differ; none where its times do."""
    files = [snapshot.of_months({month}) for snapshot in (before, after)]
    if not all(files):
        return []
    old, new = (
        pd.concat(pd.read_parquet(path, partitioning=None) for path in paths).sort_values(
            "timestamp", ignore_index=True
        )
        for paths in files
    )
    if not old["timestamp"].equals(new["timestamp"]):
        return []
    return [name for name in old if name not in new or not old[name].equals(new[name])]


def _weights_apart(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> list[str]:
    # Not by `==`: -0 is 0 there, and NaN differs from itself.
    apart = {
        name: float(np.abs(values.astype(np.float64) - after[name]).max())
        for name, values in before.items()
        if values.tobytes() != after[name].tobytes()
    }
    if not apart:
        return []
    most = max(apart, key=lambda name: apart[name])
    size = f"largest |difference| {apart[most]:.2g}, in {most}"
    return [f"{len(apart)} of {len(before)} arrays of weights ({size})"]


def _losses(run: Run) -> dict[str, str]:
    """The losses by epoch, as the text of `history.csv`, which has every bit."""
    text = runs.read_file(run, runs.HISTORY).decode()
    return {
        f"{name} of epoch {row['epoch']}": row[name]
        for row in csv.DictReader(text.splitlines())
        for name in ("loss", "val_loss")
    }


def _test_part(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in TEST_PART if key in metrics}
