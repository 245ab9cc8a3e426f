"""Updates the stored indicators when prices change.

Months before the first changed price are linked; the rest is computed from prices alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from bitstorm.core.schema import PRICES, indicator_table
from bitstorm.core.settings import Settings
from bitstorm.core.time import duration_ms, iso
from bitstorm.core.workspace import Workspace
from bitstorm.indicators.compute import from_prices, observed_after_ms, span_of
from bitstorm.indicators.kernel import Grid, highest_of_open_run
from bitstorm.store import manifest as manifests
from bitstorm.store import petastorm_io, snapshots
from bitstorm.store.snapshots import Snapshot


@dataclass(frozen=True)
class Plan:
    """How to make a snapshot: link the parent's `linked` months, write the points of its
    `rewritten` months before the label `until_ms` again, and where `computed`, compute those from
    `until_ms` on. The default computes all; `damaged` names the parent's files that prevent less.
    """

    linked: frozenset[str] = frozenset()
    rewritten: frozenset[str] = frozenset()
    until_ms: int = 0
    computed: bool = True
    damaged: tuple[str, ...] = ()


def plan_update(
    workspace: Workspace, parent: Snapshot | None, prices: Snapshot, recipe: Mapping[str, Any]
) -> Plan:
    """Plan what to keep of the parent, by the months of prices that have changed since."""
    if parent is None or {**parent.manifest.details, "prices": prices.id} != recipe:
        return Plan()
    made_from = snapshots.known(workspace.prices, parent.manifest.details["prices"])
    if made_from is None:
        return Plan()
    stored = parent.manifest.files
    unchanged = Plan(frozenset(file.month for file in stored), computed=False)
    month = manifests.first_change(made_from.manifest, prices.manifest)
    if month is None:
        return unchanged
    equal_ms = _last_equal_ms(made_from, prices, month)
    if equal_ms is None:
        return Plan()
    step_ms = duration_ms(recipe["frequency"])
    # The last equal price can lie in an unfinished bucket, or before a hole that later prices fill
    # or turn into a cut. So every point behind it may change.
    until_ms = (equal_ms // step_ms + 1) * step_ms
    month = iso(until_ms)[:7]
    rewritten = frozenset(f.month for f in stored if f.month == month and f.first_ms < until_ms)
    if damaged := snapshots.damaged_files(parent, months=rewritten):
        return Plan(damaged=tuple(damaged))
    computed = (prices.manifest.last_ms or 0) >= until_ms
    if not computed and all(file.last_ms < until_ms for file in stored):
        return unchanged
    linked = frozenset(file.month for file in stored if file.month < month)
    return Plan(linked, rewritten, until_ms, computed)


def _last_equal_ms(before: Snapshot, after: Snapshot, month: str) -> int | None:
    """Time (ms UTC) of the last price up to which both snapshots are equal, None without one;
    `month` is the first in which they differ."""
    earlier = max((f.last_ms for f in after.manifest.files if f.month < month), default=None)
    paths = [snapshot.of_months({month}) for snapshot in (before, after)]
    if not all(paths) or snapshots.damaged_files(before, months={month}):
        return earlier
    snapshots.check_content(after, months={month})
    old, new = map(_rows, paths)
    rows = min(len(old), len(new))
    differs = (old[:rows].to_numpy() != new[:rows].to_numpy()).any(axis=1)
    equal = int(differs.argmax()) if differs.any() else rows
    return int(new["timestamp"].iloc[equal - 1]) if equal else earlier


def _rows(files: Sequence[Path]) -> pd.DataFrame:
    """Time and price of a month's observations, in the order of time."""
    rows = pd.concat(list(petastorm_io.read_batches(files, columns=["timestamp", "price"])))
    return rows.sort_values("timestamp", ignore_index=True)


def computed_points(
    spark: SparkSession, prices: Snapshot, parent: Snapshot | None, settings: Settings, plan: Plan
) -> DataFrame:
    """The points of all months that are not linked.

    Raises SnapshotDamaged where a file has changed since it was written.
    """
    windows = settings.indicators.windows
    grid = Grid(duration_ms(settings.grid.frequency), settings.grid.max_gap)
    stored = None
    if parent is not None and plan.rewritten:
        snapshots.check_content(parent, months=plan.rewritten)
        table = indicator_table(windows)
        stored = petastorm_io.read_spark(spark, parent, table, months=set(plan.rewritten))
        stored = stored.where(stored["timestamp"] < plan.until_ms)
        if not plan.computed:
            return stored
    first_ms, last_ms = prices.manifest.first_ms, prices.manifest.last_ms
    assert first_ms is not None and last_ms is not None  # `indicators` has checked it
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
    return computed if stored is None else stored.unionByName(computed)


def _newest_first(prices: Snapshot) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Time and price of the observations, month by month back in time; each month is checked."""
    for month in sorted(prices.manifest.months, reverse=True):
        snapshots.check_content(prices, months={month})
        rows = _rows(prices.of_months({month}))
        yield rows["timestamp"].to_numpy(), rows["price"].to_numpy()
