"""MACD and its signal over one long series, in parallel, right where they cross zero as well.

MACD is the difference of two means that are near each other, and its signal a mean of numbers of
both signs: of doubles, each right to the last digit, little is left where they cancel. So both are
computed in pairs of doubles (see `pairs`) and rounded once, at the end. The formulas are those of
G. Appel, the means as in `indicators`.

Both are made of three sums y[n] = d * y[n-1] + u[n] over changes of the price. Such a sum forgets
within a tile, so what a tile takes over is the last value of the tile before, which is in the
block: a block sees `REACH` rows before its own. What is older is left out, 1e-34 of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import accumulate, chain, repeat
from operator import mul
from typing import TYPE_CHECKING

from bitstorm.transform.blocks import series
from bitstorm.transform.pairs import Pair, pair, parts, with_running_sums
from bitstorm.transform.recurrence import TILE, entering

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FAST, SLOW, SIGNAL = 12, 26, 9
# So many rows before it a value takes into account: (25/27)^800 of a price is nothing to a double.
REACH = 1_024
# What a mean keeps from row to row: the newest value has a weight of 2 / (span + 1).
_FAST, _SLOW, _SIGNAL = (Fraction(span - 1, span + 1) for span in (FAST, SLOW, SIGNAL))
_DECAYS = {"fast": _FAST, "slow": _SLOW, "signal": _SIGNAL}
# The place in its run of the first MACD, from which the signal starts.
_BEGINS = SLOW - 1
_DIGITS = 60


def with_macd(rows: DataFrame, *, tile: int) -> DataFrame:
    """Append `macd` and `macd_signal` (double, of the unit of the price).

    Needs `step_change`, the change of the price since the row before (null where there is none),
    `block`, `tile`, `run`, `index`, `offset`, `start` and `place`, the row's place in its run. They
    mean something from the places SLOW - 1 and SLOW + SIGNAL - 2 on.
    """
    from pyspark.sql import functions as F

    if not REACH <= tile <= TILE:
        # In a smaller one MACD is not forgotten, in a larger one weights leave a double's range.
        raise ValueError(f"a tile has {tile} rows, expected {REACH} to {TILE}")
    kept, zero = rows.columns, F.lit(0.0)
    moved = Pair(F.coalesce("step_change", zero), zero)
    shares = [_constant(_share(place)) for place in range(_BEGINS + 2)]
    entry = (F.least("place", F.lit(_BEGINS + 1)) + 1).cast("int")
    share = Pair(*(F.element_at(F.array(*part), entry) for part in zip(*shares, strict=True)))
    rows = rows.select("*", *moved.named("moved"), *share.named("share"))
    rows = rows.select("*", *(pair("moved") * pair("share")).named("shared"))
    rows = _with_sums(rows, {"fast": "moved", "slow": "moved", "signal": "shared"}, tile=tile)
    fast, slow, signal = (pair(name) for name in _DECAYS)
    # How far the price is ahead of its mean is a sum of its changes, y[n] = d * (y[n-1] + c[n]):
    # MACD is the difference of two of these, and exactly 0 where nothing has moved.
    macd = _constant(_SLOW) * slow - _constant(_FAST) * fast
    smoothed = _constant(_taken(_SLOW)) * slow - _constant(_taken(_FAST)) * fast + signal
    return rows.select(*kept, macd.high.alias("macd"), smoothed.high.alias("macd_signal"))


def _taken(decay: Fraction) -> Fraction:
    """How much of a change's sum with this decay is in the signal: for s the signal's own decay,
    the sum of (1 - s) s^(m-k) d^(k+1) over k from 0 to m is taken * (d^m - s^(m+1) / d)."""
    return (1 - _SIGNAL) * decay**2 / (decay - _SIGNAL)


def _share(place: int) -> Fraction:
    """How much of a change the sum with the signal's own decay takes, so that with what is taken of
    the two others it is the signal. The signal starts as the first MACD is, whatever a change has
    lost in that: an earlier one comes in with so much more."""

    def of(decay: Fraction) -> Fraction:
        if place > _BEGINS:
            return -_taken(decay) * _SIGNAL / decay
        return (decay / _SIGNAL) ** (_BEGINS - place) * (decay - _taken(decay))

    return of(_SLOW) - of(_FAST)


def _with_sums(rows: DataFrame, sums: Mapping[str, str], *, tile: int) -> DataFrame:
    """Append the pair y[n] = d * y[n-1] + u[n] for each name and the pair u that it stands for.

    Written out, y[n] is the sum of d^(n-i) * u[i]: inside a tile, a weight times a running sum of
    weighted inputs (see `recurrence`).
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    kept = rows.columns
    rows = rows.join(F.broadcast(_weights(rows.sparkSession, sums, tile)), "offset")
    into = [(pair(u) * pair(f"{name}_up")).named(f"{name}_in") for name, u in sums.items()]
    inside = Window.partitionBy("block", "tile", "run").orderBy("index")
    totals = {f"{name}_total": f"{name}_in" for name in sums}
    rows = rows.select("*", *chain(*into)).transform(with_running_sums, totals, over=inside)
    here = {name: pair(f"{name}_total") * pair(f"{name}_down") for name in sums}
    rows = rows.select(
        *kept,
        *(part for name in sums for part in parts(f"{name}_over")),
        *chain(*(value.named(f"{name}_here") for name, value in here.items())),
    )
    values = [part for name in sums for part in parts(f"{name}_here")]
    at_end = F.when(F.col("offset") == tile - 1, F.struct("index", *values))
    earlier = series("tile", "run").rowsBetween(Window.unboundedPreceding, -1)
    rows = rows.withColumn("ended", F.last(at_end, ignorenulls=True).over(earlier))
    follows = entering(tile) & (F.col("ended.index") == F.col("tile") * tile - 1)

    def whole(name: str) -> Pair:
        before = (F.col(f"ended.{part}") for part in parts(f"{name}_here"))
        state = Pair(*(F.when(follows, part).otherwise(0.0) for part in before))
        return pair(f"{name}_here") + state * pair(f"{name}_over")

    return rows.select(*kept, *chain(*(whole(name).named(name) for name in sums)))


def _weights(spark: SparkSession, names: Iterable[str], tile: int) -> DataFrame:
    """One row for each `offset` in a tile, and for each sum three pairs: what its inputs are
    multiplied by (`up`, d^(tile/2 - offset)), the running sum of those (`down`, 1 / up), and the
    value before the tile (`over`, d^(offset + 1)). The first two stay in the range of a double, the
    last may come to be 0."""
    import pyarrow as pa

    columns: dict[str, Iterable[float]] = {"offset": range(tile)}
    with localcontext() as context:
        context.prec = _DIGITS
        for name in names:
            powers = list(
                accumulate(repeat(_decimal(_DECAYS[name]), tile), mul, initial=Decimal(1))
            )
            half, inverse = powers[: tile // 2 + 1], [1 / p for p in powers[: tile // 2 + 1]]
            up, down = (
                [*reversed(a), *b[1:]][:tile] for a, b in ((half, inverse), (inverse, half))
            )
            for way, weights in {"up": up, "down": down, "over": powers[1:]}.items():
                both = map(_in_doubles, weights)
                columns.update(zip(parts(f"{name}_{way}"), zip(*both, strict=True), strict=True))
    return spark.createDataFrame(pa.table(columns))


def _constant(value: Fraction) -> Pair:
    from pyspark.sql import functions as F

    with localcontext() as context:
        context.prec = _DIGITS
        return Pair(*map(F.lit, _in_doubles(_decimal(value))))


def _in_doubles(value: Decimal) -> tuple[float, float]:
    high = float(value)
    return high, float(value - Decimal(high))


def _decimal(value: Fraction) -> Decimal:
    return Decimal(value.numerator) / Decimal(value.denominator)
