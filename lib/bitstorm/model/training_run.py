"""The part of `train` after the data: a run on disk, from its first epoch or from a later one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitstorm.context import Context
from bitstorm.core.config import Training
from bitstorm.core.errors import BrokenOff, ModelError, NothingToDo, SnapshotMissing
from bitstorm.model import backend, checkpoint, runs, training
from bitstorm.model.checkpoint import Checkpoint
from bitstorm.model.feed import Feed
from bitstorm.model.runs import Run
from bitstorm.model.scaling import Scaler
from bitstorm.model.training import Progress, Rules
from bitstorm.model.windowing import Split
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot

_LIBRARIES = {
    "tensorflow": ("tensorflow", "keras", "petastorm", "pyspark"),
    "torch": ("torch", "petastorm", "pyspark"),
}


@dataclass(frozen=True)
class Attempt:
    """A run to begin, or one to go on with: then `folder`, its `record` and what to go on from
    (None: it had not completed an epoch)."""

    settings: Training
    snapshot: Snapshot
    folder: Path | None = None
    record: Mapping[str, Any] | None = None
    since: Checkpoint | None = None

    @property
    def split(self) -> Split | None:
        """As it was when the run began; None for a new one."""
        return None if self.record is None else Split(**self.record["split"])

    @property
    def scaler(self) -> Scaler | None:
        """As it was when the run began: sums over partitions may differ in their last bit."""
        return None if self.record is None else Scaler.from_json(self.record["scaler"])


@dataclass(frozen=True)
class Prepared:
    """What a network is fitted with; `feeds` and `counts` (windows) are by part."""

    features: list[str]
    split: Split
    scaler: Scaler
    warm_up: Mapping[str, int]
    feeds: Mapping[str, Feed]
    counts: Mapping[str, int]


@contextlib.contextmanager
def attempt(context: Context, *, resume: str | None, accept_snapshot: bool) -> Iterator[Attempt]:
    """What is to be trained on what; a run that is resumed is held for the block.

    Raises NothingToDo for a finished run, ModelError for one that cannot go on: it has failed, is
    being trained, its settings or its snapshot are others, or its states are damaged.
    """
    if resume is None:
        snapshot = _snapshot(context, context.snapshot)
        yield Attempt(context.settings.training, snapshot)
        return
    checkpoints = context.workspace.checkpoints
    with runs.holding(runs.folder_of(checkpoints, resume)):
        run, since = _recovered(context, resume)
        if run.record.get("state", runs.FINISHED) == runs.FINISHED:
            runs.tidy(run.folder)
            raise NothingToDo(f"run {resume} is finished: there is nothing to resume")
        if run.record["state"] == runs.FAILED:
            raise ModelError(f"run {resume} has failed ({run.record.get('reason')}): train again")
        settings = _settings(context, run)
        snapshot = _same_snapshot(context, run, accept=accept_snapshot)
        epochs = 0 if since is None else since.epochs
        context.console.log(f"    run {resume} goes on after epoch {epochs} on {snapshot.id}")
        yield Attempt(settings, snapshot, run.folder, run.record, since)


def fit(context: Context, attempt: Attempt, data: Prepared) -> Run:
    """Train until the rules end it; the finished run."""
    settings, since = attempt.settings, _on_the_data(attempt)
    batch_size, learning_rate = rates(settings)
    folder = attempt.folder or runs.new_folder(context.workspace.checkpoints)
    record = {"run": folder.name, **_record(attempt, data, batch_size, learning_rate)}
    made_with = {part: record[part] for part in ("threads", "versions", "code")}
    if attempt.record is not None:
        _tell_of_changes(context, attempt.record, record)
        # Those of the run are what it was begun with; each session says what it went on with.
        kept = ("created_at", "sessions", *made_with)
        record = {**record, **{name: attempt.record[name] for name in kept}}
    done = 0 if attempt.since is None else attempt.since.epochs
    session = {
        "started_at": _now(),
        "after_epoch": done,
        "indicators": attempt.snapshot.id,
        **made_with,
    }
    record["sessions"] = [*record["sessions"], session]
    with (
        runs.holding(folder) if attempt.folder is None else contextlib.nullcontext(),
        context.console.bar() as bar,
    ):
        with _ending(folder, record):
            runs.write(folder, record, state=runs.RUNNING)
            fitted = backend.fit(
                settings.backend,
                {
                    "look_back": settings.look_back,
                    "features": len(data.features),
                    "units": settings.units,
                    "dropout": settings.dropout,
                    "learning_rate": learning_rate,
                    "seed": settings.seed,
                },
                train=data.feeds["training"],
                validation=data.feeds["validation"],
                rules=Rules(settings.epochs, settings.patience, batch_size, settings.seed),
                folder=folder,
                progress=lambda at: bar(_share(at), told(at), at.val_loss is not None),
                record=record,
                since=since,
            )
            session["ended_at"] = _now()
            record["fitted"] = vars(fitted)
            best = backend.BEST[settings.backend]
            run = runs.finish(folder, record, files=(best, runs.HISTORY))
        # Whatever ends the process from here on, the run stays a finished one.
        runs.tidy(folder)
        return run


def _record(
    attempt: Attempt, data: Prepared, batch_size: int, learning_rate: float
) -> dict[str, Any]:
    """What is known of a run before its first epoch."""
    settings, manifest = attempt.settings, attempt.snapshot.manifest
    return {
        "created_at": _now(),
        "backend": settings.backend,
        "indicators": attempt.snapshot.id,
        "indicators_digest": manifest.digest,
        "prices": manifest.details["prices"],
        "frequency": manifest.details["frequency"],
        "settings": settings.model_dump(),
        "features": data.features,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": settings.seed,
        "scaler": data.scaler.to_json(),
        "split": vars(data.split),
        "windows": dict(data.counts),
        "warm_up": dict(data.warm_up),
        "threads": {"cores": runs.cores(), **backend.threads(settings.backend)},
        "versions": runs.versions(*_LIBRARIES[settings.backend]),
        "code": runs.code(),
        "sessions": [],
    }


def rates(settings: Training) -> tuple[int, float]:
    """The batch size and the learning rate that the settings stand for."""
    batch_size = training.AUTO_BATCH_SIZE if settings.batch_size == "auto" else settings.batch_size
    if settings.learning_rate == "auto":
        return batch_size, training.auto_learning_rate(batch_size)
    return batch_size, settings.learning_rate


def told(at: Progress) -> str:
    """The text beside the bar, or the line of an epoch."""
    parts = [f"epoch {at.epoch}/{at.epochs}", f"loss {at.loss:.4f}"]
    if at.val_loss is not None:
        parts.append(f"validation {at.val_loss:.4f}")
    parts.append(f"{at.windows_per_second:,.0f} windows/s")
    minutes, seconds = divmod(round(at.seconds_left), 60)
    parts.append(f"at most {minutes}:{seconds:02d} left")
    return "  ".join(parts)


def _share(at: Progress) -> float:
    return (at.epoch - 1 + at.windows / at.of_windows) / at.epochs


def _on_the_data(attempt: Attempt) -> Checkpoint | None:
    """What to go on from. A loss on other data says nothing about that on these: the next epoch is
    then the best so far. Raises ModelError where there would be none."""
    since, settings = attempt.since, attempt.settings
    if since is None:
        return None
    now = (attempt.snapshot.id, attempt.snapshot.manifest.digest)
    if now == (since.record["indicators"], since.record["indicators_digest"]):
        return since
    if not since.goes_on(epochs=settings.epochs, patience=settings.patience):
        raise ModelError(
            f"the {since.epochs} epochs of this run are all that training.epochs "
            f"({settings.epochs}) and training.patience ({settings.patience}) allow, so none is "
            "left for other data: leave --accept-snapshot away, or train a new run"
        )
    return since.on_other_data()


@contextlib.contextmanager
def _ending(folder: Path, record: dict[str, Any]) -> Iterator[None]:
    """However the block ends, the record says so, if only the disk lets it."""
    try:
        yield
    except BaseException as error:
        failed = isinstance(error, ModelError) and not isinstance(error, BrokenOff)
        record["reason"] = str(error) if isinstance(error, ModelError) else type(error).__name__
        record["sessions"][-1]["ended_at"] = _now()
        with contextlib.suppress(BrokenOff):
            runs.write(folder, record, state=runs.FAILED if failed else runs.INTERRUPTED)
        raise


def _recovered(context: Context, name: str) -> tuple[Run, Checkpoint | None]:
    """The run and its newest whole state; a damaged record is taken from the state."""
    folder = runs.folder_of(context.workspace.checkpoints, name)
    problem = None
    try:
        run = runs.named(context.workspace.checkpoints, name)
        if run.record.get("state", runs.FINISHED) in (runs.FINISHED, runs.FAILED):
            return run, None
    except ModelError as error:
        problem = error
    since, problems = checkpoint.load(folder)
    if problem is not None:
        if since is None:
            raise problem
        context.console.warn(f"{problem}; what its last state says of it is used")
        run = Run(folder, {**since.record, "state": runs.INTERRUPTED})
    if problems and since is not None:
        context.console.warn(
            f"{'; '.join(problems)}: the state before it, after epoch {since.epochs}, is used"
        )
    return run, since


def _settings(context: Context, run: Run) -> Training:
    """Those of the run. Raises ModelError where another value was asked for now."""
    recorded = runs.settings_of(run)
    asked = context.settings.training
    given = {name: getattr(asked, name) for name in asked.model_fields_set}
    changed = [
        f"training.{name} was {getattr(recorded, name)!r} and is now {value!r}"
        for name, value in sorted(given.items())
        if value != getattr(recorded, name)
    ]
    if changed:
        raise ModelError(
            f"run {run.name} cannot go on with other settings ({'; '.join(changed)}): leave them "
            "away, or train a new run"
        )
    return recorded


def _same_snapshot(context: Context, run: Run, *, accept: bool) -> Snapshot:
    """The one that the run was begun on, though newer ones be there; another only when accepted."""
    own = run.record["indicators"]
    wanted = context.snapshot or own
    way = f"add --accept-snapshot to go on with run {run.name} on other data, or train a new run"
    try:
        snapshot = _snapshot(context, wanted)
    except SnapshotMissing as error:
        if wanted != own:
            raise
        raise ModelError(
            f"the snapshot {own} that run {run.name} was trained on is no longer there ({error}): "
            f"name another with --snapshot, and {way}"
        ) from None
    same = snapshot.id == own and snapshot.manifest.digest == run.record["indicators_digest"]
    if not same and not accept:
        raise ModelError(
            f"run {run.name} was trained on the indicators {own}, not on {snapshot.id}: leave "
            f"--snapshot away, or {way}"
        )
    frequency = snapshot.manifest.details["frequency"]
    if frequency != run.record["frequency"]:
        raise ModelError(
            f"run {run.name} was trained on steps of {run.record['frequency']}, but the indicators "
            f"{snapshot.id} have steps of {frequency}: train a new run"
        )
    return snapshot


def _snapshot(context: Context, name: str | None) -> Snapshot:
    snapshot = snapshots.required(context.workspace.indicators, snapshot=name)
    snapshots.check_content(snapshot)
    return snapshot


def _tell_of_changes(context: Context, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """What a bit-equal continuation needs beside the data and the settings."""
    other = [
        f"{part}.{name} was {before[part].get(name)} and is {value}"
        for part in ("threads", "versions", "code")
        for name, value in now[part].items()
        if before[part].get(name) != value and (part, name) != ("code", "version")
    ]
    if other:
        context.console.warn(
            f"the weights may differ from those of an unbroken run: {'; '.join(other)}"
        )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
