"""Statistics of a grid's log returns and drawdowns in one row, and bars of the observations.

Moments are Spark's aggregates: central ones, updated in a single pass that loses no digits to a
large mean (T. F. Chan et al., 1979). Autocorrelations join each point with the one k steps before
it by time: no window spans the series, and a pair is k steps apart, with or without holes.

Bars follow the rule of the grid (`indicators.kernel`): the bar labelled t holds the observations of
(t - period, t], nothing later. A period without an observation has no bar. Each step works on one
bar, or joins a bar to its neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from bitstorm.core.errors import DataError
from bitstorm.core.time import DAY_MS

YEAR_MS = 365 * DAY_MS


def statistics(points: DataFrame, *, step_ms: int, lags: Sequence[int]) -> DataFrame:
    """One row of statistics over points of IndicatorSchema.

    `points` has `timestamp` (bigint, ms UTC, unique, on a grid of `step_ms`), `imputed` (boolean),
    `log_return` and `drawdown` (double, null where unknown). Statistics of returns include all
    that are not null, also the zeros of imputed points. With r a return, n the number of returns
    and m_k their k-th central moment (the mean of (r - mean)^k), the columns are:

    - `count`, `imputed`, `returns` (bigint): points, imputed ones, returns that are not null;
    - `first_ms`, `last_ms` (bigint): the times of the first and the last point, ms UTC;
    - `mean`, `sd` (double, a step): sd of the sample, sqrt(n m_2 / (n - 1)), null for n < 2;
    - `annualised_volatility` (double): sd times the root of the steps in 365 days;
    - `skewness` m_3 / m_2^(3/2) and `excess_kurtosis` m_4 / m_2^2 - 3 (double): of the population,
      as scipy.stats by default, without pandas' correction for the size of the sample. Null where
      m_2 is 0;
    - `minimum`, `maximum` (double), `positive_share` (double, 0 to 1): of returns above 0;
    - `autocorrelation`: an array of `lag` (int, steps), `pairs` (bigint), `of_return` and
      `of_absolute` (double), in the order of `lags`; see `autocorrelations`;
    - `largest_drawdown` (double, at most 0), `trough_ms`, `peak_ms` (bigint): the lowest drawdown,
      its first time, and the last time before that at the running maximum. Both times are null
      where the price never fell.

    Raises DataError for a lag below 1 or a repeated lag.
    """
    _check(lags)
    moments = points.agg(*_moments(step_ms), *_drawdown())
    lagged = points.transform(autocorrelations, step_ms=step_ms, lags=lags).agg(
        F.map_from_entries(F.collect_list(F.struct("lag", F.struct(*_PAIRED)))).alias("by_lag")
    )
    return (
        moments.crossJoin(points.transform(_peak, moments))
        .crossJoin(lagged)
        .withColumn("autocorrelation", F.array(*[_at(lag) for lag in lags]).cast(_LAGGED))
        .drop("by_lag")
    )


_PAIRED = ("pairs", "of_return", "of_absolute")
_LAGGED = "array<struct<lag:int,pairs:bigint,of_return:double,of_absolute:double>>"


def autocorrelations(points: DataFrame, *, step_ms: int, lags: Sequence[int]) -> DataFrame:
    """A row for each lag that has pairs: `lag` (int), `pairs` (bigint), `of_return`, `of_absolute`.

    A pair is two returns, not null, whose times are `lag` steps apart. `of_return` is the Pearson
    correlation over all pairs, with the pairs' own means; `of_absolute` is the same for absolute
    returns (double, null where either side is constant).
    """
    _check(lags)
    later = points.where(F.col("log_return").isNotNull()).select(
        "timestamp", F.col("log_return").alias("later")
    )
    ahead = F.explode(F.array(*[F.lit(lag) for lag in lags])).alias("lag")
    earlier = later.select(ahead, "timestamp", F.col("later").alias("earlier")).withColumn(
        "timestamp", F.col("timestamp") + F.col("lag") * F.lit(step_ms).cast("bigint")
    )
    return (
        earlier.join(later, "timestamp")
        .groupBy("lag")
        .agg(
            F.count(F.lit(1)).alias("pairs"),
            _pearson(F.col("earlier"), F.col("later")).alias("of_return"),
            _pearson(F.abs("earlier"), F.abs("later")).alias("of_absolute"),
        )
    )


def _moments(step_ms: int) -> list[Column]:
    sd = F.stddev_samp("log_return")
    positive = F.count_if(F.col("log_return") > 0)
    return [
        F.count(F.lit(1)).alias("count"),
        F.count_if("imputed").alias("imputed"),
        F.count("log_return").alias("returns"),
        F.min("timestamp").alias("first_ms"),
        F.max("timestamp").alias("last_ms"),
        F.avg("log_return").alias("mean"),
        sd.alias("sd"),
        (sd * F.lit(math.sqrt(YEAR_MS / step_ms))).alias("annualised_volatility"),
        F.skewness("log_return").alias("skewness"),
        F.kurtosis("log_return").alias("excess_kurtosis"),
        F.min("log_return").alias("minimum"),
        F.max("log_return").alias("maximum"),
        F.try_divide(positive, F.count("log_return")).alias("positive_share"),
    ]


def _drawdown() -> list[Column]:
    fallen = F.when(F.col("drawdown") < 0, F.struct("drawdown", "timestamp"))
    return [
        F.min("drawdown").alias("largest_drawdown"),
        # Structs are ordered by their fields in turn, so the earliest of equal drawdowns is first.
        F.min(fallen)["timestamp"].alias("trough_ms"),
    ]


def _peak(points: DataFrame, moments: DataFrame) -> DataFrame:
    """`peak_ms`. A run starts at its maximum, so the last peak before the trough is of its run."""
    highest = points.where(F.col("drawdown") == 0).select("timestamp")
    return (
        highest.crossJoin(moments.select("trough_ms"))
        .where(F.col("timestamp") <= F.col("trough_ms"))
        .agg(F.max("timestamp").alias("peak_ms"))
    )


def _at(lag: int) -> Column:
    found = F.try_element_at("by_lag", F.lit(lag))
    pairs, *correlations = (found[name] for name in _PAIRED)
    return F.struct(F.lit(lag), F.coalesce(pairs, F.lit(0)), *correlations)


def _pearson(x: Column, y: Column) -> Column:
    """Spark's own `corr` divides by zero where a side is constant, an error in ANSI mode."""
    return F.try_divide(F.covar_pop(x, y), F.stddev_pop(x) * F.stddev_pop(y))


def _check(lags: Sequence[int]) -> None:
    if not lags or min(lags) < 1 or len(set(lags)) < len(lags):
        raise DataError(
            f"the lags are {list(lags)}; expected one or more different numbers of steps from 1 on"
        )


WEEK_MS = 7 * DAY_MS
# 1970-01-05T00:00:00Z, the end of the first ISO week; the epoch itself was a Thursday.
MONDAY_MS = 4 * DAY_MS


def to_summaries(prices: DataFrame, *, period_ms: int) -> DataFrame:
    """One bar for each period with observations, in no order.

    `prices` has `timestamp` (bigint, ms UTC, unique) and `price` (float or double). The result:
    `timestamp` (bigint, the label in ms UTC), `open`, `high`, `low`, `close` (double, in the
    price's unit; open is the first observation's price, close the last one's), `count` (bigint),
    and `log_return` and `realised_volatility` (double, both fractions).

    Labels are whole periods after the epoch, as on the grid. A period of whole weeks starts on a
    Monday 00:00 UTC, as ISO weeks do.

    `log_return`: see `with_log_return`. `realised_volatility` is the square root of the sum of
    squared log returns between successive observations of the bar (T. G. Andersen and
    T. Bollerslev, "Answering the Skeptics", 1998). The first observation of a bar has no return. So
    a bar of one observation has a null, and a day of hours has 23 returns.
    """
    origin_ms = MONDAY_MS if period_ms % WEEK_MS == 0 else 0
    # Up to the next label, in whole numbers: no rounding.
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
        .withColumnRenamed("label", "timestamp")
        .transform(with_log_return, period_ms=period_ms)
        .select(*COLUMNS)
    )


_OHLC = ("open", "high", "low", "close")
COLUMNS = ("timestamp", *_OHLC, "count", "log_return", "realised_volatility")


def with_log_return(bars: DataFrame, *, period_ms: int) -> DataFrame:
    """Append `log_return`: the log of the close over the close one period before.

    Null where there is no bar one period before: no return spans a hole.
    """
    # A lag would need all bars in one ordered partition.
    before = bars.select(
        (F.col("timestamp") + F.lit(period_ms)).alias("timestamp"),
        F.col("close").alias("close_before"),
    )
    return bars.join(before, "timestamp", "left").select(
        *bars.columns, _log_change(F.col("close"), F.col("close_before")).alias("log_return")
    )


def with_complete(bars: DataFrame, *, last_ms: int) -> DataFrame:
    """Append `complete`: whether there is an observation at the label or after it.

    `last_ms` is the time of the newest observation. Only the newest bar can be incomplete, and its
    values can still change.
    """
    return bars.withColumn("complete", F.col("timestamp") <= F.lit(last_ms))


def _log_change(price: Column, before: Column) -> Column:
    """log(price / before), exact for small changes."""
    return F.log1p((price - before) / before)
