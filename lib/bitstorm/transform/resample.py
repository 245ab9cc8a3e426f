"""Any sampling to a regular grid on which nothing looks ahead.

The point labelled t holds the last observation of (t - step, t]. Buckets without one carry the
value forward and are marked `imputed`; a hole of more than `max_gap` buckets cuts the series: no
points inside it, and everything restarts after it. The newest bucket is left out until it is
complete, that is until there is an observation at its label or after it: its value could still
change. Labels are whole multiples of the step since 1970 UTC, where there is no summer time.

Whether a hole is filled or a cut is told by the observation after it, which looks back no further
than `max_gap` buckets: so blocks of the grid (see `blocks`) are filled independently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitstorm.transform.bars import ohlc_of
from bitstorm.transform.blocks import SIZE, Blocks, in_blocks, series

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

OHLC = ("open", "high", "low", "count")


def to_grid(
    prices: DataFrame, *, step_ms: int, max_gap: int, ohlc: bool = False, size: int = SIZE
) -> DataFrame:
    """Columns `timestamp` (label, ms UTC), `price` (the close, as float32) and `imputed`.

    `prices` has `timestamp` (int64 ms UTC, distinct) and `price`. With `ohlc` also `open`, `high`,
    `low` (as the price) and `count` (int64) of the bucket's observations; of an imputed point the
    first three are the carried price and the count is 0. `size` is that of a block.
    """
    points = points_in_blocks(
        prices, Blocks(size), step_ms=step_ms, max_gap=max_gap, extra=OHLC if ohlc else ()
    )
    extra = OHLC if ohlc else ()
    return points.select("timestamp", "price", "imputed", *extra)


def bucket(step_ms: int) -> Column:
    """The index of the point that an observation at `timestamp` belongs to: its label over the
    step."""
    from pyspark.sql import functions as F

    return F.ceil(F.col("timestamp") / F.lit(step_ms))


def points_in_blocks(
    prices: DataFrame,
    blocks: Blocks,
    *,
    step_ms: int,
    max_gap: int,
    extra: tuple[str, ...] = (),
) -> DataFrame:
    """The grid's points, each in every block that sees it: `block`, `index` (the label over the
    step), `run` (cuts seen in the block up to the point), `start` (the index of the last of them,
    null where there is none), `timestamp`, `price`, `imputed` and the `extra` of OHLC.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    inside = ohlc_of("price")
    observed = prices.groupBy(F.ceil(F.col("timestamp") / F.lit(step_ms)).alias("index")).agg(
        inside["close"].alias("price"),
        *[inside[name].alias(name) for name in extra],
    )
    reach = max_gap + 1
    wide = Blocks(blocks.size, before=blocks.before + reach, after=blocks.after + reach)
    running = series().rowsBetween(Window.unboundedPreceding, Window.currentRow)
    rows = in_blocks(observed, wide).withColumn(
        "last", F.lag(F.struct("index", "price")).over(series())
    )
    unseen = F.col("last").isNull()
    # The first row that a block sees has nothing before it for `reach` buckets, if it comes that
    # late: a cut. If it comes sooner, nobody here knows, and its points lie before all that count.
    cut = F.when(unseen, F.col("index") >= blocks.begin).otherwise(
        F.col("index") - F.col("last.index") > reach
    )
    rows = rows.withColumn("cut", cut)
    rows = rows.select(
        "*",
        F.count_if("cut").over(running).alias("run"),
        F.max(F.when(F.col("cut"), F.col("index"))).over(running).alias("start"),
        F.when(F.col("cut") | unseen, F.col("index"))
        .otherwise(F.col("last.index") + 1)
        .alias("from"),
    )
    point = F.explode(
        F.when(F.col("from") == F.col("index"), F.array("index")).otherwise(
            F.sequence("from", "index")
        )
    )
    rows = rows.select("*", point.alias("point"))
    imputed = F.col("point") != F.col("index")
    carried = {
        name: F.when(imputed, F.lit(0) if name == "count" else F.col("last.price"))
        .otherwise(F.col(name))
        .alias(name)
        for name in ("price", *extra)
    }
    points = rows.select(
        "block",
        F.col("point").alias("index"),
        "run",
        "start",
        (F.col("point") * step_ms).alias("timestamp"),
        carried.pop("price"),
        imputed.alias("imputed"),
        *carried.values(),
    )
    begin, end = blocks.begin, (F.col("block") + 1) * blocks.size + blocks.after
    seen = (F.col("index") >= begin) & (F.col("index") < end)
    newest = prices.select(F.max("timestamp")).scalar()
    return points.where(seen & (F.col("timestamp") <= newest))


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
