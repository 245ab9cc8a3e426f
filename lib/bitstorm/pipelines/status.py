"""`status`: what is there, without Spark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitstorm.errors import ModelError
from bitstorm.instants import duration_ms, iso, now_ms
from bitstorm.model import runs
from bitstorm.pipelines.context import Context
from bitstorm.store import landing, snapshots


@dataclass(frozen=True)
class Gap:
    """Grid buckets without an observation between two that have one; labels in ms UTC."""

    after_ms: int
    before_ms: int
    missing: int


@dataclass(frozen=True)
class Status:
    """`age_ms` is how old the newest price is; `gaps` are on the settings' grid, newest first."""

    origin: str | None
    prices: dict[str, Any] | None
    indicators: dict[str, Any] | None
    run: str | None
    waiting_batches: int
    unsettled_batches: int
    refused_batches: int
    gaps: tuple[Gap, ...]
    gap_count: int
    missing: int
    age_ms: int | None


MOST_GAPS = 5


def status(context: Context) -> Status:
    """Rows, span, gaps and freshness of the data sets, and what waits in the landing folder."""
    workspace, settings = context.workspace, context.settings
    prices = snapshots.current(workspace.prices, snapshot=context.snapshot)
    indicators = snapshots.current(workspace.indicators)
    known = snapshots.read_ledger(prices)
    found = landing.survey(
        workspace.landing,
        known=known,
        settle_seconds=settings.ingest.settle_seconds,
        now_ms=now_ms(),
    )
    gaps = [] if prices is None else _gaps(prices, duration_ms(settings.grid.frequency))
    bound = workspace.bound_to()
    last = None if prices is None else prices.manifest.last_ms
    return Status(
        origin=None if bound is None else str(bound),
        prices=_facts(prices),
        indicators=_facts(indicators),
        run=_newest_run(workspace.checkpoints),
        waiting_batches=len(found.ready),
        unsettled_batches=len(found.unsettled),
        refused_batches=len(found.refused),
        gaps=tuple(gaps[-MOST_GAPS:][::-1]),
        gap_count=len(gaps),
        missing=sum(gap.missing for gap in gaps),
        age_ms=None if last is None else now_ms() - last,
    )


def _facts(snapshot: snapshots.Snapshot | None) -> dict[str, Any] | None:
    if snapshot is None:
        return None
    manifest = snapshot.manifest
    return {
        "snapshot": manifest.id,
        "rows": manifest.rows,
        "files": len(manifest.files),
        "bytes": sum(file.size for file in manifest.files),
        "first": None if manifest.first_ms is None else iso(manifest.first_ms),
        "last": None if manifest.last_ms is None else iso(manifest.last_ms),
    }


def _gaps(snapshot: snapshots.Snapshot, step_ms: int) -> list[Gap]:
    """Holes of the grid, read file by file: months are sorted and do not overlap."""
    import pyarrow.parquet as pq

    gaps: list[Gap] = []
    before: int | None = None
    for path in snapshot.files:
        stamps = pq.ParquetFile(path).read(columns=["timestamp"]).column(0).to_numpy()
        labels = -(-stamps // step_ms)
        labels.sort()
        for label in _distinct_starts(labels, before):
            gaps.append(Gap(label[0] * step_ms, label[1] * step_ms, label[1] - label[0] - 1))
        before = int(labels[-1]) if len(labels) else before
    return gaps


def _distinct_starts(labels: Any, before: int | None) -> list[tuple[int, int]]:
    """Neighbouring labels more than one apart, the last label of the month before included."""
    import numpy as np

    series = labels if before is None else np.concatenate(([before], labels))
    wide = np.flatnonzero(np.diff(series) > 1)
    return [(int(series[i]), int(series[i + 1])) for i in wide]


def _newest_run(checkpoints: Path) -> str | None:
    try:
        return runs.newest(checkpoints).name
    except ModelError:
        return None
