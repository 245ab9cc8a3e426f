"""The indicators of IndicatorSchema over a grid: trailing windows only, restarting at each cut.

Formulas: simple and exponential means, Bollinger bands and drawdown as in J. J. Murphy,
"Technical Analysis of the Financial Markets"; MACD by G. Appel; RSI by J. W. Wilder, "New
Concepts in Technical Trading Systems" (1978), seeded with the simple mean of the first changes.

All in one shuffle: the points of a block and those before it are sorted once, and every window
runs inside the block (see `blocks`). What has unbounded memory, exponential means and the running
maximum, is carried from tile to tile by a scan over at most one row a tile (see `recurrence`; for
MACD `macd`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitstorm.schema import PARTITION, indicator_table
from bitstorm.transform.blocks import SIZE, Blocks, series
from bitstorm.transform.contract import month_of
from bitstorm.transform.macd import REACH, SIGNAL, SLOW, with_macd
from bitstorm.transform.moments import Moments, mean, squares, with_moments
from bitstorm.transform.recurrence import (
    TILE,
    Recurrence,
    corrected,
    entering,
    states,
    tile_size,
    with_local,
    with_tile,
)
from bitstorm.transform.resample import points_in_blocks
from bitstorm.transform.rolling import (
    average,
    changes_asked,
    volatility,
    with_changes,
    with_scaled_change,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

RSI = 14
BOLLINGER, BOLLINGER_WIDTH = 20, 2.0
_ORDER = ("tile", "run")
# Raise it with any change to what comes out: stored months of another number are not built upon.
FORMULAS = 3
# Below this the mean gain and loss near the end of a double's range, and their ratio has no digits.
_LEAST = 1e-280


@dataclass(frozen=True)
class Tail:
    """The end of a series: its points from `first` (the label over the step) on.

    It is computed from the block of `first` on. `state` is what the point just before that block
    leaves to the next one: the running maximum as `peak`, and each recurrence's value under its
    name; None where there is no such point. `seed` makes one from stored indicators.
    """

    first: int
    state: Mapping[str, float] | None


def from_prices(
    prices: DataFrame,
    *,
    step_ms: int,
    max_gap: int,
    windows: Sequence[int],
    size: int = SIZE,
    tile: int = TILE,
    tail: Tail | None = None,
) -> DataFrame:
    """`IndicatorSchema` for observations (`timestamp` in ms UTC, `price`) of any sampling.

    A value is null until its whole window exists since the last cut. `size` is that of a block, a
    multiple of `tile`, the most rows that an exponential mean is summed over at once. With a `tail`
    only its points come out, and of the observations only those from `seed.prices_from` on count.
    """
    from pyspark.sql import functions as F

    recurrences = recurrences_of(windows)
    tile = tile_size(recurrences, tile)
    if size % tile:
        raise ValueError(f"a block of {size} rows is not a whole number of tiles of {tile}")
    blocks = Blocks(size, before=rows_before(windows))
    points = points_in_blocks(prices, blocks, step_ms=step_ms, max_gap=max_gap)
    first_block = 0
    wanted = blocks.owned()
    if tail is not None:
        first_block = tail.first // size
        # A block before it lacks rows, and none of its own is asked for.
        points = points.where(F.col("block") >= first_block)
        wanted = wanted & (F.col("index") >= tail.first)
    rows = (
        with_tile(points, tile)
        .withColumn("exact", F.col("price").cast("double"))
        .transform(with_changes, *_ORDER, scaled=True)
        .withColumn("place", F.col("index") - F.col("start"))
        .transform(_with_inputs, windows)
    )
    known = states(
        rows,
        recurrences,
        blocks=blocks,
        tile=tile,
        peak="exact",
        known=None if tail is None else tail.state,
        first_tile=first_block * size // tile,
    )
    # Beyond any window where the run has begun before the block can see.
    far = F.coalesce("place", F.lit(2**62))
    asked = [
        Moments("scaled_price", means=tuple(sorted({*windows, BOLLINGER})), spreads=(BOLLINGER,)),
        changes_asked(windows),
    ]
    return (
        rows.withColumns({"place": far, "scaled_price": F.col("exact") / F.col("scale")})
        .withColumn("log_return", _log_return(F.col("change")))
        .transform(with_scaled_change)
        .transform(with_moments, asked, window=series(*_ORDER), most_rows=blocks.rows)
        .transform(with_local, recurrences, tile=tile, peak="exact")
        .transform(with_macd, tile=tile)
        .join(F.broadcast(known), "tile", "left")
        .transform(_with_exponentials, recurrences, tile)
        .where(wanted)
        .transform(_named, windows)
    )


def rows_before(windows: Sequence[int]) -> int:
    """So many rows before its own a block is given."""
    return max(REACH, *windows)


def recurrences_of(windows: Sequence[int]) -> list[Recurrence]:
    """Those whose values a row takes over from the one before: `lag_SPAN`, `gain` and `loss`."""
    spans = sorted(set(windows))
    return [
        *[Recurrence(f"lag_{span}", f"into_lag_{span}", 1 - alpha(span)) for span in spans],
        Recurrence("gain", "into_gain", 1 - 1 / RSI),
        Recurrence("loss", "into_loss", 1 - 1 / RSI),
    ]


def _log_return(change: Column) -> Column:
    """The logarithm of price over earlier price, with all the digits that the two have."""
    from pyspark.sql import functions as F

    # Of a fall by nearly all, 1 + change has lost what is left.
    ratio = F.col("exact") / (F.col("exact") - F.col("step_change"))
    return F.when(change > -0.5, F.log1p(change)).otherwise(F.log(ratio))


def _with_inputs(rows: DataFrame, windows: Sequence[int]) -> DataFrame:
    """Append the inputs of the recurrences."""
    from pyspark.sql import functions as F

    # How far the price is ahead of its EMA, y[n] = (1 - a) (y[n-1] + p[n] - p[n-1]) from 0 on.
    change = F.coalesce("step_change", F.lit(0.0))
    lags = {f"into_lag_{span}": F.lit(1 - alpha(span)) * change for span in sorted(set(windows))}
    # Wilder's mean is at the 14th change that of the 14, and then takes a 14th of each one: the
    # first ones come in with what they lose until the 14th.
    place = F.col("place")
    early = F.pow(F.lit(1 - 1 / RSI), (place - RSI).cast("double"))
    weight = F.when(place < RSI, early).otherwise(1.0) / RSI
    gain, loss = (F.greatest(c, F.lit(0.0)) * weight for c in (change, -change))
    return rows.withColumns({**lags, "into_gain": gain, "into_loss": loss})


def _with_exponentials(rows: DataFrame, recurrences: Sequence[Recurrence], tile: int) -> DataFrame:
    """Correct the local values by what their tile takes over; append `peak`."""
    from pyspark.sql import functions as F

    kept = [name for name in rows.columns if name not in {r.name for r in recurrences}]
    return rows.select(
        *kept,
        F.greatest("peak_here", F.when(entering(tile), F.col("peak_before"))).alias("peak"),
        *[corrected(r, F.col(f"state_{r.name}"), tile=tile).alias(r.name) for r in recurrences],
    )


def _named(rows: DataFrame, windows: Sequence[int]) -> DataFrame:
    """The columns of IndicatorSchema."""
    from pyspark.sql import functions as F

    place = F.col("place")

    def after(steps: int, value: Column) -> Column:
        return F.when(place >= steps - 1, value)

    moved = F.col("gain") + F.col("loss")
    # Without any movement TA-Lib states 0; so do we.
    strength = F.when(moved > _LEAST, 100 * (F.col("gain") / moved)).otherwise(0.0)
    spread = F.sqrt(F.col(squares("scaled_price", BOLLINGER)) / BOLLINGER)
    middle = F.col(mean("scaled_price", BOLLINGER))
    upper, lower = ((middle + sign * BOLLINGER_WIDTH * spread) * F.col("scale") for sign in (1, -1))
    short, long = (F.col(mean("scaled_price", w)) for w in (min(windows), max(windows)))
    values = {
        "log_return": F.col("log_return"),
        "macd": after(SLOW, F.col("macd")),
        "macd_signal": after(SLOW + SIGNAL - 1, F.col("macd_signal")),
        "rsi_14": after(RSI + 1, strength),
        "bollinger_upper_20": after(BOLLINGER, upper),
        "bollinger_lower_20": after(BOLLINGER, lower),
        # Over the peak less 1, but a small one keeps its digits.
        "drawdown": (F.col("exact") - F.col("peak")) / F.col("peak"),
        "trend": after(max(windows), F.signum(short - long).cast("int")),
        PARTITION: month_of(F.col("timestamp")),
    }
    named = [
        *[average(place, w, F.col(mean("scaled_price", w)) * F.col("scale")) for w in windows],
        *[volatility(place, w) for w in windows],
        *[after(w, F.col("exact") - F.col(f"lag_{w}")).alias(f"ema_{w}") for w in windows],
        *[value.alias(name) for name, value in values.items()],
    ]
    return rows.select("timestamp", "price", "imputed", *named).select(
        *indicator_table(windows).names
    )


def alpha(span: int) -> float:
    """The weight of the newest price in the exponential mean of a span."""
    return 2.0 / (span + 1.0)
