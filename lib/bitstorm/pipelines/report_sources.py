"""What the dashboard shows of the prices and the indicators, read from the workspace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from bitstorm.context import Context
from bitstorm.core.schema import indicator_table
from bitstorm.core.time import DAY_MS, iso, now_ms
from bitstorm.model import blocks
from bitstorm.pipelines.gaps import find_gaps
from bitstorm.report.page import GAPS, TABLE_ROWS, Grid, series_columns
from bitstorm.report.thinning import levels
from bitstorm.store import landing, snapshots
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


def read_state(context: Context, *, frequency: str) -> dict[str, Any]:
    """Counts and span of the prices, the gaps on the grid of this frequency, what waits for ingest
    and what was refused."""
    grid = context.settings.grid.model_copy(update={"frequency": frequency})
    settings = context.settings.model_copy(update={"grid": grid})
    workspace, slots = context.workspace, find_gaps(replace(context, settings=settings))
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
