"""`indicators`: `prices` → the `indicators` data set.

Built upon the newest snapshot where that is of the same settings: months before any price that
has changed are its own files, linked; the rest is computed from there on (see `transform.seed`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitstorm.errors import DataError
from bitstorm.instants import duration_ms, iso, parse_instant
from bitstorm.pipelines.context import Context
from bitstorm.schema import PRICES, indicator_table
from bitstorm.store import manifest as manifests
from bitstorm.store import petastorm_io, snapshots
from bitstorm.store.snapshots import Change, Draft, Snapshot, part_files
from bitstorm.transform import seed
from bitstorm.transform.indicators import FORMULAS, Tail, from_prices

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
    """The parent's months that stay as they are; and the `tail` to compute, None for the whole
    series. Where `kept` is all that there is, there is `nothing` to compute."""

    kept: frozenset[str] = frozenset()
    tail: Tail | None = None
    nothing: bool = False


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
    table = indicator_table(settings.indicators.windows)
    before = set() if parent is None else {file.month for file in parent.manifest.files}

    def published(spark: SparkSession | None) -> Snapshot:
        def write(draft: Draft) -> Change:
            if spark is not None:
                points = _points(spark, prices, settings, plan.tail)
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

    if plan.nothing:
        snapshot = published(None)
    else:
        with context.spark("indicators") as spark:
            snapshot = published(spark)
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
    made_from = snapshots.manifest_of(workspace.prices, parent.manifest.details["prices"])
    if made_from is None:
        return _Plan()
    months = frozenset(file.month for file in parent.manifest.files)
    changed = manifests.first_change(made_from, prices.manifest)
    if changed is None:
        return _Plan(months, nothing=True)
    same = [file.last_ms for file in prices.manifest.files if file.month < changed]
    if not same:
        return _Plan()
    step_ms = duration_ms(recipe["frequency"])
    # The last price that is the same may lie in an unfinished bucket, or before a hole that what
    # follows fills or makes a cut: from its point on, nothing is sure.
    month = iso(-(-max(same) // step_ms) * step_ms)[:7]
    kept = frozenset(m for m in months if m < month)
    if not kept:
        return _Plan()
    first = -(-parse_instant(f"{month}-01T00:00:00Z") // step_ms)
    if (prices.manifest.last_ms or 0) // step_ms < first:
        return _Plan(kept, nothing=True)
    windows = recipe["windows"]
    at = seed.place_before(first)
    tail = seed.tail_of(
        _stored(parent, windows, (at + 1 - seed.points_needed(windows)) * step_ms, at * step_ms),
        first=first,
        step_ms=step_ms,
        windows=windows,
    )
    return _Plan() if tail is None else _Plan(kept, tail)


def _stored(parent: Snapshot, windows: Sequence[int], first_ms: int, last_ms: int) -> pd.DataFrame:
    """The parent's rows of the months of these times, as much of them as a tail starts from."""
    import pandas as pd

    files = [f for f in parent.manifest.files if f.last_ms >= first_ms and f.first_ms <= last_ms]
    columns = seed.stored_columns(windows)
    if not files:
        return pd.DataFrame({name: [] for name in columns}).astype({"timestamp": "int64"})
    snapshots.check_content(parent, months={file.month for file in files})
    paths = [parent.folder / file.path for file in files]
    found = petastorm_io.read_batches(paths, columns=columns)
    return pd.concat(list(found), ignore_index=True)


def _points(
    spark: SparkSession, prices: Snapshot, settings: Settings, tail: Tail | None
) -> DataFrame:
    """The indicators of the tail, or of the whole series, from prices that are what was written."""
    grid, windows = settings.grid, settings.indicators.windows
    step_ms = duration_ms(grid.frequency)
    months = {file.month for file in prices.manifest.files}
    from_ms = None
    if tail is not None:
        from_ms = seed.prices_from(
            tail.first, step_ms=step_ms, max_gap=grid.max_gap, windows=windows
        )
        months = {month for month in months if month >= iso(max(from_ms, 0))[:7]}
    snapshots.check_content(prices, months=months)
    rows = petastorm_io.read_spark(spark, prices, PRICES, months=months)
    if from_ms is not None:
        rows = rows.where(rows["timestamp"] >= from_ms)
    return rows.select("timestamp", "price").transform(
        from_prices, step_ms=step_ms, max_gap=grid.max_gap, windows=windows, tail=tail
    )


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
