"""Observations to bars: open, high, low, close and what happened inside, a row a period.

Bars have the grid's contract (`indicators.kernel`): the bar labelled t holds the observations of
(t - period, t], so nothing later than t is in it. A period without an observation has no bar.
Every step works on one bar, or on one and its neighbour by a join: no window spans the series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitstorm.core.time import DAY_MS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

WEEK_MS = 7 * DAY_MS
# 1970-01-05T00:00:00Z, the end of the first ISO week; the epoch itself was a Thursday.
MONDAY_MS = 4 * DAY_MS


def to_summaries(prices: DataFrame, *, period_ms: int) -> DataFrame:
    """A row a period that has observations, in no order.

    `prices` has `timestamp` (bigint, ms UTC, unique) and `price` (float or double). The result:
    `timestamp` (bigint, the label in ms UTC), `open`, `high`, `low`, `close` (double, in the
    price's unit; open is the first observation's price, close the last one's), `count` (bigint),
    and `log_return` and `realised_volatility` (double, both plain fractions).

    Labels lie whole periods from the epoch, as the grid has it; where the period is whole weeks,
    from a Monday 00:00 UTC, so that these are ISO weeks.

    `log_return` is that of `with_log_return`. `realised_volatility` is the square root of the sum
    of squared log returns between successive observations inside the bar (T. G. Andersen and
    T. Bollerslev, "Answering the Skeptics", 1998). A bar's first observation has none, as the one
    before it lies outside; so a bar of one observation has a null, and a day of hours 23 returns.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    origin_ms = MONDAY_MS if period_ms % WEEK_MS == 0 else 0
    # Up to the next multiple, in whole numbers: none is lost to rounding.
    ahead = F.pmod(F.lit(origin_ms) - F.col("timestamp"), F.lit(period_ms))
    labelled = prices.select(
        (F.col("timestamp") + ahead).cast("bigint").alias("label"),
        "timestamp",
        F.col("price").cast("double").alias("exact"),
    )
    inside = Window.partitionBy("label").orderBy("timestamp")
    square = F.pow(_log_change(F.col("exact"), F.lag("exact").over(inside)), F.lit(2.0))
    return (
        labelled.withColumn("square", square)
        .groupBy("label")
        .agg(
            F.min_by("exact", "timestamp").alias("open"),
            F.max("exact").alias("high"),
            F.min("exact").alias("low"),
            F.max_by("exact", "timestamp").alias("close"),
            F.count(F.lit(1)).alias("count"),
            F.sqrt(F.sum("square")).alias("realised_volatility"),
        )
        # `timestamp` was the observations' own.
        .withColumnRenamed("label", "timestamp")
        .transform(with_log_return, period_ms=period_ms)
        .select(*COLUMNS)
    )


COLUMNS = (
    "timestamp",
    "open",
    "high",
    "low",
    "close",
    "count",
    "log_return",
    "realised_volatility",
)


def with_log_return(bars: DataFrame, *, period_ms: int) -> DataFrame:
    """Append `log_return`: log of the close over that of the bar one period before.

    Null where that bar is not there: no return reaches across a hole.
    """
    from pyspark.sql import functions as F

    # A lag would need all bars in one ordered partition.
    before = bars.select(
        (F.col("timestamp") + F.lit(period_ms)).alias("timestamp"),
        F.col("close").alias("close_before"),
    )
    return bars.join(before, "timestamp", "left").select(
        *bars.columns, _log_change(F.col("close"), F.col("close_before")).alias("log_return")
    )


def with_complete(bars: DataFrame, *, last_ms: int) -> DataFrame:
    """Append `complete`: whether something was observed at the label or after it.

    `last_ms` is the time of the newest observation. Only the newest bar can be incomplete; its
    values may still change.
    """
    from pyspark.sql import functions as F

    return bars.withColumn("complete", F.col("timestamp") <= F.lit(last_ms))


def _log_change(price: Column, before: Column) -> Column:
    """log(price / before), exact for small changes."""
    from pyspark.sql import functions as F

    return F.log1p((price - before) / before)
