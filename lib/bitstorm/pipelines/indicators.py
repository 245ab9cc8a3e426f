"""`indicators`: `prices` → the `indicators` data set.

Built upon the newest snapshot where that is of the same settings: months before any price that
has changed are its own files, linked; the rest is computed from the prices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.context import Context
from bitstorm.core.errors import DataError
from bitstorm.core.schema import PRICES, indicator_table
from bitstorm.core.time import duration_ms, iso
from bitstorm.indicators.compute import (
    FORMULAS,
    from_prices,
    observed_after_ms,
    span_of,
)
from bitstorm.indicators.kernel import Grid, highest_of_open_run
from bitstorm.store import manifest as manifests
from bitstorm.store import petastorm_io, snapshots
from bitstorm.store.snapshots import Change, Draft, Snapshot, part_files

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from bitstorm.core.config import Settings
    from bitstorm.core.workspace import Workspace


@dataclass(frozen=True)
class Computed:
    """`idle` when the newest indicators are already those of these prices and settings.

    `months` were computed and written, `linked` are the files of the snapshot before.
    """

    snapshot: str
    prices: str
    rows: int
    first_ms: int | None
    last_ms: int | None
    idle: bool
    months: int = 0
    linked: int = 0


@dataclass(frozen=True)
class _Plan:
    """How a snapshot is made: the parent's months of `kept` are linked, its points of the months
    `mended` before the label `until_ms` are written again, and those from it on are `computed`.
    A plan that keeps nothing computes all, for instance where files to build upon are `damaged`."""

    kept: frozenset[str] = frozenset()
    mended: frozenset[str] = frozenset()
    until_ms: int = 0
    computed: bool = True
    damaged: tuple[str, ...] = ()


def indicators(context: Context) -> Computed:
    """Put the newest prices on the grid and publish their indicators.

    Raises SnapshotMissing, SnapshotDamaged, and DataError where the prices fill no step.
    """
    workspace, settings = context.workspace, context.settings
    prices = snapshots.required(workspace.prices, snapshot=context.snapshot)
    recipe: dict[str, Any] = {
        "prices": prices.id,
        "frequency": settings.grid.frequency,
        "max_gap": settings.grid.max_gap,
        "windows": list(settings.indicators.windows),
        "formulas": FORMULAS,
    }
    parent = snapshots.current(workspace.indicators)
    if parent is not None and parent.manifest.details == recipe:
        return _computed(parent, idle=True)
    step_ms = duration_ms(settings.grid.frequency)
    _check_span(prices, step_ms, settings.grid.frequency)
    plan = _plan(workspace, parent, prices, recipe)
    if plan.damaged:
        context.console.warn(
            f"{', '.join(plan.damaged)} is not what was written (its SHA-256 differs): nothing is "
            "taken over from that snapshot, all months are computed from the prices"
        )
    table = indicator_table(settings.indicators.windows)
    before = set() if parent is None else {file.month for file in parent.manifest.files}

    def published(spark: SparkSession | None) -> Snapshot:
        def write(draft: Draft) -> Change:
            if spark is not None:
                points = _points(spark, prices, parent, settings, plan)
                petastorm_io.write_dataset(points, draft.folder, table)
            written = {file.parent.name.partition("=")[2] for file in part_files(draft.folder)}
            # Another window or gap, or a price taken back, may even take points away.
            return Change(
                frozenset((before | written) - plan.kept), may_lose_keys=True, details=recipe
            )

        return snapshots.publish(
            workspace.indicators,
            table=table,
            schema=petastorm_io.unischema(table),
            parent=parent,
            operation="indicators",
            write=write,
        )

    if plan.computed or plan.mended:
        with context.spark("indicators") as spark:
            snapshot = published(spark)
    else:
        snapshot = published(None)
    months = {file.month for file in snapshot.manifest.files}
    return _computed(
        snapshot, idle=False, months=len(months - plan.kept), linked=len(months & plan.kept)
    )


def _plan(
    workspace: Workspace, parent: Snapshot | None, prices: Snapshot, recipe: Mapping[str, Any]
) -> _Plan:
    """How much of the parent stays, by the months of prices that have changed since."""
    if parent is None or {**parent.manifest.details, "prices": prices.id} != recipe:
        return _Plan()
    made_from = snapshots.known(workspace.prices, parent.manifest.details["prices"])
    if made_from is None:
        return _Plan()
    stored = parent.manifest.files
    as_it_is = _Plan(frozenset(file.month for file in stored), computed=False)
    month = manifests.first_change(made_from.manifest, prices.manifest)
    if month is None:
        return as_it_is
    same_ms = _last_same(made_from, prices, month)
    if same_ms is None:
        return _Plan()
    step_ms = duration_ms(recipe["frequency"])
    # The last price that is the same may lie in an unfinished bucket, or before a hole that what
    # follows fills or makes a cut: behind it, nothing is sure.
    until_ms = (same_ms // step_ms + 1) * step_ms
    month = iso(until_ms)[:7]
    mended = frozenset(f.month for f in stored if f.month == month and f.first_ms < until_ms)
    if damaged := snapshots.damaged_files(parent, months=mended):
        return _Plan(damaged=tuple(damaged))
    computed = (prices.manifest.last_ms or 0) >= until_ms
    if not computed and all(file.last_ms < until_ms for file in stored):
        return as_it_is
    kept = frozenset(file.month for file in stored if file.month < month)
    return _Plan(kept, mended, until_ms, computed)


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


def _points(
    spark: SparkSession,
    prices: Snapshot,
    parent: Snapshot | None,
    settings: Settings,
    plan: _Plan,
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


def _check_span(prices: Snapshot, step_ms: int, frequency: str) -> None:
    first, last = prices.manifest.first_ms, prices.manifest.last_ms
    if first is None or last is None or last // step_ms < -(-first // step_ms):
        raise DataError(
            f"the {prices.manifest.rows} prices do not yet fill one step of {frequency}, so there "
            "is no point to compute on: collect more, or set a finer grid.frequency"
        )


def _computed(snapshot: Snapshot, *, idle: bool, months: int = 0, linked: int = 0) -> Computed:
    manifest = snapshot.manifest
    return Computed(
        snapshot=snapshot.id,
        prices=manifest.details["prices"],
        rows=manifest.rows,
        first_ms=manifest.first_ms,
        last_ms=manifest.last_ms,
        idle=idle,
        months=months,
        linked=linked,
    )
