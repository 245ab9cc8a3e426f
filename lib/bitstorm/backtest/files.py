"""Back-tests on disk: `backtests/NAME/` with a file a fold, evidence, record, metrics and pictures.

The name holds a hash of the recipe: all that the numbers follow from. So the same settings on the
same data find the folds that are already there, and others make another folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from bitstorm.backtest import tasks
from bitstorm.backtest.tasks import Done
from bitstorm.core import durable_io
from bitstorm.core.errors import StoreError

RECORD, METRICS = "backtest.json", "metrics.json"
# Frames of `judgement.evidence` and `judgement.day_volatility`.
EVIDENCE, VOLATILITY = "evidence.parquet", "volatility.parquet"
RUNNING, FINISHED = "running", "finished"


def folder_of(backtests: Path, recipe: Mapping[str, Any], *, last_ms: int) -> Path:
    """The folder of the back-test with this recipe on data that end at `last_ms` (ms UTC)."""
    end = datetime.fromtimestamp(last_ms / 1000, UTC)
    return backtests / f"{end:%Y%m%dT%H%M%SZ}-{durable_io.json_hash(recipe)[:8]}"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder's lock for the block; removes what killed writers left. Raises StoreError
    where another process computes this back-test."""
    with durable_io.writer_lock(folder, wait_seconds=0.5):
        for path in folder.glob(f"{durable_io.TEMPORARY}*"):
            path.unlink()
        yield


@dataclass(frozen=True)
class Stored:
    """A fold's frame (see `fold.run_fold`) and the record of its fit."""

    frame: pd.DataFrame
    record: Mapping[str, Any]


def path_of(folder: Path, number: int) -> Path:
    """The file of a fold."""
    return folder / f"fold-{number}.parquet"


def read_fold(folder: Path, number: int) -> Stored | None:
    """The fold with this number; None where it is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path_of(folder, number), partitioning=None)
        return Stored(table.to_pandas(), tasks.record_of(table))
    except (OSError, KeyError, ValueError, pa.ArrowException):
        return None


def write_fold(folder: Path, done: Done) -> None:
    """Write the fold's file, whole or not at all."""
    durable_io.replace(path_of(folder, done.fold.number), done.content)


def required_fold(folder: Path, number: int) -> Stored:
    """As `read_fold`. Raises StoreError where there is none."""
    found = read_fold(folder, number)
    if found is None:
        raise StoreError(
            f"{path_of(folder, number)} is missing or damaged, though this command wrote it: run "
            "the command again, and change nothing there meanwhile"
        )
    return found


@dataclass(frozen=True)
class Finished:
    """A finished back-test: its folder, `backtest.json` and `metrics.json`."""

    folder: Path
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]


def finished(backtests: Path) -> list[Finished]:
    """The finished back-tests, the one that was written last first."""
    found = [one for path in backtests.glob("*/") if (one := read_finished(path)) is not None]
    return sorted(found, key=lambda one: str(one.record["written_at"]), reverse=True)


def read_finished(folder: Path) -> Finished | None:
    """The back-test in the folder; None where it is not finished."""
    try:
        record, metrics = (
            json.loads((folder / name).read_text(encoding="utf-8")) for name in (RECORD, METRICS)
        )
        return Finished(folder, record, metrics) if record.get("state") == FINISHED else None
    except (OSError, ValueError, AttributeError):
        return None


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write the frame as Parquet, whole or not at all."""
    durable_io.replace(path, frame.to_parquet(index=False))


def read_frame(path: Path) -> pd.DataFrame | None:
    """The frame in the file; None where it is missing or damaged."""
    import pyarrow as pa

    try:
        return pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException):
        return None
