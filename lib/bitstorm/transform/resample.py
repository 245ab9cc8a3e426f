"""The points of a grid that Spark looks at again: where it is cut, and a thinner one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitstorm.transform.blocks import SIZE, Blocks, in_blocks, series

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def with_segment(points: DataFrame, *, step_ms: int, size: int = SIZE) -> DataFrame:
    """Add `segment` (the cuts before the point) and `position` (the points of its segment before
    it), both int64, to the points of a grid; `timestamp` is all that is needed.

    What a block cannot see of its first segment comes from a scan over one row a block.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    blocks = Blocks(size, before=1)
    rows = points.withColumn("index", F.expr(f"timestamp div {step_ms}"))
    running = series().rowsBetween(Window.unboundedPreceding, Window.currentRow)
    seen = in_blocks(rows, blocks).withColumn("last", F.lag("index").over(series()))
    seen = seen.withColumn("cut", blocks.cut(F.col("last")) & blocks.owned()).select(
        "*",
        F.count_if("cut").over(running).alias("run"),
        F.max(F.when(F.col("cut"), F.col("index"))).over(running).alias("start"),
    )
    own = seen.where(blocks.owned())
    order = Window.partitionBy(F.lit(0)).orderBy("block")
    earlier = order.rowsBetween(Window.unboundedPreceding, -1)
    summaries = (
        own.groupBy("block")
        .agg(F.max("run").alias("runs"), F.max("start").alias("start"))
        .select(
            "block",
            F.coalesce(F.sum("runs").over(earlier), F.lit(0)).alias("runs_before"),
            F.max("start").over(earlier).alias("started_before"),
        )
    )
    start = F.coalesce("start", "started_before")
    return own.join(F.broadcast(summaries), "block").select(
        *points.columns,
        # The first cut is the beginning of the series.
        (F.col("run") + F.col("runs_before") - 1).alias("segment"),
        (F.col("index") - start).alias("position"),
    )


def thinned(points: DataFrame, *, step_ms: int, every: int, last_ms: int) -> DataFrame:
    """Every `every`-th point of the grid counted back from `last_ms`, in time order."""
    from pyspark.sql import functions as F

    back = ((F.lit(last_ms) - F.col("timestamp")) / step_ms).cast("bigint")
    return points.where(back % every == 0).orderBy("timestamp")
