"""`indicators`: `prices` → the `indicators` data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitstorm.context import Context
from bitstorm.core.errors import DataError
from bitstorm.core.results import Result
from bitstorm.core.schema import indicator_table
from bitstorm.core.time import duration_ms
from bitstorm.indicators.compute import FORMULAS
from bitstorm.indicators.update import computed_points, plan_update
from bitstorm.store import petastorm_io, snapshots
from bitstorm.store.manifest import schema_hash
from bitstorm.store.publish import Change, Draft, publish
from bitstorm.store.seal_tasks import on_cluster
from bitstorm.store.snapshots import Snapshot, part_files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@dataclass(frozen=True, repr=False)
class Computed(Result):
    """`idle` where the newest indicators already belong to these prices and settings.

    `months` months were computed and written; `linked` are files of the parent snapshot.
    """

    snapshot: str
    prices: str
    rows: int
    first_ms: int | None
    last_ms: int | None
    idle: bool
    months: int = 0
    linked: int = 0


def indicators(context: Context) -> Computed:
    """Put the newest prices on the grid and publish their indicators.

    Raises SnapshotMissing, SnapshotDamaged, and DataError where the prices do not fill one step.
    """
    workspace, settings = context.workspace, context.settings
    prices = snapshots.required(workspace.prices, snapshot=context.snapshot)
    table = indicator_table(settings.indicators.windows)
    recipe: dict[str, Any] = {
        "prices": prices.id,
        "frequency": settings.grid.frequency,
        "max_gap": settings.grid.max_gap,
        "windows": list(settings.indicators.windows),
        "formulas": FORMULAS,
        "schema": schema_hash(table),
    }
    parent = snapshots.current(workspace.indicators)
    if parent is not None and parent.manifest.details == recipe:
        return _computed(parent, idle=True)
    _check_span(prices, settings.grid.frequency)
    plan = plan_update(workspace, parent, prices, recipe)
    if plan.damaged:
        context.console.warn(
            f"the SHA-256 of {', '.join(plan.damaged)} differs from the manifest: no file of that "
            "snapshot is linked, all months are computed from the prices"
        )
    before = set() if parent is None else {file.month for file in parent.manifest.files}

    def publish_indicators(spark: SparkSession | None) -> Snapshot:
        def write(draft: Draft) -> Change:
            if spark is not None:
                points = computed_points(spark, prices, parent, settings, plan)
                petastorm_io.write_dataset(points, draft.folder, table)
            written = {file.parent.name.partition("=")[2] for file in part_files(draft.folder)}
            months, check = frozenset((before | written) - plan.linked), on_cluster(spark)
            # Other windows or gaps, and retracted prices, can remove points.
            return Change(months, may_lose_keys=True, details=recipe, each_month=check)

        return publish(
            workspace.indicators,
            table=table,
            schema=petastorm_io.unischema(table),
            parent=parent,
            operation="indicators",
            write=write,
        )

    if plan.computed or plan.rewritten:
        with context.spark("indicators") as spark:
            snapshot = publish_indicators(spark)
    else:
        snapshot = publish_indicators(None)
    months = {file.month for file in snapshot.manifest.files}
    return _computed(
        snapshot, idle=False, months=len(months - plan.linked), linked=len(months & plan.linked)
    )


def _check_span(prices: Snapshot, frequency: str) -> None:
    first, last, step_ms = prices.manifest.first_ms, prices.manifest.last_ms, duration_ms(frequency)
    if first is None or last is None or last // step_ms < -(-first // step_ms):
        raise DataError(
            f"found {prices.manifest.rows} prices, which do not fill one step of {frequency}; "
            "expected at least one full step: collect more, or set a finer grid.frequency"
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
