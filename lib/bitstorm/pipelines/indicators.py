"""`indicators`: `prices` → the `indicators` data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bitstorm.errors import DataError
from bitstorm.instants import duration_ms
from bitstorm.pipelines.context import Context
from bitstorm.schema import PRICES, indicator_table
from bitstorm.store import petastorm_io, snapshots
from bitstorm.store.snapshots import Change, Draft
from bitstorm.transform.indicators import from_prices


@dataclass(frozen=True)
class Computed:
    """`idle` when the newest indicators are already those of these prices and settings."""

    snapshot: str
    prices: str
    rows: int
    first_ms: int | None
    last_ms: int | None
    idle: bool


def indicators(context: Context) -> Computed:
    """Put the newest prices on the grid and publish their indicators."""
    workspace, settings = context.workspace, context.settings
    prices = snapshots.required(
        workspace.prices, snapshot=context.snapshot, hint="run `bitstorm ingest` first"
    )
    recipe: dict[str, Any] = {
        "prices": prices.id,
        "frequency": settings.grid.frequency,
        "max_gap": settings.grid.max_gap,
        "windows": list(settings.indicators.windows),
    }
    parent = snapshots.current(workspace.indicators)
    if parent is not None and parent.manifest.details == recipe:
        return _computed(parent, idle=True)
    snapshots.check_content(prices)
    _check_span(prices, duration_ms(settings.grid.frequency), settings.grid.frequency)
    table = indicator_table(settings.indicators.windows)
    with context.spark("indicators") as spark:
        frame = (
            petastorm_io.read_spark(spark, prices, PRICES)
            .select("timestamp", "price")
            .transform(
                from_prices,
                step_ms=duration_ms(settings.grid.frequency),
                max_gap=settings.grid.max_gap,
                windows=settings.indicators.windows,
            )
        )

        def write(draft: Draft) -> Change:
            petastorm_io.write_dataset(frame, draft.folder, table)
            before = set() if parent is None else {f.month for f in parent.manifest.files}
            # Every month is new: another window or gap may even take some away.
            return Change(frozenset(before), may_lose_keys=True, details=recipe)

        snapshot = snapshots.publish(
            workspace.indicators,
            table=table,
            schema=petastorm_io.unischema(table),
            parent=parent,
            operation="indicators",
            write=write,
        )
    return _computed(snapshot, idle=False)


def _check_span(prices: snapshots.Snapshot, step_ms: int, frequency: str) -> None:
    first, last = prices.manifest.first_ms, prices.manifest.last_ms
    if first is None or last is None or last // step_ms < -(-first // step_ms):
        raise DataError(
            f"the {prices.manifest.rows} prices do not yet fill one step of {frequency}, so there "
            "is no point to compute on: collect more, or set a finer grid.frequency"
        )


def _computed(snapshot: snapshots.Snapshot, *, idle: bool) -> Computed:
    manifest = snapshot.manifest
    return Computed(
        snapshot=snapshot.id,
        prices=manifest.details["prices"],
        rows=manifest.rows,
        first_ms=manifest.first_ms,
        last_ms=manifest.last_ms,
        idle=idle,
    )
