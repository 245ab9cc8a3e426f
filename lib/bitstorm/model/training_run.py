"""The part of `train` after the data: begin a run on disk, or continue one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.context import Context
from bitstorm.core.errors import BrokenOff, ModelError, NothingToDo, SnapshotMissing
from bitstorm.core.settings import Training
from bitstorm.model import backend, checkpoint, runs, training, workers
from bitstorm.model.checkpoint import Checkpoint
from bitstorm.model.feed import Feed
from bitstorm.model.runs import Run
from bitstorm.model.scaling import Scaler
from bitstorm.model.training import Progress, Task
from bitstorm.model.windowing import Split
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LIBRARIES = {
    "tensorflow": ("tensorflow", "keras", "petastorm", "pyspark"),
    "torch": ("torch", "petastorm", "pyspark"),
}


@dataclass(frozen=True)
class Attempt:
    """A run to begin, or to continue: then with its folder and record, and with its newest
    checkpoint (None before the first complete epoch)."""

    settings: Training
    snapshot: Snapshot
    folder: Path | None = None
    record: Mapping[str, Any] | None = None
    since: Checkpoint | None = None

    @property
    def split(self) -> Split | None:
        """The split of the run to continue; None for a new run."""
        return None if self.record is None else Split(**self.record["split"])

    @property
    def scaler(self) -> Scaler | None:
        """The scaler of the run to continue, since a new fit can differ in the last bit; None for a
        new run."""
        return None if self.record is None else Scaler.from_json(self.record["scaler"])


@dataclass(frozen=True)
class Prepared:
    """The data of a training. `feeds` and `counts`, the numbers of windows, are by part; `warm_up`
    has the points `needed` before the first target and the points `had`. `spark` is there where
    several workers train."""

    features: list[str]
    split: Split
    scaler: Scaler
    warm_up: Mapping[str, int]
    feeds: Mapping[str, Feed]
    counts: Mapping[str, int]
    spark: SparkSession | None = None


@contextlib.contextmanager
def open_attempt(
    context: Context, *, resume: str | None, accept_snapshot: bool
) -> Iterator[Attempt]:
    """A new run, or the run `resume`, whose lock is held for the block.

    Raises NothingToDo where the run is finished. Raises ModelError where it cannot continue: it has
    failed, another process trains it, its checkpoints are damaged, or the settings or the snapshot
    differ.
    """
    if resume is None:
        yield Attempt(context.settings.training, _snapshot(context, context.snapshot))
        return
    checkpoints = context.workspace.checkpoints
    with runs.train_lock(runs.folder_of(checkpoints, resume)):
        run, since = _load_run(context, resume)
        if run.record.get("state", runs.FINISHED) == runs.FINISHED:
            runs.delete_leftovers(run.folder)
            raise NothingToDo(f"run {resume} is finished: there is nothing to resume")
        if run.record["state"] == runs.FAILED:
            raise ModelError(f"run {resume} has failed ({run.record.get('reason')}): train again")
        settings = _settings_of(context, run)
        snapshot = _snapshot_of(context, run, accept=accept_snapshot)
        epochs = 0 if since is None else since.epochs
        context.console.log(f"    run {resume} continues after epoch {epochs} on {snapshot.id}")
        yield Attempt(settings, snapshot, run.folder, run.record, since)


def fit(context: Context, attempt: Attempt, data: Prepared) -> Run:
    """Train to the end; the finished run."""
    settings, since = attempt.settings, _start_of(attempt)
    folder = attempt.folder or runs.new_folder(context.workspace.checkpoints)
    record = {"run": folder.name, **record_of(attempt, data)}
    made_with = {part: record[part] for part in ("threads", "versions", "code")}
    if attempt.record is not None:
        if changes := changes_between(attempt.record, record):
            text = f"the weights can differ from an unbroken run: {'; '.join(changes)}"
            context.console.warn(text)
        # The record keeps the values of the run's start; each session has its own.
        first = ("created_at", "sessions", *made_with)
        record = {**record, **{name: attempt.record[name] for name in first}}
    done = 0 if attempt.since is None else attempt.since.epochs
    session = {"started_at": _now(), "after_epoch": done, "indicators": attempt.snapshot.id}
    session |= made_with
    record["sessions"] = [*record["sessions"], session]
    shape = backend.network_shape(
        settings, features=len(data.features), learning_rate=record["learning_rate"]
    )
    shape["seed"] = settings.seed
    with (
        runs.train_lock(folder) if attempt.folder is None else contextlib.nullcontext(),
        context.console.bar() as bar,
    ):
        task = Task(
            train=data.feeds["training"],
            validation=data.feeds["validation"],
            epochs=settings.epochs,
            patience=settings.patience,
            batch_size=record["batch_size"],
            seed=settings.seed,
            folder=folder,
            record=record,
            since=since,
            progress=lambda at: bar(_share(at), progress_text(at), at.val_loss is not None),
        )
        with _failure_recorded(folder, record):
            runs.write(folder, record, state=runs.RUNNING)
            if data.spark is None:
                fitted = backend.fit(settings.backend, shape, task)
            else:
                count = settings.workers
                fitted = workers.fit(data.spark, settings.backend, shape, task, count)
            session["ended_at"] = _now()
            record["fitted"] = vars(fitted)
            best = backend.BEST[settings.backend]
            run = runs.finish(folder, record, files=(best, runs.HISTORY))
        # From here on the run is finished, however the process ends.
        runs.delete_leftovers(folder)
        return run


def record_of(attempt: Attempt, data: Prepared) -> dict[str, Any]:
    """The record before the first epoch."""
    settings, manifest = attempt.settings, attempt.snapshot.manifest
    batch_size, learning_rate = batch_size_and_rate(settings)
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
        "threads": _threads(settings),
        "versions": runs.versions(*LIBRARIES[settings.backend]),
        "code": runs.code(),
        "sessions": [],
    }


def _threads(settings: Training) -> dict[str, int]:
    if settings.workers > 1:
        # Each has one, so the cores change no bit; and the driver loads no library.
        return {"intra_op": 1}
    return {"cores": runs.cores(), **backend.threads(settings.backend)}


def batch_size_and_rate(settings: Training) -> tuple[int, float]:
    """The batch size and the learning rate, with `auto` resolved."""
    batch_size = training.AUTO_BATCH_SIZE if settings.batch_size == "auto" else settings.batch_size
    if settings.learning_rate == "auto":
        return batch_size, training.auto_learning_rate(batch_size)
    return batch_size, settings.learning_rate


def progress_text(at: Progress) -> str:
    """The text next to the bar, and the line of an epoch."""
    parts = [f"epoch {at.epoch}/{at.epochs}", f"loss {at.loss:.4f}"]
    if at.val_loss is not None:
        parts.append(f"validation {at.val_loss:.4f}")
    parts.append(f"{at.windows_per_second:,.0f} windows/s")
    minutes, seconds = divmod(round(at.seconds_left), 60)
    parts.append(f"at most {minutes}:{seconds:02d} left")
    return "  ".join(parts)


def _share(at: Progress) -> float:
    return (at.epoch - 1 + at.windows / at.of_windows) / at.epochs


def _start_of(attempt: Attempt) -> Checkpoint | None:
    """The checkpoint to continue from, without its losses where the data are others: these cannot
    be compared. Raises ModelError where no epoch is left for other data."""
    since, settings = attempt.since, attempt.settings
    if since is None:
        return None
    now = (attempt.snapshot.id, attempt.snapshot.manifest.digest)
    if now == (since.record["indicators"], since.record["indicators_digest"]):
        return since
    if not since.has_next(settings.epochs, settings.patience):
        raise ModelError(
            f"this run has {since.epochs} epochs, all that training.epochs ({settings.epochs}) and "
            f"training.patience ({settings.patience}) allow, so none is left for other data: "
            "remove --accept-snapshot, or train a new run"
        )
    return since.without_losses()


@contextlib.contextmanager
def _failure_recorded(folder: Path, record: dict[str, Any]) -> Iterator[None]:
    """Where the block fails, write the reason into the record; disk errors are ignored."""
    try:
        yield
    except BaseException as error:
        failed = isinstance(error, ModelError) and not isinstance(error, BrokenOff)
        record["reason"] = str(error) if isinstance(error, ModelError) else type(error).__name__
        record["sessions"][-1]["ended_at"] = _now()
        with contextlib.suppress(BrokenOff):
            runs.write(folder, record, state=runs.FAILED if failed else runs.INTERRUPTED)
        raise


def _load_run(context: Context, name: str) -> tuple[Run, Checkpoint | None]:
    """The run and its newest checkpoint, which also replaces a damaged record."""
    folder = runs.folder_of(context.workspace.checkpoints, name)
    problem = None
    try:
        run = runs.find(context.workspace.checkpoints, name)
        if run.record.get("state", runs.FINISHED) in (runs.FINISHED, runs.FAILED):
            return run, None
    except ModelError as error:
        problem = error
    since, problems = checkpoint.load(folder)
    if problem is not None:
        if since is None:
            raise problem
        context.console.warn(f"{problem}; the record in its last state is used")
        run = Run(folder, {**since.record, "state": runs.INTERRUPTED})
    if problems and since is not None:
        used = f"the state before it, after epoch {since.epochs}, is used"
        context.console.warn(f"{'; '.join(problems)}: {used}")
    return run, since


def _settings_of(context: Context, run: Run) -> Training:
    """The settings of the run. Raises ModelError where the user sets another value."""
    recorded, now = runs.settings_of(run), context.settings.training
    changed = [
        f"training.{name} was {getattr(recorded, name)!r} and is now {getattr(now, name)!r}"
        for name in sorted(now.model_fields_set)
        if getattr(now, name) != getattr(recorded, name)
    ]
    if changed:
        raise ModelError(
            f"run {run.name} cannot continue with other settings ({'; '.join(changed)}): "
            "remove them, or train a new run"
        )
    return recorded


def _snapshot_of(context: Context, run: Run, *, accept: bool) -> Snapshot:
    """The snapshot of the run, even if there are newer ones; another one only with `accept`."""
    own = run.record["indicators"]
    wanted = context.snapshot or own
    way = f"add --accept-snapshot to continue run {run.name} on other data, or train a new run"
    try:
        snapshot = _snapshot(context, wanted)
    except SnapshotMissing as error:
        if wanted != own:
            raise
        raise ModelError(
            f"the snapshot {own} that run {run.name} was trained on is missing ({error}): "
            f"name another with --snapshot, and {way}"
        ) from None
    same = snapshot.id == own and snapshot.manifest.digest == run.record["indicators_digest"]
    if not same and not accept:
        raise ModelError(
            f"run {run.name} was trained on the indicators {own}, not on {snapshot.id}: remove "
            f"--snapshot, or {way}"
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


def changes_between(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The threads and versions in which two records differ: the same bits need the same ones."""
    return [
        f"{part}.{name} was {before.get(part, {}).get(name)} and is {value}"
        for part in ("threads", "versions", "code")
        for name, value in now[part].items()
        if before.get(part, {}).get(name) != value and (part, name) != ("code", "version")
    ]


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
