"""Any sampling to a regular grid on which nothing looks ahead.

The point labelled t holds the last observation of (t - step, t]. Buckets without one carry the
value forward and are marked `imputed`; a hole of more than `max_gap` buckets cuts the series:
no points inside it, and a new `segment` after it. The newest bucket is left out until it is
complete, that is until there is an observation at its label or after it: its value could still
change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def to_grid(prices: DataFrame, *, step_ms: int, max_gap: int) -> DataFrame:
    """Columns `timestamp` (label, ms UTC), `price` (float), `imputed`, `segment`, `position`.

    `segment` counts the cuts before a point; `position` counts the points of its segment from 0.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    label = (F.ceil(F.col("timestamp") / F.lit(step_ms)) * step_ms).cast("bigint")
    filled = prices.groupBy(label.alias("label")).agg(
        F.max_by("price", "timestamp").alias("price"), F.max("timestamp").alias("newest")
    )
    # One series is one ordered run; a constant key says so where an empty one would warn.
    series = Window.partitionBy(F.lit(0)).orderBy("label")
    to_next = (F.lead("label").over(series) - F.col("label")) / step_ms
    bridged = F.col("to_next").isNotNull() & (F.col("to_next") - 1 <= max_gap)
    last = F.when(bridged, F.col("label") + (F.col("to_next") - 1) * step_ms).otherwise(
        F.col("label")
    )
    cut = F.coalesce((F.lag("to_next").over(series) - 1 > max_gap).cast("int"), F.lit(0))
    segments = (
        filled.withColumn("following", F.lead("label").over(series))
        .where(F.col("following").isNotNull() | (F.col("newest") == F.col("label")))
        .withColumn("to_next", to_next.cast("bigint"))
        .withColumn("cut", cut)
        .withColumn("segment", F.sum("cut").over(series.rowsBetween(Window.unboundedPreceding, 0)))
        .withColumn("start", F.min("label").over(Window.partitionBy("segment")))
        .withColumn(
            "timestamp", F.explode(F.sequence("label", last, F.lit(step_ms).cast("bigint")))
        )
    )
    return segments.select(
        "timestamp",
        "price",
        (F.col("timestamp") != F.col("label")).alias("imputed"),
        "segment",
        ((F.col("timestamp") - F.col("start")) / step_ms).cast("bigint").alias("position"),
    )


def with_segment(points: DataFrame, *, step_ms: int) -> DataFrame:
    """Add `segment` and `position` to points of a grid that was stored without them."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    series = Window.partitionBy(F.lit(0)).orderBy("timestamp")
    behind = F.col("timestamp") - F.lag("timestamp").over(series)
    return (
        points.withColumn("cut", F.coalesce((behind != step_ms).cast("int"), F.lit(0)))
        .withColumn("segment", F.sum("cut").over(series.rowsBetween(Window.unboundedPreceding, 0)))
        .withColumn("start", F.min("timestamp").over(Window.partitionBy("segment")))
        .withColumn("position", ((F.col("timestamp") - F.col("start")) / step_ms).cast("bigint"))
        .drop("cut", "start")
    )


def thinned(points: DataFrame, *, step_ms: int, every: int, last_ms: int) -> DataFrame:
    """Every `every`-th point of the grid counted back from `last_ms`, in time order."""
    from pyspark.sql import functions as F

    back = ((F.lit(last_ms) - F.col("timestamp")) / step_ms).cast("bigint")
    return points.where(back % every == 0).orderBy("timestamp")
