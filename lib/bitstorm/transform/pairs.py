"""Numbers as the sum of two doubles, for some 30 digits where a double has 16.

The sum of two doubles and its error: D. E. Knuth, "The Art of Computer Programming", vol. 2, 4.2.2;
the product and its error: T. J. Dekker, "A floating-point technique for extending the available
precision" (1971); sums of many: T. Ogita, S. M. Rump, S. Oishi, "Accurate sum and dot product"
(2005). Nothing may come near the ends of a double's range: Dekker's way multiplies by 2^27.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

_SPLITTER = 2.0**27 + 1


class Pair(NamedTuple):
    """The number `high` + `low`, the second within some roundings of the first. Both are used more
    than once: columns of their own are computed once."""

    high: Column
    low: Column

    def __add__(self, other: Pair) -> Pair:  # type: ignore[override]
        total = self.high + other.high
        rest = _error(self.high, other.high, total) + (self.low + other.low)
        # Where the two nearly cancel, the rest has a part in the first digits.
        high = total + rest
        return Pair(high, (total - high) + rest)

    def __sub__(self, other: Pair) -> Pair:
        return self + Pair(-other.high, -other.low)

    def __mul__(self, other: Pair) -> Pair:  # type: ignore[override]
        high = self.high * other.high
        a, b = _leading(self.high), _leading(other.high)
        a_rest, b_rest = self.high - a, other.high - b
        # Each of the four products is exact, and so is every sum but the last.
        error = (a * b - high) + a * b_rest + a_rest * b + a_rest * b_rest
        return Pair(high, error + (self.high * other.low + self.low * other.high))

    def named(self, name: str) -> tuple[Column, Column]:
        """The two as columns that `pair` finds."""
        high, low = parts(name)
        return self.high.alias(high), self.low.alias(low)


def parts(name: str) -> tuple[str, str]:
    """The names of the two columns."""
    return f"{name}_high", f"{name}_low"


def pair(name: str) -> Pair:
    """The pair of the two columns."""
    from pyspark.sql import functions as F

    high, low = parts(name)
    return Pair(F.col(high), F.col(low))


def with_running_sums(rows: DataFrame, sums: Mapping[str, str], *, over: WindowSpec) -> DataFrame:
    """Append a pair for each name: the sum of the pair that it stands for, up to the row."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    kept = rows.columns
    to_here = over.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    # The same additions in the same order: the very number that the row's term was added to.
    before = over.rowsBetween(Window.unboundedPreceding, -1)
    highs: list[Column] = []
    for name, term in sums.items():
        high = F.sum(pair(term).high)
        highs += [high.over(to_here).alias(parts(name)[0])]
        highs += [F.coalesce(high.over(before), F.lit(0.0)).alias(f"{name}_before")]
    rows = rows.select("*", *highs)
    lows = [
        (_error(F.col(f"{name}_before"), pair(term).high, pair(name).high) + pair(term).low).alias(
            f"{name}_error"
        )
        for name, term in sums.items()
    ]
    names = [part for name in sums for part in parts(name)]
    return (
        rows.select("*", *lows)
        .select("*", *(F.sum(f"{n}_error").over(to_here).alias(parts(n)[1]) for n in sums))
        .select(*kept, *names)
    )


def _leading(value: Column) -> Column:
    """The leading 26 bits; the rest is exact, too."""
    scaled = value * _SPLITTER
    return scaled - (scaled - value)


def _error(a: Column, b: Column, total: Column) -> Column:
    """What the sum of two doubles was rounded off by, exactly."""
    part = total - a
    return (a - (total - part)) + (b - part)
