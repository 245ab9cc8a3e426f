"""`check-lookahead`: no indicator before a cut may change with later prices."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from bitstorm.context import Context
from bitstorm.core.results import Result
from bitstorm.core.schema import PRICES
from bitstorm.core.time import duration_ms
from bitstorm.indicators import lookahead
from bitstorm.indicators.compute import from_prices, span_of
from bitstorm.indicators.kernel import Grid
from bitstorm.indicators.lookahead import Cut, End, Place
from bitstorm.store import petastorm_io, snapshots
from bitstorm.store.snapshots import Snapshot, stored_slots

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, repr=False)
class Looked(Result):
    """`changed` are the columns that changed at any cut, without the planted one. `caught` counts
    the cuts at which the planted column changed, None without one. `passed` means that no other
    column changed, and that the planted one was caught."""

    passed: bool
    prices: str
    seed: int
    rows: int
    columns: tuple[str, ...]
    cuts: tuple[Cut, ...]
    changed: tuple[str, ...]
    caught: int | None


def check_lookahead(
    context: Context, *, cuts: int = 5, seed: int | None = None, plant: bool = False
) -> Looked:
    """Compute the indicators of the snapshot once, then for each cut twice: without the prices
    after it, and with other prices after it. `seed` draws the cuts; None draws a seed, too.

    Raises SnapshotMissing, SnapshotDamaged, and DataError where there is nothing to compare.
    """
    settings = context.settings
    prices = snapshots.required(context.workspace.prices, snapshot=context.snapshot)
    snapshots.check_content(prices)
    step = duration_ms(settings.grid.frequency)
    seed = secrets.randbelow(2**31) if seed is None else seed
    grid, first_ms = Grid(step, settings.grid.max_gap), prices.manifest.first_ms or 0

    def compute(observations: DataFrame, last_ms: int) -> DataFrame:
        span = span_of(first_ms, last_ms, grid=grid)
        points = from_prices(
            observations, grid=grid, windows=settings.indicators.windows, span=span
        )
        return lookahead.with_next_price(points) if plant else points

    with context.spark("check-lookahead") as spark:
        observations = petastorm_io.read_spark(spark, prices, PRICES).select(lookahead.KEY, "price")
        places, ends = _cuts(context, observations, prices, count=cuts, seed=seed)
        rows, columns, found = lookahead.compare_cuts(
            observations,
            compute,
            places,
            ends,
            last_ms=prices.manifest.last_ms or 0,
            console=context.console,
            cache=context.workspace.cache,
        )
    changed = sorted(set().union(*(cut.changed for cut in found)) - {lookahead.PLANTED})
    caught = sum(lookahead.PLANTED in cut.changed for cut in found) if plant else None
    return Looked(
        passed=not changed and caught != 0,
        prices=prices.id,
        seed=seed,
        rows=rows,
        columns=columns,
        cuts=tuple(found),
        changed=tuple(changed),
        caught=caught,
    )


def _cuts(
    context: Context, observations: DataFrame, prices: Snapshot, *, count: int, seed: int
) -> tuple[list[tuple[int, Place]], list[End]]:
    """The times of the cuts, and the end of the input before each."""
    grid = context.settings.grid
    step = duration_ms(grid.frequency)
    with context.console.stage("cuts") as result:
        places = lookahead.draw_cuts(
            observations,
            slots=stored_slots(prices, step),
            step_ms=step,
            max_gap=grid.max_gap,
            count=count,
            random=Random(seed),
        )
        result(f"{len(places)} drawn with seed {seed}")
    return places, lookahead.ends_of(observations, places, step)
