"""Moving average and volatility of one long series, in parallel and exact (see `blocks`,
`moments`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitstorm.transform.blocks import SIZE, Blocks, in_blocks, numbered, series
from bitstorm.transform.moments import Moments, mean, squares, with_moments

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Fractional changes are counted in sixteenths: the sums are finest where |change| <= 1/16, and
# larger ones, of which there are few, are kept apart.
CHANGE_UNIT = 1 / 16


def rolling(
    points: DataFrame, *, windows: Sequence[int], step_ms: int | None = None, size: int = SIZE
) -> DataFrame:
    """`timestamp`, `price`, and per window W `ma_W` and `volatility_W` (double), as the contract
    defines them: the mean of the last W prices, and the sample standard deviation of the last W
    fractional changes.

    `points` has `timestamp` (int64 ms UTC, distinct) and `price` (float32, finite, > 0). With
    `step_ms` they lie on a grid, where a missing point cuts the series and everything restarts;
    without it windows count rows, whatever their distance. A value is null until its whole window
    exists; `volatility_1` always is. `size` is that of a block.
    """
    from pyspark.sql import functions as F

    if not windows or min(windows) < 1:
        raise ValueError(f"windows are {list(windows)}; expected widths from 1 on")
    rows = points.select("timestamp", "price")
    if step_ms is None:
        rows = numbered(rows, by="timestamp")
    else:
        rows = rows.select("*", F.expr(f"timestamp div {step_ms}").alias("index"))
    blocks = Blocks(size, before=max(windows))
    seen = in_blocks(rows, blocks).withColumn("exact", F.col("price").cast("double"))
    steps = with_start(with_changes(seen), blocks)
    known = F.col("index") - F.coalesce("start", F.lit(-(2**62)))
    asked = price_and_change(windows, windows)
    moments = with_moments(steps, asked, window=series(), most_rows=blocks.rows)
    return moments.where(blocks.owned()).select(
        "timestamp",
        "price",
        *[average(known, w) for w in windows],
        *[volatility(known, w) for w in windows],
    )


def with_changes(rows: DataFrame, *order: str) -> DataFrame:
    """Append `last_index` (of the row before in the block), `step_change` p - q, `change`
    (p - q) / q, both null where the row before is not the next one in the series, and what
    `price_and_change` asks for: `scale`, `scaled_price`, `scaled_change`.

    Needs `exact`, the price in double. `order` is that of `blocks.series`.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    window = series(*order)
    whole = window.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    before = F.lag(F.struct("index", "exact")).over(window)
    rows = rows.select("*", before.alias("last"), F.max("exact").over(whole).alias("top"))
    next_to = F.col("last.index") == F.col("index") - 1
    rows = rows.select(
        "*",
        F.col("last.index").alias("last_index"),
        F.when(next_to, F.col("exact") - F.col("last.exact")).alias("step_change"),
        F.when(next_to, F.col("last.exact")).alias("earlier"),
        # A power of two, by which nothing is rounded.
        F.pow(F.lit(2.0), F.ceil(F.log2("top"))).alias("scale"),
    ).drop("last", "top")
    rows = rows.select(
        "*",
        (F.col("step_change") / F.col("earlier")).alias("change"),
        (F.col("exact") / F.col("scale")).alias("scaled_price"),
    ).drop("earlier")
    return rows.withColumn("scaled_change", F.col("change") / CHANGE_UNIT)


def with_start(rows: DataFrame, blocks: Blocks) -> DataFrame:
    """Append `start`: the index of the last cut that is seen in the block up to the row, null
    where none is."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    running = series().rowsBetween(Window.unboundedPreceding, Window.currentRow)
    cut_at = F.when(blocks.cut(F.col("last_index")), F.col("index"))
    return rows.withColumn("start", F.max(cut_at).over(running))


def price_and_change(
    means: Sequence[int], volatilities: Sequence[int], spreads: Sequence[int] = ()
) -> list[Moments]:
    """The moments of the columns of `with_changes`."""
    return [
        Moments("scaled_price", means=tuple(means), spreads=tuple(spreads)),
        Moments("scaled_change", spreads=tuple(volatilities), outliers=True),
    ]


def average(known: Column, width: int) -> Column:
    """`ma_W`, null unless `known` (the row's place after the last cut) is W - 1 or more."""
    from pyspark.sql import functions as F

    value = F.col(mean("scaled_price", width)) * F.col("scale")
    return F.when(known >= width - 1, value).alias(f"ma_{width}")


def volatility(known: Column, width: int) -> Column:
    """`volatility_W`, null unless there are W changes."""
    from pyspark.sql import functions as F

    if width == 1:
        return F.lit(None).cast("double").alias("volatility_1")
    variance = F.col(squares("scaled_change", width)) / (width - 1)
    return F.when(known >= width, F.sqrt(variance) * CHANGE_UNIT).alias(f"volatility_{width}")
