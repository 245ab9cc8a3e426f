"""The state of a training after each epoch, from which another process goes on.

Two files an epoch in the run's folder: `state-000003.npz` holds the arrays (numpy's own format,
nothing pickled), `state-000003.json` all else and the SHA-256 of both. Each appears whole or not at
all, the JSON last: it is the commit. The one before it is kept.
"""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm.core import durable_io
from bitstorm.core.errors import ModelError, first_line

VERSION = 1
KEPT = 2
HISTORY = "history.csv"
_STATE, _BEST = "state/", "best/"
_NAMES = "state-*.json"


Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Epoch:
    """A whole epoch, counted from 1; losses are mean squared errors of the scaled target."""

    epoch: int
    loss: float
    val_loss: float
    seconds: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.val_loss)


@dataclass(frozen=True)
class Checkpoint:
    """`state` is all that a bit-equal continuation needs, `best` the weights of the best epoch,
    `record` what `run.json` says, so that a run outlives the loss of that file.

    `best_epoch` counts from 1; it is 0, and its loss infinite, before the first epoch.
    """

    history: tuple[Epoch, ...]
    best_epoch: int
    best_loss: float
    state: Arrays
    best: Arrays
    record: Mapping[str, Any]

    @property
    def epochs(self) -> int:
        return len(self.history)

    @property
    def wait(self) -> int:
        """Epochs since the best one."""
        return self.epochs - self.best_epoch

    def on_other_data(self) -> Checkpoint:
        """As far, but no loss so far counts: the next epoch is the best one."""
        return replace(self, best_epoch=self.epochs, best_loss=math.inf)

    def goes_on(self, *, epochs: int, patience: int) -> bool:
        """Whether another epoch is due."""
        return self.epochs < epochs and self.wait < patience


def check_shapes(found: Arrays, expected: Mapping[str, Any]) -> None:
    """Raises ModelError where names or shapes are others than those expected."""
    ours, theirs = (
        {name: tuple(value.shape) for name, value in some.items()} for some in (expected, found)
    )
    wrong = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    if wrong:
        raise ModelError(
            f"these are the weights of another network: {wrong[0]} is "
            f"{theirs.get(wrong[0], 'not there')}, expected {ours.get(wrong[0], 'none')}: "
            "train again"
        )


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write it durably, then remove all older ones but the newest of them.

    Raises OSError where it cannot be written; those before it are then as they were."""
    name = f"state-{checkpoint.epochs:06d}"
    buffer = io.BytesIO()
    arrays = {
        **{f"{_STATE}{key}": value for key, value in checkpoint.state.items()},
        **{f"{_BEST}{key}": value for key, value in checkpoint.best.items()},
    }
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    body = {
        "version": VERSION,
        "epoch": checkpoint.epochs,
        "best_epoch": checkpoint.best_epoch,
        "best_loss": checkpoint.best_loss,
        "history": [asdict(epoch) for epoch in checkpoint.history],
        "arrays": {
            "file": f"{name}.npz",
            "bytes": len(content),
            "sha256": durable_io.bytes_hash(content),
        },
        "record": checkpoint.record,
    }
    durable_io.replace(folder / f"{name}.npz", content)
    text = json.dumps({**body, "sha256": durable_io.json_hash(body)}, indent=2) + "\n"
    durable_io.replace(folder / f"{name}.json", text.encode())
    _remove(folder, keep={path.stem for path in sorted(folder.glob(_NAMES))[-KEPT:]})


def load(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and what is wrong with those after it; None where there is no
    checkpoint at all. Raises ModelError where there are some and none is whole."""
    problems: list[str] = []
    for path in sorted(folder.glob(_NAMES), reverse=True):
        try:
            return _read(path), problems
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            problems.append(f"{path.name} is damaged ({first_line(error)})")
    if problems:
        raise ModelError(
            f"no state of run {folder.name} can be read: {'; '.join(problems)}: train again"
        )
    return None, problems


def write_history(folder: Path, history: tuple[Epoch, ...]) -> None:
    """`history.csv`, a row an epoch, as Keras' CSVLogger writes it."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = ["epoch", *sorted(field.name for field in fields(Epoch) if field.name != "epoch")]
    writer.writerow(names)
    writer.writerows([getattr(epoch, name) for name in names] for epoch in history)
    durable_io.replace(folder / HISTORY, text.getvalue().encode())


def written(folder: Path) -> bool:
    """Whether there is a checkpoint, whole or not."""
    return any(folder.glob(_NAMES))


def clear(folder: Path) -> None:
    """Remove all of them, and what a killed run left half written."""
    _remove(folder, keep=set())


def _read(path: Path) -> Checkpoint:
    body = json.loads(path.read_text(encoding="utf-8"))
    stated = body.pop("sha256")
    if body["version"] != VERSION:
        raise ValueError(f"of version {body['version']}, expected {VERSION}")
    if stated != durable_io.json_hash(body):
        raise ValueError("its content is not what its hash says")
    content = path.with_suffix(".npz").read_bytes()
    if durable_io.bytes_hash(content) != body["arrays"]["sha256"]:
        raise ValueError(
            f"{path.with_suffix('.npz').name} has {len(content)} bytes, not the "
            f"{body['arrays']['bytes']} that were written"
        )
    names = [field.name for field in fields(Epoch)]
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Checkpoint(
            # States of older versions have another number in each row.
            tuple(Epoch(**{name: row[name] for name in names}) for row in body["history"]),
            body["best_epoch"],
            body["best_loss"],
            {k.removeprefix(_STATE): arrays[k] for k in arrays.files if k.startswith(_STATE)},
            {k.removeprefix(_BEST): arrays[k] for k in arrays.files if k.startswith(_BEST)},
            body["record"],
        )


def _remove(folder: Path, *, keep: set[str]) -> None:
    for path in [*folder.glob("state-*"), *folder.glob(f"{durable_io.TEMPORARY}*")]:
        if path.stem not in keep:
            path.unlink(missing_ok=True)
