"""What the dashboard shows of prices, indicators and their lineage, read from the workspace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bitstorm.context import Context
from bitstorm.core.errors import ModelError
from bitstorm.core.schema import indicator_table
from bitstorm.core.time import DAY_MS, iso, now_ms
from bitstorm.model import blocks, runs
from bitstorm.pipelines.gaps import find_gaps
from bitstorm.report.page import BATCHES, GAPS, TABLE_ROWS, Grid, series_columns
from bitstorm.report.summary import Metrics
from bitstorm.report.thinning import levels
from bitstorm.store import landing, snapshots
from bitstorm.store import manifest as manifests
from bitstorm.store.snapshots import Snapshot


def read_grid(snapshot: Snapshot) -> Grid:
    """The levels of all points and the newest rows; one pass, with one file in memory."""
    import pyarrow as pa

    details = snapshot.manifest.details
    step, (first, last) = blocks.step_of(snapshot), blocks.span_of(snapshot)
    drawn = [column["name"] for column in series_columns(details["windows"], unit="")]
    stored = [field.name for field in indicator_table(details["windows"]).stored]
    newest: list[pa.Table] = []
    before: list[float] = []

    def pieces() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for table in blocks.tables(snapshot, stored):
            time, price = table["timestamp"].to_numpy(), table["price"].to_numpy()
            before[:] = [*before, *price[time <= last - DAY_MS][-1:].tolist()][-1:]
            rows = pa.concat_tables([*newest, table])
            newest[:] = [rows.slice(max(0, rows.num_rows - TABLE_ROWS))]
            yield time // step, np.stack([table[name].to_numpy() for name in drawn])

    found = levels(pieces(), first=first // step, last=last // step, columns=len(drawn))
    day_before = before[0] if before else None
    rows = newest[0].to_pandas()
    return Grid(details["frequency"], step, details["windows"], found, rows, day_before)


def read_state(context: Context) -> dict[str, Any]:
    """Counts, span and gaps of the prices, what waits for ingest and what was refused."""
    workspace, slots = context.workspace, find_gaps(context)
    prices = snapshots.current(workspace.prices)
    ledger = snapshots.read_ledger(prices)
    waiting = landing.survey(
        workspace.landing,
        known=ledger,
        settle_seconds=context.settings.ingest.settle_seconds,
        now_ms=now_ms(),
        cache=workspace.cache / "landing.json",
    )
    span = (None, None) if prices is None else (prices.manifest.first_ms, prices.manifest.last_ms)
    first, last = (None if moment is None else iso(moment) for moment in span)
    return {
        "rows": 0 if prices is None else prices.manifest.rows,
        "first": first,
        "last": last,
        "missing": slots.missing,
        "expected": slots.expected,
        "gaps": [
            {"from": iso(g.start_ms), "until": iso(g.end_ms), "slots": g.missing, "state": g.state}
            for g in slots.gaps[-GAPS:][::-1]
        ],
        "gap_count": len(slots.gaps),
        "age_ms": slots.age_ms,
        "waiting_batches": len(waiting.ready),
        "refused_batches": len(waiting.refused),
        "refused_rows": sum(tally["refused"] for tally in ledger.values()),
    }


def read_lineage(context: Context, metrics: Metrics) -> dict[str, Any]:
    """The chain of the forecast: the newest batches of its prices, its snapshots, its run."""
    workspace = context.workspace
    prices = snapshots.known(workspace.prices, metrics["snapshot"]["prices"])
    indicators = snapshots.known(workspace.indicators, metrics["snapshot"]["indicators"])
    log = snapshots.current(workspace.forecasts)
    try:
        record = runs.find(workspace.checkpoints, metrics["run"]).record
    except ModelError:
        record = {}
    weights = [sha for name, sha in record.get("files", {}).items() if name.startswith("best")]
    return {
        "batches": [] if prices is None else _newest_batches(prices),
        "batch_count": ((prices and prices.manifest.ledger) or {}).get("batches", 0),
        "prices": _snapshot(metrics["snapshot"]["prices"], prices),
        "indicators": _snapshot(metrics["snapshot"]["indicators"], indicators),
        "run": {
            "name": metrics["run"],
            "weights_sha256": weights[0] if weights else None,
            **{name: record.get(name) for name in ("created_at", "backend", "indicators")},
        },
        "forecast": _snapshot(None if log is None else log.id, log),
    }


def _snapshot(identity: str | None, found: Snapshot | None) -> dict[str, Any]:
    """ID, digest, rows and time; None where the snapshot is gone."""
    manifest = None if found is None else found.manifest
    return {
        "id": identity,
        "digest": manifest and manifest.digest,
        "rows": manifest and manifest.rows,
        "committed": manifest and manifest.created_at,
    }


def _newest_batches(prices: Snapshot) -> list[dict[str, Any]]:
    """The batches of the newest commits up to this one, the newest first."""
    numbers = [n for n in manifests.sequences(prices.root) if n <= prices.manifest.sequence]
    found: dict[str, dict[str, Any]] = {}
    for number in numbers[: -BATCHES - 1 : -1]:
        manifest = snapshots.readable_manifest(prices.root, number)
        for sha, tally in {} if manifest is None else manifest.batches.items():
            found.setdefault(sha, {"name": tally["name"], "sha256": sha, "rows": tally["read"]})
        if len(found) >= BATCHES:
            break
    return list(found.values())[:BATCHES]
