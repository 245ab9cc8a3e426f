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
# A float32 from 2^10 to 2^24 is a multiple of 2^-13, and what a smaller one has below that adds up
# without rounding, too: averages of prices from 2^-28 on come from exact sums, whatever else is in
# the block; above 2^24 they do where the prices of a block are within 2^14 of each other.
_PRICE_STEPS = 2.0**13
# Prices down to 2^-32 of the scale are summed exactly. Where a block's don't fit, the scale is so
# many powers of two above their geometric mean.
_RANGE = 32
_FAR_ABOVE = 10


def rolling(
    points: DataFrame, *, windows: Sequence[int], step_ms: int | None = None, size: int = SIZE
) -> DataFrame:
    """`timestamp`, `price`, and per window W `ma_W` and `volatility_W` (double), as the contract
    defines them: the mean of the last W prices, and the sample standard deviation of the last W
    fractional changes.

    `points` has `timestamp` (int64 ms UTC, distinct) and `price` (float32, finite, > 0). With
    `step_ms` timestamps are multiples of it, and a missing point cuts the series: everything
    restarts. Without it windows count rows, whatever their distance. A value is null until its
    whole window exists; `volatility_1` always is. `size` is that of a block.
    """
    from pyspark.sql import functions as F

    if not windows or min(windows) < 1:
        raise ValueError(f"windows are {list(windows)}; expected widths from 1 on")
    exact = F.col("price").cast("double").alias("exact")
    # Narrow rows are sorted and buffered faster: on a grid the index is the time.
    if step_ms is None:
        rows = numbered(points.select("timestamp", exact), by="timestamp")
        time = F.col("timestamp")
    else:
        rows = points.select(F.expr(f"timestamp div {step_ms}").alias("index"), exact)
        time = (F.col("index") * step_ms).alias("timestamp")
    blocks = Blocks(size, before=max(windows))
    steps = in_blocks(rows, blocks).transform(with_changes).drop("step_change")
    steps = steps.withColumn("exact_price", F.col("exact")).transform(with_scaled_change)
    asked = [
        Moments("exact_price", means=tuple(windows), per_unit=_PRICE_STEPS),
        changes_asked(windows),
    ]
    moments = with_moments(
        steps,
        asked,
        window=series(),
        most_rows=blocks.rows,
        running={"start": start(blocks)},
    )
    known = F.col("index") - F.coalesce("start", F.lit(-(2**62)))
    return moments.where(blocks.owned()).select(
        time,
        F.col("exact").cast("float").alias("price"),
        *[average(known, w, F.col(mean("exact_price", w))) for w in windows],
        *[volatility(known, w) for w in windows],
    )


def with_changes(rows: DataFrame, *order: str, scaled: bool = False) -> DataFrame:
    """Append `last_index` (of the row before in the block), `step_change` p - q, `change`
    (p - q) / q and `change_rest`, what that was rounded off by: all null where the row before is
    not the next one in the series. Where `scaled`, also `scale`, a power of two that no price of
    the block is above, but for single ones that are out of all proportion.

    Needs `exact`, the price in double, a float32. `order` is that of `blocks.series`.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    kept = rows.columns
    window = series(*order)
    whole = window.rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)
    # A power of two, which rounds nothing: above the highest price, unless what is below would not
    # fit, for then that is a single wrong one.
    seen = {
        "top": F.max("exact"),
        "bottom": F.min("exact"),
        "level": F.avg(F.log2("exact")),
    }
    fitting = F.greatest(F.ceil("level") + _FAR_ABOVE, F.floor(F.log2("bottom")) + _RANGE)
    height = F.least(F.ceil(F.log2("top")), fitting)
    scale = [F.pow(F.lit(2.0), height).alias("scale")]
    if not scaled:
        seen, scale = {}, []
    rows = rows.select(
        "*",
        F.lag(F.struct("index", "exact")).over(window).alias("last"),
        *[column.over(whole).alias(name) for name, column in seen.items()],
    )
    next_to = F.col("last.index") == F.col("index") - 1
    rows = rows.select(
        *kept,
        *scale,
        F.col("last.index").alias("last_index"),
        F.when(next_to, F.col("exact") - F.col("last.exact")).alias("step_change"),
        F.when(next_to, F.col("last.exact")).alias("earlier"),
    )
    step, earlier, change = F.col("step_change"), F.col("earlier"), F.col("change")
    rows = rows.withColumn("change", step / earlier)
    # Both halves of the quotient times a float32 are exact, and so is what they leave.
    rows = rows.withColumn("change_high", change.cast("float").cast("double"))
    high = F.col("change_high")
    left = (step - high * earlier) - (change - high) * earlier
    return rows.withColumn("change_rest", left / earlier).drop("earlier", "change_high")


def with_scaled_change(rows: DataFrame) -> DataFrame:
    """`change` and `change_rest` as `changes_asked` has them."""
    from pyspark.sql import functions as F

    names = ("change", "change_rest")
    scaled = {f"scaled_{name}": F.col(name) / CHANGE_UNIT for name in names}
    return rows.withColumns(scaled).drop(*names)


def changes_asked(windows: Sequence[int]) -> Moments:
    """What `volatility` is computed from."""
    rest = "scaled_change_rest"
    return Moments("scaled_change", spreads=tuple(windows), rest=rest)


def start(blocks: Blocks) -> Column:
    """The index of the last cut that is seen in the block up to the row, null where none is.
    Needs `last_index`."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    running = series().rowsBetween(Window.unboundedPreceding, Window.currentRow)
    return F.max(F.when(blocks.cut(F.col("last_index")), F.col("index"))).over(running)


def average(known: Column, width: int, value: Column) -> Column:
    """`ma_W`, null unless `known` (the row's place after the last cut) is W - 1 or more."""
    from pyspark.sql import functions as F

    return F.when(known >= width - 1, value).alias(f"ma_{width}")


def volatility(known: Column, width: int) -> Column:
    """`volatility_W`, null unless there are W changes."""
    from pyspark.sql import functions as F

    if width == 1:
        return F.lit(None).cast("double").alias("volatility_1")
    variance = F.col(squares("scaled_change", width)) / (width - 1)
    return F.when(known >= width, F.sqrt(variance) * CHANGE_UNIT).alias(f"volatility_{width}")
