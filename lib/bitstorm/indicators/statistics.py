"""What the log returns and drawdowns of a grid come to: one row.

Moments are Spark's aggregates: central ones, updated in a single pass that loses no digits to a
large mean (T. F. Chan et al., 1979). Autocorrelations pair each point with the one k steps before
it by a join on time, so that no window spans the series and a pair is k steps apart, holes or not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitstorm.core.errors import DataError
from bitstorm.core.time import DAY_MS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

YEAR_MS = 365 * DAY_MS


def statistics(points: DataFrame, *, step_ms: int, lags: Sequence[int]) -> DataFrame:
    """One row of statistics over points of IndicatorSchema.

    `points` has `timestamp` (bigint, ms UTC, unique, on a grid of `step_ms`), `imputed` (boolean),
    `log_return` and `drawdown` (double, null where unknown). Statistics of returns are over all
    that are not null, the zeros of imputed points included; with r a return, n their number and
    m_k their k-th central moment (the mean of (r - mean)^k), the columns are:

    - `count`, `imputed`, `returns` (bigint): points, imputed ones, returns that are not null;
    - `first_ms`, `last_ms` (bigint): the times of the first and the last point, ms UTC;
    - `mean`, `sd` (double, a step): sd of the sample, sqrt(n m_2 / (n - 1)), null for n < 2;
    - `annualised_volatility` (double): sd times the root of the steps in 365 days;
    - `skewness` m_3 / m_2^(3/2) and `excess_kurtosis` m_4 / m_2^2 - 3 (double): of the population,
      as scipy.stats has them by default; pandas corrects for the sample's size, these do not. Null
      where m_2 is 0;
    - `minimum`, `maximum` (double), `positive_share` (double, 0 to 1): of returns above 0;
    - `autocorrelation`: an array of `lag` (int, steps), `pairs` (bigint), `of_return` and
      `of_absolute` (double), in the order of `lags`; see `autocorrelations`;
    - `largest_drawdown` (double, at most 0), `trough_ms`, `peak_ms` (bigint): the least drawdown,
      when it was first reached, and the last time before that at the running maximum. Both times
      are null where the price never fell.

    Raises DataError where a lag is below 1 or named twice.
    """
    from pyspark.sql import functions as F

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
    """A row a lag that has pairs: `lag` (int), `pairs` (bigint), `of_return`, `of_absolute`.

    A pair is two returns, not null, whose times are `lag` steps apart; `of_return` is the Pearson
    correlation of the two over all pairs, with the pairs' own means, `of_absolute` that of their
    absolute values (double, null where either side does not vary).
    """
    from pyspark.sql import functions as F

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
    from pyspark.sql import functions as F

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
    from pyspark.sql import functions as F

    fallen = F.when(F.col("drawdown") < 0, F.struct("drawdown", "timestamp"))
    return [
        F.min("drawdown").alias("largest_drawdown"),
        # Of equal ones the first: a struct is ordered by its fields in turn.
        F.min(fallen)["timestamp"].alias("trough_ms"),
    ]


def _peak(points: DataFrame, moments: DataFrame) -> DataFrame:
    """`peak_ms`. Each segment starts at its maximum, so the last such point is of the trough's."""
    from pyspark.sql import functions as F

    highest = points.where(F.col("drawdown") == 0).select("timestamp")
    return (
        highest.crossJoin(moments.select("trough_ms"))
        .where(F.col("timestamp") <= F.col("trough_ms"))
        .agg(F.max("timestamp").alias("peak_ms"))
    )


def _at(lag: int) -> Column:
    from pyspark.sql import functions as F

    found = F.try_element_at("by_lag", F.lit(lag))
    pairs, *correlations = (found[name] for name in _PAIRED)
    return F.struct(F.lit(lag), F.coalesce(pairs, F.lit(0)), *correlations)


def _pearson(x: Column, y: Column) -> Column:
    """Spark's own `corr` divides by zero where a side does not vary, an error in ANSI mode."""
    from pyspark.sql import functions as F

    return F.try_divide(F.covar_pop(x, y), F.stddev_pop(x) * F.stddev_pop(y))


def _check(lags: Sequence[int]) -> None:
    if not lags or min(lags) < 1 or len(set(lags)) < len(lags):
        raise DataError(
            f"the lags are {list(lags)}; expected one or more different numbers of steps from 1 on"
        )
