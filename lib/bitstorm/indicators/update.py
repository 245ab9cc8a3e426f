"""How much of the stored indicators stays when the prices change, and the points that don't.

Months before the first changed price are linked; the rest is computed from the prices, nothing from
stored indicators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.core.schema import PRICES, indicator_table
from bitstorm.core.time import duration_ms, iso
from bitstorm.indicators.compute import from_prices, observed_after_ms, span_of
from bitstorm.indicators.kernel import Grid, highest_of_open_run
from bitstorm.store import manifest as manifests
from bitstorm.store import petastorm_io, snapshots
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from bitstorm.core.config import Settings
    from bitstorm.core.workspace import Workspace


@dataclass(frozen=True)
class Plan:
    """How a snapshot is made: the parent's months of `kept` are linked, its points of the months
    `mended` before the label `until_ms` are written again, and those from it on are `computed`.
    A plan that keeps nothing computes all, for instance where files to build upon are `damaged`."""

    kept: frozenset[str] = frozenset()
    mended: frozenset[str] = frozenset()
    until_ms: int = 0
    computed: bool = True
    damaged: tuple[str, ...] = ()


def plan_update(
    workspace: Workspace, parent: Snapshot | None, prices: Snapshot, recipe: Mapping[str, Any]
) -> Plan:
    """How much of the parent stays, by the months of prices that have changed since."""
    if parent is None or {**parent.manifest.details, "prices": prices.id} != recipe:
        return Plan()
    made_from = snapshots.known(workspace.prices, parent.manifest.details["prices"])
    if made_from is None:
        return Plan()
    stored = parent.manifest.files
    as_it_is = Plan(frozenset(file.month for file in stored), computed=False)
    month = manifests.first_change(made_from.manifest, prices.manifest)
    if month is None:
        return as_it_is
    same_ms = _last_same(made_from, prices, month)
    if same_ms is None:
        return Plan()
    step_ms = duration_ms(recipe["frequency"])
    # The last price that is the same may lie in an unfinished bucket, or before a hole that what
    # follows fills or makes a cut: behind it, nothing is sure.
    until_ms = (same_ms // step_ms + 1) * step_ms
    month = iso(until_ms)[:7]
    mended = frozenset(f.month for f in stored if f.month == month and f.first_ms < until_ms)
    if damaged := snapshots.damaged_files(parent, months=mended):
        return Plan(damaged=tuple(damaged))
    computed = (prices.manifest.last_ms or 0) >= until_ms
    if not computed and all(file.last_ms < until_ms for file in stored):
        return as_it_is
    kept = frozenset(file.month for file in stored if file.month < month)
    return Plan(kept, mended, until_ms, computed)


def _last_same(before: Snapshot, after: Snapshot, month: str) -> int | None:
    """Time of the last price that both have, with all prices before it; `month` is the first in
    which they differ. None where there is none."""
    same = max((f.last_ms for f in after.manifest.files if f.month < month), default=None)
    paths = [snapshot.of_months({month}) for snapshot in (before, after)]
    if not all(paths) or snapshots.damaged_files(before, months={month}):
        return same
    snapshots.check_content(after, months={month})
    old, new = map(_rows, paths)
    rows = min(len(old), len(new))
    differs = (old[:rows].to_numpy() != new[:rows].to_numpy()).any(axis=1)
    equal = int(differs.argmax()) if differs.any() else rows
    return int(new["timestamp"].iloc[equal - 1]) if equal else same


def _rows(files: Sequence[Path]) -> pd.DataFrame:
    """Time and price of a month's observations, in the order of time."""
    import pandas as pd

    rows = pd.concat(list(petastorm_io.read_batches(files, columns=["timestamp", "price"])))
    return rows.sort_values("timestamp", ignore_index=True)


def computed_points(
    spark: SparkSession,
    prices: Snapshot,
    parent: Snapshot | None,
    settings: Settings,
    plan: Plan,
) -> DataFrame:
    """The points of all months that are not linked, from files that are what was written."""
    windows = settings.indicators.windows
    grid = Grid(duration_ms(settings.grid.frequency), settings.grid.max_gap)
    kept = None
    if parent is not None and plan.mended:
        snapshots.check_content(parent, months=plan.mended)
        table = indicator_table(windows)
        kept = petastorm_io.read_spark(spark, parent, table, months=set(plan.mended))
        kept = kept.where(kept["timestamp"] < plan.until_ms)
        if not plan.computed:
            return kept
    first_ms, last_ms = prices.manifest.first_ms, prices.manifest.last_ms
    assert first_ms is not None and last_ms is not None  # _check_span has seen to it
    span = span_of(max(first_ms, plan.until_ms), last_ms, grid=grid)
    after_ms = observed_after_ms(span, grid=grid, windows=windows)
    months = {f.month for f in prices.manifest.files if f.last_ms > after_ms}
    snapshots.check_content(prices, months=months)
    if plan.until_ms:
        highest = highest_of_open_run(_newest_first(prices), grid=grid, before=span.first)
        span = replace(span, highest=highest)
    rows = petastorm_io.read_spark(spark, prices, PRICES, months=months)
    rows = rows.where(rows["timestamp"] > after_ms).select("timestamp", "price")
    computed = rows.transform(from_prices, grid=grid, windows=windows, span=span)
    return computed if kept is None else kept.unionByName(computed)


def _newest_first(prices: Snapshot) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Time and price of the observations, month by month back in time; each is checked first."""
    for month in sorted(prices.manifest.months, reverse=True):
        snapshots.check_content(prices, months={month})
        rows = _rows(prices.of_months({month}))
        yield rows["timestamp"].to_numpy(), rows["price"].to_numpy()
