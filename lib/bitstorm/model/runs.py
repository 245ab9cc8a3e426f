"""Training runs on disk: `checkpoints/RUN/` with `best.keras`, `run.json` and `history.csv`.

`run.json` is there from the start; its `state` says how far it came. Only a finished run counts for
forecasts. While a process trains a run it holds the lock of its folder, so that a run which is
`running` without a holder is one that was killed.
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
from typing import Any

from bitstorm import __version__
from bitstorm.core import durable_io
from bitstorm.core.config import Training
from bitstorm.core.errors import BrokenOff, ModelError
from bitstorm.core.results import Result
from bitstorm.model import backend, checkpoint, runs
from bitstorm.spark.java import project_root

RECORD = "run.json"
HISTORY = checkpoint.HISTORY
RUNNING, INTERRUPTED, FAILED, FINISHED = "running", "interrupted", "failed", "finished"
_LOCK = ".lock"
_LOCK_SECONDS = 0.5
# Settings that older records have; nothing of them had a part in the weights.
_RETIRED = {"cache_mb", "deadline_seconds"}


@dataclass(frozen=True)
class Run:
    """`record` is the content of its `run.json`."""

    folder: Path
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> str:
        """One of the four; `running` only while a process holds it."""
        # Before runs could be resumed, a record was written at the end alone.
        state: str = self.record.get("state", FINISHED)
        return INTERRUPTED if state == RUNNING and not held(self.folder) else state


def new_folder(checkpoints: Path) -> Path:
    """An empty folder for a run, named by the time (UTC), so that names sort by age.
    Raises ModelError where none can be made."""
    folder = checkpoints / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ModelError(f"{folder} cannot be made: {error.strerror}") from error
    return folder


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[None]:
    """The block is the only one that trains this run. Raises ModelError where another does."""
    with _on_disk(folder):
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # Somebody may only be looking whether it is held.
        if not durable_io.lock(descriptor, wait_seconds=_LOCK_SECONDS):
            raise ModelError(
                f"run {folder.name} is being trained by another process: wait for it, or stop it"
            )
        yield
    finally:
        os.close(descriptor)


def held(folder: Path) -> bool:
    """Whether a process is training the run."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not durable_io.lock(descriptor, wait_seconds=0)
    finally:
        os.close(descriptor)


def write(folder: Path, record: Mapping[str, Any], *, state: str) -> Run:
    """Write the record with this state, durably. Raises BrokenOff where the disk does not let it;
    the record that is there stays."""
    record = {**record, "state": state}
    text = json.dumps(record, indent=2) + "\n"
    with _on_disk(folder):
        durable_io.replace(folder / RECORD, text.encode())
    return Run(folder, record)


def finish(folder: Path, record: Mapping[str, Any], *, files: tuple[str, ...] = ()) -> Run:
    """Write the record with the hashes of `files`; `tidy` is what is left to do."""
    with _on_disk(folder):
        hashes = {name: durable_io.file_hash(folder / name) for name in files}
    return write(folder, {**record, "files": hashes}, state=FINISHED)


def tidy(folder: Path) -> None:
    """Remove what only an unfinished run needs, as far as the disk lets it."""
    with contextlib.suppress(OSError):
        checkpoint.clear(folder)
        (folder / _LOCK).unlink(missing_ok=True)


def listed(checkpoints: Path) -> Iterator[tuple[str, Run | ModelError]]:
    """All runs by name, newest first; the error in the place of a record that cannot be read."""
    for path in sorted(checkpoints.glob(f"*/{RECORD}"), reverse=True):
        try:
            yield path.parent.name, _read(path)
        except ModelError as error:
            yield path.parent.name, error


def named(checkpoints: Path, name: str) -> Run:
    """The run of that name, whatever its state. Raises ModelError where there is none, or where its
    record cannot be read."""
    return _read(folder_of(checkpoints, name) / RECORD)


def folder_of(checkpoints: Path, name: str) -> Path:
    """Raises ModelError where there is no run of that name."""
    # A name, not a path: it may come from a command line.
    if not name or Path(name).name != name or not (checkpoints / name).is_dir():
        raise ModelError(f"there is no run {name} in {checkpoints}: `bitstorm runs` lists them")
    return checkpoints / name


def newest(
    checkpoints: Path,
    *,
    name: str | None = None,
    damaged: Callable[[str], None] | None = None,
) -> Run:
    """The newest finished run, or the named one. Raises ModelError where there is none.

    A record that cannot be read may be that of the newest one: it is raised, too, or told to
    `damaged` and passed over."""
    if name is not None:
        run = named(checkpoints, name)
        if run.state != FINISHED:
            raise ModelError(
                f"run {name} is {run.state}, expected a finished one: "
                f"`bitstorm train --resume {name}` goes on with it"
            )
        return run
    for _, found in listed(checkpoints):
        if isinstance(found, ModelError):
            if damaged is None:
                raise found
            damaged(f"{str(found).removesuffix(': train again')}; an older run is taken")
        elif found.state == FINISHED:
            return found
    raise ModelError(f"there is no finished run in {checkpoints}: run `bitstorm train` first")


@contextlib.contextmanager
def readable(run: Run) -> Iterator[None]:
    """Raises ModelError where the block does not find in the record what this version writes."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the record of run {run.name} is not of this version ({reason}): train again"
        ) from None


def settings_of(run: Run) -> Training:
    """The settings of its training, without those that there once were. Raises ModelError."""
    with readable(run):
        found = run.record["settings"].items()
        return Training.model_validate({k: v for k, v in found if k not in _RETIRED})


def load_network(run: Run) -> Any:
    """The run's best network, built anew from its settings, with the weights of its file: called
    as (window (n, look_back, features), training=False) it says (n, 1). Raises ModelError where the
    file is not the one that the record names by its hash, or what computed it is not installed."""
    made_by = run.record.get("backend", "tensorflow")
    backend.require(made_by, reason=f"run {run.name} was trained with {made_by}")
    load = _torch_network if made_by == "torch" else _keras_network
    try:
        return load(run)
    except (ModelError, KeyError) as error:
        reason = f"its record has no {error}" if isinstance(error, KeyError) else str(error)
        reason = reason.removesuffix(": train again")
        raise ModelError(
            f"the network of run {run.name} cannot be loaded ({reason}): train again"
        ) from None


def _keras_network(run: Run) -> Any:
    from bitstorm.model import network

    content = checked(run, network.BEST)
    built = network.build(**_described(run))
    network.load_weights(built, content)
    return built


def _torch_network(run: Run) -> Any:
    from bitstorm.model import torch_backend

    content = checked(run, torch_backend.BEST)
    built = torch_backend.seeded(**_described(run), seed=0)
    built.load(content)
    return lambda window, training=False: built.predict(window)[:, None]


def _described(run: Run) -> dict[str, Any]:
    settings = run.record["settings"]
    return {
        "look_back": settings["look_back"],
        "features": len(run.record["features"]),
        "units": settings["units"],
        "dropout": settings["dropout"],
        "learning_rate": run.record["learning_rate"],
    }


def checked(run: Run, name: str) -> bytes:
    """A file of the run, the one whose hash is in its record. Raises ModelError, its text a
    reason."""
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
def _on_disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Without a record or a state there is nothing to go on with.
        begun = True
        with contextlib.suppress(OSError):
            begun = (folder / RECORD).is_file() or checkpoint.written(folder)
        way = f"`bitstorm train --resume {folder.name}` goes on" if begun else "train again"
        raise BrokenOff(
            f"{folder} cannot be written to ({error.strerror or error}): make room there, then "
            f"{way}"
        ) from error


_GIT_SECONDS = 5.0


def code() -> dict[str, Any]:
    """The package's version and, in a checkout, its commit (`-dirty` where files differ)."""
    return {"version": __version__, "commit": _commit()}


def versions(*libraries: str) -> dict[str, str]:
    """Of Python and of the libraries that had a part in it."""
    return {
        "bitstorm": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in libraries},
    }


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def _commit() -> str | None:
    root = project_root()
    if root is None or not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(
            [*command, "--dirty"],
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


METRICS = ("epochs", "best_epoch", "best_validation_loss", "seconds")


@dataclass(frozen=True, repr=False)
class Overview(Result):
    """A line of the list; what the run's record does not say is None."""

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
    record = run.record
    fitted, problem = record.get("fitted"), None
    if run.state != runs.FINISHED:
        try:
            since, problems = checkpoint.load(run.folder)
            if not fitted and since is not None:
                seconds = sum(epoch.seconds for epoch in since.history)
                found = (since.epochs, since.best_epoch, since.best_loss, seconds)
                fitted = dict(zip(METRICS, found, strict=True))
            problem = "; ".join(problems) or record.get("reason")
        except ModelError as error:
            problem = str(error)
    fitted = fitted or {}
    return Overview(
        run=run.name,
        state=run.state,
        created_at=record.get("created_at"),
        backend=record.get("backend", "tensorflow"),
        indicators=record.get("indicators"),
        windows=record.get("windows", {}).get("training"),
        epochs=fitted.get("epochs", 0),
        best_epoch=fitted.get("best_epoch"),
        best_validation_loss=fitted.get("best_validation_loss"),
        seconds=fitted.get("seconds", 0.0),
        problem=problem,
    )
