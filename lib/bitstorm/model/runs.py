"""Training runs on disk: `checkpoints/RUN/` with `best.keras`, `run.json` and `history.csv`.

`run.json` exists from the start; its `state` is one of four. Forecasts use only finished runs. A
process holds the lock of the folder while it trains, so a run that is `running` without a lock was
killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm import __version__
from bitstorm.core import durable_io
from bitstorm.core.errors import BrokenOff, ModelError
from bitstorm.core.results import Result
from bitstorm.core.settings import Training
from bitstorm.model import backend, checkpoint
from bitstorm.spark.java import project_root

if TYPE_CHECKING:
    import numpy as np

RECORD = "run.json"
HISTORY = checkpoint.HISTORY
RUNNING, INTERRUPTED, FAILED, FINISHED = "running", "interrupted", "failed", "finished"
_LOCK = ".lock"
_LOCK_SECONDS = 0.5
# Settings of older records, without effect on the weights.
_RETIRED = {"cache_mb", "deadline_seconds"}


@dataclass(frozen=True)
class Run:
    """A run's folder, and the content of its `run.json`."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> str:
        """One of the four states; `running` only while a process trains the run."""
        # Older versions wrote the record only at the end.
        state: str = self.record.get("state", FINISHED)
        return INTERRUPTED if state == RUNNING and not is_training(self.folder) else state


def new_folder(checkpoints: Path) -> Path:
    """Make an empty folder for a run; its name begins with the time (UTC), so names sort by age.
    Raises ModelError where the folder cannot be made."""
    folder = checkpoints / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ModelError(f"{folder} cannot be made: {error.strerror}") from error
    return folder


@contextlib.contextmanager
def train_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of the run's training for the block. Raises ModelError where another process
    holds it."""
    with _disk_errors(folder):
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # Another process may hold it for a moment, in `is_training`.
        if not durable_io.lock(descriptor, wait_seconds=_LOCK_SECONDS):
            raise ModelError(
                f"run {folder.name} is being trained by another process: wait for it, or stop it"
            )
        yield
    finally:
        os.close(descriptor)


def is_training(folder: Path) -> bool:
    """Whether a process trains the run."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not durable_io.lock(descriptor, wait_seconds=0)
    finally:
        os.close(descriptor)


def write(folder: Path, record: Mapping[str, Any], *, state: str) -> Run:
    """Write the record with this state, durably. Raises BrokenOff where the disk refuses; the old
    record then stays."""
    record = {**record, "state": state}
    with _disk_errors(folder):
        durable_io.replace(folder / RECORD, (json.dumps(record, indent=2) + "\n").encode())
    return Run(folder, record)


def finish(folder: Path, record: Mapping[str, Any], *, files: tuple[str, ...] = ()) -> Run:
    """Write the record with the hashes of `files`; call `delete_leftovers` after it."""
    with _disk_errors(folder):
        hashes = {name: durable_io.file_hash(folder / name) for name in files}
    return write(folder, {**record, "files": hashes}, state=FINISHED)


def delete_leftovers(folder: Path) -> None:
    """Delete the files that only an unfinished run needs; disk errors are ignored."""
    with contextlib.suppress(OSError):
        checkpoint.clear(folder)
        (folder / _LOCK).unlink(missing_ok=True)


def all_runs(checkpoints: Path) -> Iterator[tuple[str, Run | ModelError]]:
    """(name, run) newest first; the error instead of a run whose record cannot be read."""
    for path in sorted(checkpoints.glob(f"*/{RECORD}"), reverse=True):
        try:
            yield path.parent.name, _read(path)
        except ModelError as error:
            yield path.parent.name, error


def find(checkpoints: Path, name: str) -> Run:
    """The run of this name, in any state. Raises ModelError where there is none, or its record
    cannot be read."""
    return _read(folder_of(checkpoints, name) / RECORD)


def folder_of(checkpoints: Path, name: str) -> Path:
    """The folder of the run of this name. Raises ModelError where there is none."""
    # Not a path: the name may come from a command line.
    if not name or Path(name).name != name or not (checkpoints / name).is_dir():
        raise ModelError(f"there is no run {name} in {checkpoints}: `bitstorm runs` lists them")
    return checkpoints / name


def newest(
    checkpoints: Path, *, name: str | None = None, damaged: Callable[[str], None] | None = None
) -> Run:
    """The newest finished run, or the named one. Raises ModelError where there is none.

    A run whose record cannot be read can be the newest one: `damaged` gets a message and the run is
    skipped; without `damaged` it raises ModelError, too."""
    if name is not None:
        run = find(checkpoints, name)
        if run.state != FINISHED:
            raise ModelError(
                f"run {name} is {run.state}, expected a finished one: "
                f"`bitstorm train --resume {name}` continues it"
            )
        return run
    for _, found in all_runs(checkpoints):
        if isinstance(found, ModelError):
            if damaged is None:
                raise found
            damaged(f"{str(found).removesuffix(': train again')}; an older run is used")
        elif found.state == FINISHED:
            return found
    raise ModelError(f"there is no finished run in {checkpoints}: run `bitstorm train` first")


@contextlib.contextmanager
def record_errors(run: Run) -> Iterator[None]:
    """Raise ModelError where the block fails since the record has another form."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the record of run {run.name} is not of this version ({reason}): train again"
        ) from None


def settings_of(run: Run) -> Training:
    """The settings of its training. Raises ModelError where the record has another form."""
    with record_errors(run):
        recorded = run.record["settings"].items()
        return Training.model_validate({k: v for k, v in recorded if k not in _RETIRED})


def load_network(run: Run) -> Any:
    """The run's best network, built from its settings, with the weights of its file: a function of
    (window float32 (n, look_back, features), training=False) → float32 (n, 1). Raises ModelError
    where the file's hash is not in the record, or the backend is not installed."""
    built = _load(run)
    if _backend(run) == "torch":
        return lambda window, training=False: built.predict(window)[:, None]
    return built


def load_weights(run: Run) -> dict[str, np.ndarray]:
    """The weights of the run's best network, float32, in Keras' layout (see `network.weights`) for
    either backend. Raises ModelError as `load_network`."""
    built = _load(run)
    if _backend(run) == "torch":
        return dict(built.weights())
    from bitstorm.model import network

    return network.weights(built)


def _backend(run: Run) -> str:
    return str(run.record.get("backend", "tensorflow"))


def _load(run: Run) -> Any:
    name = _backend(run)
    backend.require(name, reason=f"run {run.name} was trained with {name}")
    try:
        return _torch_network(run) if name == "torch" else _keras_network(run)
    except (ModelError, KeyError) as error:
        reason = f"its record has no {error}" if isinstance(error, KeyError) else str(error)
        reason = reason.removesuffix(": train again")
        raise ModelError(
            f"the network of run {run.name} cannot be loaded ({reason}): train again"
        ) from None


def _keras_network(run: Run) -> Any:
    from bitstorm.model import network

    content = read_file(run, network.BEST)
    built = network.build(**_network_shape(run))
    network.load_weights(built, content)
    return built


def _torch_network(run: Run) -> Any:
    from bitstorm.model import torch_backend

    content = read_file(run, torch_backend.BEST)
    built = torch_backend.seeded(**_network_shape(run), seed=0)
    built.load(content)
    return built


def _network_shape(run: Run) -> dict[str, Any]:
    features, rate = len(run.record["features"]), run.record["learning_rate"]
    return backend.network_shape(settings_of(run), features=features, learning_rate=rate)


def read_file(run: Run, name: str) -> bytes:
    """The content of a file of the run. Raises ModelError, its text a reason, where its hash is
    not in the record."""
    if "files" not in run.record:
        raise ModelError("its record, of an older version, has no hash of it")
    try:
        content = (run.folder / name).read_bytes()
    except OSError as error:
        raise ModelError(f"{name}: {error.strerror}") from None
    if durable_io.bytes_hash(content) != run.record["files"].get(name):
        raise ModelError(f"{name} is not the file whose hash the record has")
    return content


def _read(path: Path) -> Run:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("expected an object")
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}): train again") from None
    return Run(path.parent, record)


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Raise BrokenOff, with the command to continue, where the block fails to write."""
    try:
        yield
    except OSError as error:
        # A run without a record and a state cannot be resumed.
        begun = True
        with contextlib.suppress(OSError):
            begun = (folder / RECORD).is_file() or checkpoint.exists(folder)
        way = f"`bitstorm train --resume {folder.name}` goes on" if begun else "train again"
        raise BrokenOff(
            f"{folder} cannot be written to ({error.strerror or error}): make room there, then "
            f"{way}"
        ) from error


_GIT_SECONDS = 5.0


def code() -> dict[str, Any]:
    """The package's version and, in a checkout, its commit (with `-dirty` where files differ)."""
    return {"version": __version__, "commit": _commit()}


def versions(*libraries: str) -> dict[str, str]:
    """The versions of the package, of Python and of these libraries."""
    return {
        "bitstorm": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def _commit() -> str | None:
    root = project_root()
    if root is None or not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        answer = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def flattened(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of each value that is no mapping."""
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


METRICS = ("epochs", "best_epoch", "best_validation_loss", "seconds")


@dataclass(frozen=True, repr=False)
class Overview(Result):
    """A run's line in the list; None where its record has no such value."""

    run: str
    state: str
    created_at: str | None = None
    backend: str | None = None
    indicators: str | None = None
    windows: int | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    best_validation_loss: float | None = None
    seconds: float | None = None
    problem: str | None = None


def overview_of(run: Run) -> Overview:
    """The run's line; an unfinished run has the metrics of its newest checkpoint."""
    record, problem = run.record, None
    fitted: dict[str, Any] = {"epochs": 0, "seconds": 0.0, **record.get("fitted", {})}
    if run.state != FINISHED:
        try:
            since, problems = checkpoint.load(run.folder)
            if "fitted" not in record and since is not None:
                seconds = sum(epoch.seconds for epoch in since.history)
                values = (since.epochs, since.best_epoch, since.best_loss, seconds)
                fitted = dict(zip(METRICS, values, strict=True))
            problem = "; ".join(problems) or record.get("reason")
        except ModelError as error:
            problem = str(error)
    return Overview(
        run=run.name,
        state=run.state,
        created_at=record.get("created_at"),
        backend=record.get("backend", "tensorflow"),
        indicators=record.get("indicators"),
        windows=record.get("windows", {}).get("training"),
        problem=problem,
        **{name: fitted.get(name) for name in METRICS},
    )
