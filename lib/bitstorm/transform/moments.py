"""Means and spreads of trailing windows by running sums that lose nothing.

A window's sum is the difference of two running sums: constant work a row, whatever the width. But
plain running sums in double lose the digits of quiet stretches beside wild ones. So each number u
in [-1, 1] is cut into a + b + l on three fixed grids, each so much finer than the one before that
the sums of a, b, l, of a² and of 2ab over a block are whole multiples of their grid below 2^53 of
it: exact in double. The rest of the square, 2al + (b + l)², is cut again in d + f, where sums of d
are exact and f is so small that what its sums lose does not matter. Numbers beyond 1 (rare: a price
that jumps) have sums of their own, so that they do not spoil the windows without them; windows with
them keep what a plain sum keeps.

The spread is the centred sum of squares around m, the window's mean of a rounded to the grid:
sum (u - m)² - n (mean - m)², in which the exact parts cancel exactly. (The idea of fixed grids is
that of reproducible summation: J. Demmel, H. D. Nguyen, "Fast Reproducible Floating-Point
Summation", ARITH 2013.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

_MANTISSA = 53
# Outliers up to 2^17 and their squares, over 2^16 rows.
_COARSE_OUTLIER = 2.0**20


@dataclass(frozen=True)
class Moments:
    """The windows asked for of a column of doubles: `means` and `spreads` are widths in rows.

    `outliers` allows values beyond [-1, 1]; without it there must be none. Nulls count as zero.
    """

    column: str
    means: tuple[int, ...] = ()
    spreads: tuple[int, ...] = ()
    outliers: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(sorted({*self.means, *self.spreads}))

    @property
    def sums(self) -> list[str]:
        """The columns that are summed."""
        # For a mean alone, b and l are one.
        parts = ["a", "b", "l", "aa", "ab", "d", "f"] if self.spreads else ["a", "b"]
        parts += ["o", "of"] if self.outliers else []
        parts += ["q", "qf"] if self.outliers and self.spreads else []
        return [f"{self.column}_{part}" for part in parts]


def mean(column: str, width: int) -> str:
    """The name of the column that `with_moments` appends for a mean."""
    return f"{column}_mean_{width}"


def squares(column: str, width: int) -> str:
    """The name of the column for a centred sum of squares: over n - 1 it is the variance."""
    return f"{column}_squares_{width}"


def with_moments(
    rows: DataFrame, asked: Sequence[Moments], *, window: WindowSpec, most_rows: int
) -> DataFrame:
    """Append `mean(column, w)` and `squares(column, w)` (double) for the last w rows of `window`.

    `window` is partitioned and ordered; no partition has more than `most_rows` rows. Where it has
    fewer than w rows up to a row, the sums are of those: the caller knows which rows count.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    kept = list(rows.columns)
    for each in asked:
        rows = _with_parts(rows, each, most_rows)
    names = [name for each in asked for name in each.sums]
    running = window.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    rows = rows.select(
        *kept, F.struct(*[F.sum(n).over(running).alias(n) for n in names]).alias("sums")
    )
    widths = sorted({width for each in asked for width in each.widths})
    # One lag of all sums is cheaper than one for each; before the first row they are zero.
    nothing = F.struct(*[F.lit(0.0).alias(n) for n in names])
    rows = rows.select(
        "*",
        *[F.coalesce(F.lag("sums", w).over(window), nothing).alias(f"sums_{w}") for w in widths],
    )
    return _with_results(rows, asked, kept, grid=2.0 ** _bits(most_rows)[0])


def _bits(most_rows: int) -> tuple[int, int]:
    """Of a fraction whose square can be summed over so many rows without rounding, and of one that
    can itself."""
    rest = _MANTISSA - math.ceil(math.log2(max(2, most_rows)))
    return rest // 2, rest


def _with_parts(rows: DataFrame, asked: Moments, most_rows: int) -> DataFrame:
    """Append the columns that are summed. Each step has names of its own, so that Spark computes
    it once."""
    from pyspark.sql import functions as F

    a_bits, rest = _bits(most_rows)
    b_bits, l_bits, d_bits = 2 * a_bits + 1, a_bits + 1 + rest, 2 * a_bits + rest
    name = asked.column
    u = F.coalesce(F.col(name), F.lit(0.0))
    if asked.outliers:
        far = F.abs(u) > 1
        rows = rows.withColumns(
            {
                f"{name}_u": F.when(far, 0.0).otherwise(u),
                f"{name}_out": F.when(far, u).otherwise(0.0),
            }
        )
        outlier = F.col(f"{name}_out")
        rows = rows.withColumn(f"{name}_o", _on_grid(outlier, _COARSE_OUTLIER))
        rows = rows.withColumn(f"{name}_of", outlier - F.col(f"{name}_o"))
        if asked.spreads:
            rows = rows.withColumn(f"{name}_q", _on_grid(outlier * outlier, _COARSE_OUTLIER))
            rows = rows.withColumn(f"{name}_qf", outlier * outlier - F.col(f"{name}_q"))
    else:
        rows = rows.withColumn(f"{name}_u", u)
    a, b, low = (F.col(f"{name}_{part}") for part in ("a", "b", "l"))
    rows = rows.withColumn(f"{name}_a", _on_grid(F.col(f"{name}_u"), 2.0**a_bits))
    rows = rows.withColumn(f"{name}_rest", F.col(f"{name}_u") - a)
    fine = F.col(f"{name}_rest")
    rows = rows.withColumn(
        f"{name}_b", _on_grid(fine, 2.0 ** (b_bits if asked.spreads else l_bits))
    )
    if asked.spreads:
        rows = rows.withColumn(f"{name}_l", _on_grid(fine - b, 2.0**l_bits))
        rows = rows.withColumn(f"{name}_x", 2 * a * low + (b + low) * (b + low))
        rows = rows.withColumn(f"{name}_d", _on_grid(F.col(f"{name}_x"), 2.0**d_bits))
        rows = rows.withColumns(
            {
                f"{name}_f": F.col(f"{name}_x") - F.col(f"{name}_d"),
                f"{name}_aa": a * a,
                f"{name}_ab": 2 * a * b,
            }
        )
    return rows


def _with_results(
    rows: DataFrame, asked: Sequence[Moments], kept: list[str], *, grid: float
) -> DataFrame:
    from pyspark.sql import functions as F

    def part(each: Moments, name: str, width: int) -> Column:
        return F.col(f"{each.column}_{name}_{width}")

    # Three steps, each with its own names: what is used twice is computed once.
    rows = rows.select(
        *kept,
        *[
            (F.col(f"sums.{name}") - F.col(f"sums_{w}.{name}")).alias(f"{name}_{w}")
            for each in asked
            for w in each.widths
            for name in each.sums
        ],
    )
    spreads = [(each, w) for each in asked for w in each.spreads]
    rows = rows.select(
        "*", *[_on_grid(part(e, "a", w) / w, grid).alias(f"{e.column}_m_{w}") for e, w in spreads]
    )

    def beyond(each: Moments, width: int) -> Column:
        """Of the window's sum less w m: exact, but for the smallest parts."""
        a, b, low, m = (part(each, name, width) for name in ("a", "b", "l", "m"))
        off = ((a - width * m) + b) + low
        return off + part(each, "o", width) + part(each, "of", width) if each.outliers else off

    rows = rows.select("*", *[beyond(e, w).alias(f"{e.column}_e_{w}") for e, w in spreads])

    def centred(each: Moments, width: int) -> Column:
        a, b, low, m, e = (part(each, name, width) for name in ("a", "b", "l", "m", "e"))
        exact = (part(each, "aa", width) - 2 * m * a) + width * m * m
        exact = exact + (part(each, "ab", width) - 2 * m * b)
        rest = (part(each, "d", width) - 2 * m * low) + part(each, "f", width)
        if each.outliers:
            o = part(each, "o", width) + part(each, "of", width)
            rest = rest + ((part(each, "q", width) - 2 * m * o) + part(each, "qf", width))
        return F.greatest((exact + rest) - e * e / width, F.lit(0.0))

    def average(each: Moments, width: int) -> Column:
        total = part(each, "b", width)
        if each.spreads:
            total = total + part(each, "l", width)
        total = part(each, "a", width) + total
        if each.outliers:
            total = total + (part(each, "o", width) + part(each, "of", width))
        return total / width

    return rows.select(
        *kept,
        *[average(each, w).alias(mean(each.column, w)) for each in asked for w in each.means],
        *[centred(each, w).alias(squares(each.column, w)) for each, w in spreads],
    )


def _on_grid(value: Column, per_unit: float) -> Column:
    """Rounded to a multiple of 1 / per_unit, a power of two."""
    from pyspark.sql import functions as F

    return F.rint(value * per_unit) * (1 / per_unit)
