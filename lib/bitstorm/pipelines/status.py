"""`status`: what the workspace holds, without Spark."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitstorm.collect.gaps import Gap
from bitstorm.context import Context
from bitstorm.core.errors import ModelError, UsageError
from bitstorm.core.results import Result
from bitstorm.core.time import iso, now_ms
from bitstorm.core.workspace import local_path
from bitstorm.model import runs
from bitstorm.pipelines.forecast_score import score_overview
from bitstorm.pipelines.gaps import find_gaps
from bitstorm.report.prometheus import prometheus_text
from bitstorm.report.summary import read_metrics, write_text
from bitstorm.store import landing, snapshots


@dataclass(frozen=True, repr=False)
class Status(Result):
    """`age_ms` is the age of the newest price, also of one that waits for ingest; `newest_ms` is
    its time, Unix ms UTC. `refused_rows` are of all ingested batches.

    `forecasts` is the score of the log over all runs in short, None without a log. `expected`,
    `missing` and `unasked` count slots as in `Gaps`; `gaps` are the newest MOST_GAPS of
    `gap_count`, newest first.
    """

    origin: str | None
    prices: dict[str, Any] | None
    indicators: dict[str, Any] | None
    run: str | None
    forecasts: dict[str, Any] | None
    waiting_batches: int
    unsettled_batches: int
    refused_batches: int
    refused_rows: int
    gaps: tuple[Gap, ...]
    gap_count: int
    expected: int
    missing: int
    unasked: int
    age_ms: int | None
    newest_ms: int | None


MOST_GAPS = 5


def status(context: Context) -> Status:
    """Rows, span, gaps and age of the data sets, and the batches in the landing folder."""
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
    slots = find_gaps(context)
    bound = workspace.bound_to()
    return Status(
        origin=None if bound is None else str(bound),
        prices=_facts(prices),
        indicators=_facts(indicators),
        run=_newest_run(workspace.checkpoints),
        forecasts=score_overview(replace(context, snapshot=None)),
        waiting_batches=len(found.ready),
        unsettled_batches=len(found.unsettled),
        refused_batches=len(found.refused),
        refused_rows=sum(tally["refused"] for tally in known.values()),
        gaps=slots.gaps[-MOST_GAPS:][::-1],
        gap_count=len(slots.gaps),
        expected=slots.expected,
        missing=slots.missing,
        unasked=slots.unasked,
        age_ms=slots.age_ms,
        newest_ms=slots.newest_ms,
    )


def write_prometheus(context: Context, found: Status, path: Path) -> None:
    """Write the status and the grades of the last forecast in Prometheus' text format. A reader of
    `path` sees the old file or the complete new one."""
    path = local_path(path, error=UsageError, what="--metrics")
    metrics = context.workspace.reports / "metrics.json"
    grades = read_metrics(metrics).get("grades") if metrics.exists() else None
    write_text(path, prometheus_text(vars(found), grades))


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


def _newest_run(checkpoints: Path) -> str | None:
    try:
        return runs.newest(checkpoints, damaged=lambda _: None).name
    except ModelError:
        return None
