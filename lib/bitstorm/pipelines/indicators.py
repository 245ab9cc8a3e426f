"""`indicators`: `prices` → the `indicators` data set.

Built upon the newest snapshot where that is of the same settings: months before any price that
has changed are its own files, linked; the rest is computed from there on (see `transform.seed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.errors import DataError
from bitstorm.instants import duration_ms, iso
from bitstorm.pipelines.context import Context
from bitstorm.schema import PRICES, indicator_table
from bitstorm.session import changed
from bitstorm.store import manifest as manifests
from bitstorm.store import petastorm_io, snapshots
from bitstorm.store.snapshots import Change, Draft, Snapshot, part_files
from bitstorm.transform import seed
from bitstorm.transform.blocks import SIZE
from bitstorm.transform.indicators import FORMULAS, Tail, from_prices
from bitstorm.transform.recurrence import TILE

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame, SparkSession

    from bitstorm.config import Settings
    from bitstorm.workspace import Workspace


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
    `mended` that lie before `until_ms` are written again, and the `tail` is computed in blocks of
    `size`. Without a tail the series ends there; in a plan that keeps nothing all is computed, for
    instance where files that it would have built upon are `damaged`."""

    kept: frozenset[str] = frozenset()
    mended: frozenset[str] = frozenset()
    until_ms: int = 0
    tail: Tail | None = None
    size: int = SIZE
    damaged: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return not self.kept and not self.mended and self.tail is None


def indicators(context: Context) -> Computed:
    """Put the newest prices on the grid and publish their indicators.

    Raises SnapshotMissing, SnapshotDamaged, and DataError where the prices fill no step.
    """
    workspace, settings = context.workspace, context.settings
    prices = snapshots.required(
        workspace.prices, snapshot=context.snapshot, hint="run `bitstorm ingest` first"
    )
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

    if plan.whole or plan.mended or plan.tail is not None:
        with context.spark("indicators") as spark:
            # Planned anew after each stage, a short tail takes longer to plan than to compute.
            adaptive = {} if plan.size == SIZE else {"spark.sql.adaptive.enabled": "false"}
            with changed(spark, adaptive):
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
    as_it_is = _Plan(frozenset(file.month for file in stored))
    month = manifests.first_change(made_from.manifest, prices.manifest)
    if month is None:
        return as_it_is
    same_ms = _last_same(made_from, prices, month)
    if same_ms is None:
        return _Plan()
    step_ms, windows = duration_ms(recipe["frequency"]), recipe["windows"]
    # The last price that is the same may lie in an unfinished bucket, or before a hole that what
    # follows fills or makes a cut: behind it, nothing is sure.
    first = same_ms // step_ms + 1
    until_ms = first * step_ms
    month = iso(until_ms)[:7]
    plan = _Plan(
        frozenset(file.month for file in stored if file.month < month),
        frozenset(f.month for f in stored if f.month == month and f.first_ms < until_ms),
        until_ms,
    )
    last = (prices.manifest.last_ms or 0) // step_ms
    if last < first:
        if damaged := snapshots.damaged_files(parent, months=plan.mended):
            return _Plan(damaged=tuple(damaged))
        return plan if any(file.last_ms >= until_ms for file in stored) else as_it_is
    # Blocks that fit what is to be computed: what a block does for others costs as much.
    size = TILE if last - first < SIZE else SIZE
    at = seed.place_before(first, size=size)
    from_ms, to_ms = (at + 1 - seed.points_needed(windows)) * step_ms, at * step_ms
    begun = {f.month for f in stored if f.last_ms >= from_ms and f.first_ms <= to_ms}
    if damaged := snapshots.damaged_files(parent, months=plan.mended | begun):
        return _Plan(damaged=tuple(damaged))
    tail = seed.tail_of(
        _rows(parent.of_months(begun), seed.stored_columns(windows)),
        first=first,
        step_ms=step_ms,
        windows=windows,
        size=size,
    )
    return _Plan() if tail is None else replace(plan, tail=tail, size=size)


def _last_same(before: Snapshot, after: Snapshot, month: str) -> int | None:
    """Time of the last price that both have, with all prices before it; `month` is the first in
    which they differ. None where there is none."""
    same = max((f.last_ms for f in after.manifest.files if f.month < month), default=None)
    paths = [snapshot.of_months({month}) for snapshot in (before, after)]
    if not all(paths) or snapshots.damaged_files(before, months={month}):
        return same
    snapshots.check_content(after, months={month})
    columns = ["timestamp", "price"]
    old, new = (_rows(found, columns) for found in paths)
    rows = min(len(old), len(new))
    differs = (old[:rows].to_numpy() != new[:rows].to_numpy()).any(axis=1)
    equal = int(differs.argmax()) if differs.any() else rows
    return int(new["timestamp"].iloc[equal - 1]) if equal else same


def _rows(files: Sequence[Path], columns: Sequence[str]) -> pd.DataFrame:
    """Of the few months that a change is looked for and a tail started in, in the order of time."""
    import pandas as pd

    if not files:
        return pd.DataFrame({name: pd.Series(dtype="float64") for name in columns})
    rows = pd.concat(list(petastorm_io.read_batches(files, columns=columns)))
    return rows.sort_values("timestamp", ignore_index=True)


def _points(
    spark: SparkSession,
    prices: Snapshot,
    parent: Snapshot | None,
    settings: Settings,
    plan: _Plan,
) -> DataFrame:
    """The points of all months that are not linked, from files that are what was written."""
    grid, windows, tail = settings.grid, settings.indicators.windows, plan.tail
    step_ms = duration_ms(grid.frequency)
    kept = None
    if parent is not None and plan.mended:
        table = indicator_table(windows)
        snapshots.check_content(parent, months=plan.mended)
        kept = petastorm_io.read_spark(spark, parent, table, months=set(plan.mended))
        kept = kept.where(kept["timestamp"] < plan.until_ms)
        if tail is None:
            return kept
    months, from_ms = {file.month for file in prices.manifest.files}, None
    if tail is not None:
        from_ms = seed.prices_from(
            tail.first, step_ms=step_ms, max_gap=grid.max_gap, windows=windows, size=plan.size
        )
        months = {month for month in months if month >= iso(max(from_ms, 0))[:7]}
    snapshots.check_content(prices, months=months)
    rows = petastorm_io.read_spark(spark, prices, PRICES, months=months)
    if from_ms is not None:
        rows = rows.where(rows["timestamp"] >= from_ms)
    computed = rows.select("timestamp", "price").transform(
        from_prices,
        step_ms=step_ms,
        max_gap=grid.max_gap,
        windows=windows,
        size=plan.size,
        tail=tail,
    )
    return computed if kept is None else kept.unionByName(computed)


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
