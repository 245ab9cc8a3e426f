"""Observations to bars: open, high, low, close and what happened inside, a row a period.

Bars have the grid's contract (`transform.kernel`): the bar labelled t holds the observations of
(t - period, t], so nothing later than t is in it. A period without an observation has no bar.
Every step works on one bar, or on one and its neighbour by a join: no window spans the series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitstorm.instants import DAY_MS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

WEEK_MS = 7 * DAY_MS
# 1970-01-05T00:00:00Z, the end of the first ISO week; the epoch itself was a Thursday.
MONDAY_MS = 4 * DAY_MS


def to_bars(prices: DataFrame, *, period_ms: int, origin_ms: int | None = None) -> DataFrame:
    """A row a period that has observations, in no order.

    `prices` has `timestamp` (bigint, ms UTC, unique) and `price` (float or double). The result:
    `timestamp` (bigint, the label in ms UTC), `open`, `high`, `low`, `close` (double, in the
    price's unit; open is the first observation's price, close the last one's) and `count` (bigint).

    Labels lie whole periods from `origin_ms`. None stands for the epoch, as the grid has it, and
    for a Monday 00:00 UTC where the period is whole weeks, so that these are ISO weeks.
    """
    return _labelled(prices, period_ms, origin_ms).groupBy("label").agg(*_ohlc()).transform(_named)


def to_summaries(prices: DataFrame, *, period_ms: int, origin_ms: int | None = None) -> DataFrame:
    """`to_bars`, with `log_return` and `realised_volatility` (double, both plain fractions).

    `log_return` is that of `with_log_return`. `realised_volatility` is the square root of the sum
    of squared log returns between successive observations inside the bar (T. G. Andersen and
    T. Bollerslev, "Answering the Skeptics", 1998). A bar's first observation has none, as the one
    before it lies outside; so a bar of one observation has a null, and a day of hours 23 returns.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    inside = Window.partitionBy("label").orderBy("timestamp")
    square = F.pow(_log_change(F.col("exact"), F.lag("exact").over(inside)), F.lit(2.0))
    return (
        _labelled(prices, period_ms, origin_ms)
        .withColumn("square", square)
        .groupBy("label")
        .agg(*_ohlc(), F.sqrt(F.sum("square")).alias("realised_volatility"))
        .transform(_named)
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


def _labelled(prices: DataFrame, period_ms: int, origin_ms: int | None) -> DataFrame:
    """`label`, `timestamp` and `exact`, the price as a double."""
    from pyspark.sql import functions as F

    if origin_ms is None:
        origin_ms = MONDAY_MS if period_ms % WEEK_MS == 0 else 0
    # Up to the next multiple, in whole numbers: none is lost to rounding.
    ahead = F.pmod(F.lit(origin_ms) - F.col("timestamp"), F.lit(period_ms))
    return prices.select(
        (F.col("timestamp") + ahead).cast("bigint").alias("label"),
        "timestamp",
        F.col("price").cast("double").alias("exact"),
    )


def ohlc_of(price: str) -> dict[str, Column]:
    """`open`, `high`, `low`, `close` and `count` of the observations of a group, by name."""
    from pyspark.sql import functions as F

    return {
        "open": F.min_by(price, "timestamp"),
        "high": F.max(price),
        "low": F.min(price),
        "close": F.max_by(price, "timestamp"),
        "count": F.count(F.lit(1)),
    }


def _ohlc() -> list[Column]:
    return [value.alias(name) for name, value in ohlc_of("exact").items()]


def _named(bars: DataFrame) -> DataFrame:
    """The label under the name that it has outside: `timestamp` was the observations' own."""
    return bars.withColumnRenamed("label", "timestamp")


def _log_change(price: Column, before: Column) -> Column:
    """log(price / before), exact for small changes."""
    from pyspark.sql import functions as F

    return F.log1p((price - before) / before)
