"""Good rows and the stored ones of their months → the next snapshot of `prices`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bitstorm.pipelines.context import Context
from bitstorm.schema import LINEAGE, PRICES
from bitstorm.store import petastorm_io, snapshots
from bitstorm.store.snapshots import Change, Draft, Snapshot
from bitstorm.transform.merge import LINEAGE_COLUMNS, with_place

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def publish_merged(
    context: Context,
    good: DataFrame,
    *,
    operation: str,
    parent: Snapshot | None,
    known: Mapping[str, dict[str, Any]],
    months: frozenset[str],
    tallies: Mapping[str, dict[str, Any]],
) -> tuple[Snapshot, dict[str, dict[str, Any]]]:
    """Merge good rows (prices with lineage) into the parent's months and publish.

    `tallies` are by their key in the ledger, each with the `batch` of its rows, `name`, `read` and
    `refused`; they come back with `accepted` and `duplicate`, counted, not derived.
    """
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    workspace, spark = context.workspace, good.sparkSession
    fresh = good.withColumn("fresh", F.lit(True))
    if parent is not None and months:
        stored = stored_rows(spark, parent, set(months)).withColumn("fresh", F.lit(False))
        fresh = fresh.unionByName(stored)
    placed = with_place(fresh).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        counts = {
            row["batch"]: (row["won"], row["lost"])
            for row in placed.where("fresh")
            .groupBy("batch")
            .agg(
                F.count_if(F.col("place") == 1).alias("won"),
                F.count_if(F.col("place") > 1).alias("lost"),
            )
            .collect()
        }
        complete: dict[str, dict[str, Any]] = {}
        for key, tally in tallies.items():
            won, lost = counts.get(tally["batch"], (0, 0))
            told = {name: value for name, value in tally.items() if name != "batch"}
            complete[key] = {**told, "accepted": won, "duplicate": lost}
        winners = placed.where(F.col("place") == 1)

        def write(draft: Draft) -> Change:
            if months:
                petastorm_io.write_dataset(winners, draft.folder, PRICES, arranged=True)
                petastorm_io.write_partitioned(winners, draft.lineage, LINEAGE, arranged=True)
            return Change(
                months,
                with_lineage=True,
                batches=complete,
                ledger={**known, **complete},
            )

        snapshot = snapshots.publish(
            workspace.prices,
            table=PRICES,
            schema=petastorm_io.BitcoinSchema,
            parent=parent,
            operation=operation,
            write=write,
        )
    finally:
        placed.unpersist()
    return snapshot, complete


def stored_rows(spark: SparkSession, parent: Snapshot, months: set[str]) -> DataFrame:
    """The parent's rows of these months with their lineage. Raises SnapshotDamaged before one that
    is not what was written could be merged into anything."""
    snapshots.check_content(parent, months=months)
    prices = petastorm_io.read_spark(spark, parent, PRICES, months=months)
    lineage = petastorm_io.read_lineage(spark, parent, months=months)
    return prices.join(lineage.select("timestamp", *LINEAGE_COLUMNS), "timestamp")
