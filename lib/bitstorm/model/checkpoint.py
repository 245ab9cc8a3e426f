"""The state of a training after each epoch, from which another process continues.

An epoch writes two files into the run's folder: `state-000003.npz` with the arrays (NumPy's format,
no pickle), then `state-000003.json` with everything else and the SHA-256 of both. Each file appears
at one moment; the JSON file is the commit. The state of the epoch before it stays.
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
    """A complete epoch, counted from 1; losses are mean squared errors of the scaled target."""

    epoch: int
    loss: float
    val_loss: float
    seconds: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.val_loss)


@dataclass(frozen=True)
class Checkpoint:
    """`state` is what a continuation to the same bits needs, `best` the weights of the best epoch,
    and `record` the content of `run.json`, which restores that file if it is lost.

    `best_epoch` counts from 1; before the first epoch it is 0, and its loss is infinite.
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

    def without_losses(self) -> Checkpoint:
        """As many epochs, but without their losses: the next epoch is the best one."""
        return replace(self, best_epoch=self.epochs, best_loss=math.inf)

    def has_next(self, epochs: int, patience: int) -> bool:
        """Whether the training needs another epoch."""
        return self.epochs < epochs and self.wait < patience


def check_shapes(found: Arrays, expected: Mapping[str, Any]) -> None:
    """Raise ModelError where a name or a shape differs from the expected ones."""
    ours, theirs = ({n: tuple(v.shape) for n, v in some.items()} for some in (expected, found))
    wrong = sorted(n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n))
    if wrong:
        raise ModelError(
            f"these are the weights of another network: {wrong[0]} is "
            f"{theirs.get(wrong[0], 'not there')}, expected {ours.get(wrong[0], 'none')}: "
            "train again"
        )


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint durably, then delete all others except the newest.

    Raises OSError where it cannot be written; the others are then unchanged."""
    name = f"state-{checkpoint.epochs:06d}"
    buffer = io.BytesIO()
    parts = ((_STATE, checkpoint.state), (_BEST, checkpoint.best))
    np.savez(buffer, **{f"{prefix}{key}": v for prefix, part in parts for key, v in part.items()})
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
    """The newest readable checkpoint (None where there is none at all), and the problems of newer
    ones. Raises ModelError where there are checkpoints and none is readable."""
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
    """Write `history.csv` as Keras' CSVLogger does: a row an epoch."""
    text = io.StringIO()
    writer = csv.writer(text)
    names = ["epoch", *sorted(field.name for field in fields(Epoch) if field.name != "epoch")]
    writer.writerow(names)
    writer.writerows([getattr(epoch, name) for name in names] for epoch in history)
    durable_io.replace(folder / HISTORY, text.getvalue().encode())


def exists(folder: Path) -> bool:
    """Whether there is a checkpoint, readable or not."""
    return any(folder.glob(_NAMES))


def clear(folder: Path) -> None:
    """Delete all checkpoints, and the incomplete files of a killed run."""
    _remove(folder, keep=set())


def _read(path: Path) -> Checkpoint:
    body = json.loads(path.read_text(encoding="utf-8"))
    stated = body.pop("sha256")
    if body["version"] != VERSION:
        raise ValueError(f"its version is {body['version']}, expected {VERSION}")
    if stated != durable_io.json_hash(body):
        raise ValueError("its hash differs from its content")
    file = path.with_suffix(".npz")
    content = file.read_bytes()
    if durable_io.bytes_hash(content) != body["arrays"]["sha256"]:
        raise ValueError(
            f"the hash of {file.name} differs: found {len(content)} bytes, expected "
            f"{body['arrays']['bytes']}"
        )
    names = [field.name for field in fields(Epoch)]
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return Checkpoint(
            # A row of an older version has one more number.
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
