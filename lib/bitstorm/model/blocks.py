"""Points in blocks → one row a block, in Spark: dense arrays of one length, without a UDF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitstorm.model.framing import Frame

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def with_target(seen: DataFrame, frame: Frame) -> DataFrame:
    """Append `target_timestamp`, `target_price` and `target` (double, unscaled).

    `seen` has `block`, `index`, `timestamp`, `price` and `imputed`: each point in every block that
    sees it, `horizon` of them after a block's own. `log_return` is log(p[t+h] / p[t]), `price` is
    p[t+h]. Null where the series is cut before, or the price there is imputed.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    ahead = Window.partitionBy("block").orderBy("index")
    then = F.lead(F.struct("index", "timestamp", "price", "imputed"), frame.horizon).over(ahead)
    price = F.col("price").cast("double")
    # So many rows later and so many indexes later: without a hole between.
    follows = F.col("then.index") == F.col("index") + frame.horizon
    observed = F.when(~F.col("then.imputed"), F.col("then.price").cast("double"))
    value = (
        F.log(F.col("target_price") / price)
        if frame.target == "log_return"
        else F.col("target_price")
    )
    return (
        seen.withColumn("then", then)
        .withColumns(
            {
                "target_timestamp": F.when(follows, F.col("then.timestamp")),
                "target_price": F.when(follows, observed),
            }
        )
        .withColumn("target", value)
        .drop("then")
    )


def to_rows(seen: DataFrame, frame: Frame, *, files: int) -> DataFrame:
    """One row a block: `block`, `price` as array<float> and the frame's columns as array<double>,
    each of `frame.length`; NaN where there is no point or no value, a price negative where it is
    imputed.

    `seen` has `block`, `index`, `price`, `imputed` and the columns, each point in every block that
    sees it. In `files` partitions, blocks spread over them by hash: each file is a sample of the
    whole series. One shuffle; the same points always come out in the same order.
    """
    from pyspark.sql import functions as F

    place = F.col("index") - F.col("block") * frame.size + frame.before
    price = F.col("price").cast("float")
    missing = F.lit(float("nan"))
    point = F.struct(
        place.cast("int").alias("place"),
        F.when(F.col("imputed"), -price).otherwise(price).alias("price"),
        *[F.coalesce(F.col(name).cast("double"), missing).alias(name) for name in frame.columns],
    )
    nothing = F.struct(
        F.lit(-1).alias("place"),
        missing.cast("float").alias("price"),
        *[missing.alias(name) for name in frame.columns],
    )
    points = F.col("points")
    return (
        seen.select("block", point.alias("point"))
        .repartition(files, "block")
        .groupBy("block")
        .agg(F.sort_array(F.collect_list("point")).alias("points"))
        .withColumn(
            "points",
            # Hardly a block has a hole, and none costs less than one.
            F.when(F.size(points) == frame.length, points).otherwise(
                _filled(points, nothing, frame.length)
            ),
        )
        .select("block", *[points[name].alias(name) for name in ("price", *frame.columns)])
        .sortWithinPartitions("block")
    )


def _filled(points: Column, nothing: Column, length: int) -> Column:
    """The array with `nothing` at every place that has no point."""
    from pyspark.sql import functions as F

    def after_a_hole(point: Column, number: Column) -> Column:
        before = F.coalesce(F.get(points, number - 1)["place"], F.lit(-1))
        return F.concat(F.array_repeat(nothing, point["place"] - before - 1), F.array(point))

    rest = F.lit(length - 1) - F.element_at(points, -1)["place"]
    return F.concat(F.flatten(F.transform(points, after_a_hole)), F.array_repeat(nothing, rest))
