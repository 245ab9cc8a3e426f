"""The indicators of IndicatorSchema over a grid: trailing windows only, restarting at each cut.

Formulas: simple and exponential means, Bollinger bands and drawdown as in J. J. Murphy,
"Technical Analysis of the Financial Markets"; MACD by G. Appel; RSI by J. W. Wilder, "New
Concepts in Technical Trading Systems" (1978), seeded with the simple mean of the first changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitstorm.schema import PARTITION, indicator_table
from bitstorm.transform.contract import month_of
from bitstorm.transform.recurrence import Recurrence, with_recurrences
from bitstorm.transform.resample import to_grid

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

MACD_FAST, MACD_SLOW, MACD_SIGNAL = 12, 26, 9
RSI = 14
BOLLINGER, BOLLINGER_WIDTH = 20, 2.0


def from_prices(
    prices: DataFrame, *, step_ms: int, max_gap: int, windows: Sequence[int]
) -> DataFrame:
    """`IndicatorSchema` for observations (`timestamp` in ms UTC, `price`) of any sampling."""
    return prices.transform(to_grid, step_ms=step_ms, max_gap=max_gap).transform(
        to_indicators, windows=windows
    )


def to_indicators(grid: DataFrame, *, windows: Sequence[int]) -> DataFrame:
    """`IndicatorSchema` for a grid with `segment` and `position` (see `transform.resample`).

    A value is null until its whole window exists inside the segment.
    """
    from pyspark.sql import functions as F

    return (
        grid.withColumn("exact", F.col("price").cast("double"))
        .transform(with_returns)
        .transform(with_averages, windows=windows)
        .transform(with_exponentials, windows=windows)
        .transform(with_signal)
        .transform(with_drawdown)
        .withColumn(PARTITION, month_of(F.col("timestamp")))
        .select(*indicator_table(windows).names)
    )


def with_returns(grid: DataFrame) -> DataFrame:
    """Append `change` (p - q) / q, `step_change` p - q and `log_return` log1p(change)."""
    from pyspark.sql import functions as F

    before = F.lag("exact").over(_ordered())
    return grid.withColumn("step_change", F.col("exact") - before).select(
        "*",
        (F.col("step_change") / before).alias("change"),
        F.log1p(F.col("step_change") / before).alias("log_return"),
    )


def with_averages(rows: DataFrame, *, windows: Sequence[int]) -> DataFrame:
    """Append `ma_W`, `volatility_W`, the Bollinger bands and `trend`."""
    from pyspark.sql import functions as F

    def mean(steps: int) -> Column:
        return F.when(_has(steps), F.avg("exact").over(_last(steps)))

    def volatility(steps: int) -> Column:
        return F.when(_has(steps + 1), F.stddev_samp("change").over(_last(steps)))

    width = BOLLINGER_WIDTH * F.stddev_pop("exact").over(_last(BOLLINGER))
    return rows.select(
        "*",
        *[mean(w).alias(f"ma_{w}") for w in windows],
        *[volatility(w).alias(f"volatility_{w}") for w in windows],
        (mean(BOLLINGER) + width).alias("bollinger_upper_20"),
        (mean(BOLLINGER) - width).alias("bollinger_lower_20"),
    ).withColumn(
        "trend", F.signum(F.col(f"ma_{min(windows)}") - F.col(f"ma_{max(windows)}")).cast("int")
    )


def with_exponentials(rows: DataFrame, *, windows: Sequence[int]) -> DataFrame:
    """Append `ema_W`, `macd` and `rsi_14`."""
    from pyspark.sql import functions as F

    spans = sorted({*windows, MACD_FAST, MACD_SLOW})
    # An EMA is y[0] = p[0], y[n] = (1 - a) y[n-1] + a p[n]: inputs p[0], then a p[n].
    inputs = [
        F.when(F.col("position") == 0, F.col("exact"))
        .otherwise(F.lit(_alpha(span)) * F.col("exact"))
        .alias(f"into_ema_{span}")
        for span in spans
    ]
    gain, loss = (
        F.greatest("step_change", F.lit(0.0)),
        F.greatest(-F.col("step_change"), F.lit(0.0)),
    )
    prepared = rows.select(
        "*", *inputs, _wilder(gain).alias("into_gain"), _wilder(loss).alias("into_loss")
    )
    recurrences = [
        *[Recurrence(f"raw_ema_{s}", f"into_ema_{s}", 1 - _alpha(s)) for s in spans],
        Recurrence("mean_gain", "into_gain", 1 - 1 / RSI),
        Recurrence("mean_loss", "into_loss", 1 - 1 / RSI),
    ]
    moved = F.col("mean_gain") + F.col("mean_loss")
    # Without any movement TA-Lib states 0; so do we.
    strength = F.when(moved > 0, 100 * F.col("mean_gain") / moved).otherwise(F.lit(0.0))
    macd = F.col(f"raw_ema_{MACD_FAST}") - F.col(f"raw_ema_{MACD_SLOW}")
    return with_recurrences(prepared, recurrences).select(
        *rows.columns,
        *[F.when(_has(w), F.col(f"raw_ema_{w}")).alias(f"ema_{w}") for w in windows],
        F.when(_has(MACD_SLOW), macd).alias("macd"),
        F.when(_has(RSI + 1), strength).alias("rsi_14"),
    )


def with_signal(rows: DataFrame) -> DataFrame:
    """Append `macd_signal`: the EMA of `macd` from its first value on."""
    from pyspark.sql import functions as F

    first = MACD_SLOW - 1
    into = (
        F.when(F.col("position") == first, F.col("macd"))
        .when(F.col("position") > first, F.lit(_alpha(MACD_SIGNAL)) * F.col("macd"))
        .otherwise(F.lit(0.0))
    )
    recurrence = Recurrence("raw_signal", "into_signal", 1 - _alpha(MACD_SIGNAL))
    return with_recurrences(rows.withColumn("into_signal", into), [recurrence]).select(
        *rows.columns,
        F.when(_has(first + MACD_SIGNAL), F.col("raw_signal")).alias("macd_signal"),
    )


def with_drawdown(rows: DataFrame) -> DataFrame:
    """Append `drawdown`: the price over its running maximum in the segment, less 1."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    peak = F.max("exact").over(_ordered().rowsBetween(Window.unboundedPreceding, 0))
    return rows.withColumn("drawdown", F.col("exact") / peak - 1)


def _wilder(change: Column) -> Column:
    """Inputs of Wilder's mean: at the 14th change the mean of the 14, then each one's 14th."""
    from pyspark.sql import functions as F

    return (
        F.when(F.col("position") < RSI, F.lit(0.0))
        .when(F.col("position") == RSI, F.avg(change).over(_last(RSI)))
        .otherwise(change / RSI)
    )


def _alpha(span: int) -> float:
    return 2.0 / (span + 1.0)


def _has(steps: int) -> Column:
    """Whether the segment has that many points up to the row."""
    from pyspark.sql import functions as F

    return F.col("position") >= steps - 1


def _ordered() -> WindowSpec:
    from pyspark.sql import Window

    return Window.partitionBy("segment").orderBy("position")


def _last(steps: int) -> WindowSpec:
    return _ordered().rowsBetween(1 - steps, 0)
