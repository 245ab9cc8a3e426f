"""Means and spreads of trailing windows by running sums that lose nothing.

A window's sum is the difference of two running sums: constant work a row, whatever the width. But
plain running sums in double lose the digits of quiet stretches beside wild ones. So each number u
in [-1, 1] is cut into a + b + l on three fixed grids, each so much finer than the one before that
the sums of a, of b + l, of a² and of 2ab over a block are whole multiples of their grid below 2^53
of it: exact in double. The rest of the square, 2al + (b + l)², is cut again in d + f, where sums of
d are exact and f is so small that what its sums lose does not matter. Numbers beyond 1 (rare: a
price that jumps) have their squares on a coarse grid of their own, q, and what that leaves goes to
the 2ab: these sums are exact, too, so that they do not spoil the windows without them; windows with
them keep what a plain sum keeps.

The spread is the centred sum of squares around m, the window's mean of a rounded to the grid:
sum (u - m)² - n (mean - m)², in which the exact parts cancel exactly. (The idea of fixed grids is
that of reproducible summation: J. Demmel, H. D. Nguyen, "Fast Reproducible Floating-Point
Summation", ARITH 2013.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

_MANTISSA = 53
# Squares of outliers, whose sum over a block has to stay below 2^33: thousands of jumps by 100.
_COARSE_SQUARE = 2.0**20


@dataclass(frozen=True)
class Moments:
    """The windows asked for of a column of doubles: `means` and `spreads` are widths in rows.

    `outliers` allows values beyond [-1, 1], up to 2^16; without it there must be none. For means
    alone the values may be any: `per_unit`, a power of two, is how many steps of the only grid
    there are to 1. Nulls count as zero.
    """

    column: str
    means: tuple[int, ...] = ()
    spreads: tuple[int, ...] = ()
    outliers: bool = False
    per_unit: float | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(sorted({*self.means, *self.spreads}))

    @property
    def sums(self) -> list[str]:
        """The columns that are summed."""
        parts = ["a", "b"]
        if self.spreads:
            parts += ["aa", "ab", "d", "f"]
            parts += ["q"] if self.outliers else []
        return [f"{self.column}_{part}" for part in parts]


def mean(column: str, width: int) -> str:
    """The name of the column that `with_moments` appends for a mean."""
    return f"{column}_mean_{width}"


def squares(column: str, width: int) -> str:
    """The name of the column for a centred sum of squares: over n - 1 it is the variance."""
    return f"{column}_squares_{width}"


def with_moments(
    rows: DataFrame,
    asked: Sequence[Moments],
    *,
    window: WindowSpec,
    most_rows: int,
    running: Mapping[str, Column] | None = None,
) -> DataFrame:
    """Append `mean(column, w)` and `squares(column, w)` (double) for the last w rows of `window`.

    `window` is partitioned and ordered; no partition has more than `most_rows` rows. Where it has
    fewer than w rows up to a row, the sums are of those: the caller knows which rows count.
    `running` names further columns over the same window, so that they cost no operator of their
    own. A column that is asked for is not kept unless `running` has it.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    columns = {each.column for each in asked}
    kept = [name for name in rows.columns if name not in columns]
    for each in asked:
        rows = _with_parts(rows, each, most_rows)
    names = [name for each in asked for name in each.sums]
    until_here = window.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    further = running or {}
    rows = rows.select(
        *kept,
        *[column.alias(name) for name, column in further.items()],
        F.struct(*[F.sum(n).over(until_here).alias(n) for n in names]).alias("sums"),
    )
    kept += further
    widths = sorted({width for each in asked for width in each.widths})
    # One lag of all sums is cheaper than one for each; before the first row they are zero.
    nothing = F.struct(*[F.lit(0.0).alias(n) for n in names])
    rows = rows.select(
        "*",
        *[F.coalesce(F.lag("sums", w).over(window), nothing).alias(f"sums_{w}") for w in widths],
    )
    return _with_results(rows, asked, kept, most_rows)


@dataclass(frozen=True)
class _Grids:
    """How many steps there are to 1 on the grids of a, b, l and d."""

    a: float
    b: float
    low: float
    d: float


def _grids(most_rows: int) -> _Grids:
    # Of a fraction that can be summed over so many rows without rounding, half that its square can.
    rest = _MANTISSA - math.ceil(math.log2(max(2, most_rows)))
    half = rest // 2
    return _Grids(
        2.0**half, 2.0 ** (2 * half + 1), 2.0 ** (half + 1 + rest), 2.0 ** (2 * half + rest)
    )


def _with_parts(rows: DataFrame, asked: Moments, most_rows: int) -> DataFrame:
    """Append the columns that are summed. Each step has names of its own, so that Spark computes
    it once."""
    from pyspark.sql import functions as F

    grids = _grids(most_rows)
    name = asked.column
    rows = rows.withColumn(f"{name}_u", F.coalesce(F.col(name), F.lit(0.0)))
    u, a = F.col(f"{name}_u"), F.col(f"{name}_a")
    if not asked.spreads:
        per_unit = asked.per_unit or grids.a * grids.a
        return rows.withColumn(f"{name}_a", _on_grid(u, per_unit)).withColumn(f"{name}_b", u - a)
    rows = rows.withColumn(f"{name}_a", _on_grid(u, grids.a))
    rows = rows.withColumn(f"{name}_b", _on_grid(u - a, grids.low))
    both = F.col(f"{name}_b")
    rows = rows.withColumn(f"{name}_high", _on_grid(both, grids.b))
    high = F.col(f"{name}_high")
    product, rest = 2 * a * high, 2 * a * (both - high) + both * both
    if not asked.outliers:
        rows = rows.withColumns({f"{name}_aa": a * a, f"{name}_ab": product, f"{name}_x": rest})
    else:
        far, nothing = F.col(f"{name}_far"), F.lit(0.0)
        rows = rows.withColumn(f"{name}_far", F.abs(u) > 1)
        rows = rows.withColumn(
            f"{name}_q", F.when(far, _on_grid(u * u, _COARSE_SQUARE)).otherwise(nothing)
        )
        left = _on_grid(u * u - F.col(f"{name}_q"), grids.a * grids.b / 2)
        rows = rows.withColumns(
            {
                f"{name}_aa": F.when(far, nothing).otherwise(a * a),
                f"{name}_ab": F.when(far, left).otherwise(product),
                f"{name}_x": F.when(far, nothing).otherwise(rest),
            }
        )
    rows = rows.withColumn(f"{name}_d", _on_grid(F.col(f"{name}_x"), grids.d))
    return rows.withColumn(f"{name}_f", F.col(f"{name}_x") - F.col(f"{name}_d"))


def _with_results(
    rows: DataFrame, asked: Sequence[Moments], kept: list[str], most_rows: int
) -> DataFrame:
    from pyspark.sql import functions as F

    grids = _grids(most_rows)

    def part(each: Moments, name: str, width: int) -> Column:
        return F.col(f"{each.column}_{name}_{width}")

    # Steps, each with its own names: what is used twice is computed once.
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
        "*",
        *[_on_grid(part(e, "a", w) / w, grids.a).alias(f"{e.column}_m_{w}") for e, w in spreads],
        *[_on_grid(part(e, "b", w), grids.b).alias(f"{e.column}_h_{w}") for e, w in spreads],
    )
    # The window's sum less w m: exact, but for the smallest parts.
    rows = rows.select(
        "*",
        *[
            ((part(e, "a", w) - w * part(e, "m", w)) + part(e, "b", w)).alias(f"{e.column}_e_{w}")
            for e, w in spreads
        ],
    )

    def centred(each: Moments, width: int) -> Column:
        a, b, high, m, e = (part(each, name, width) for name in ("a", "b", "h", "m", "e"))
        exact = (part(each, "aa", width) - 2 * m * a) + width * m * m
        exact = exact + (part(each, "ab", width) - 2 * m * high)
        if each.outliers:
            exact = exact + part(each, "q", width)
        rest = (part(each, "d", width) - 2 * m * (b - high)) + part(each, "f", width)
        return F.greatest((exact + rest) - e * e / width, F.lit(0.0))

    return rows.select(
        *kept,
        *[
            ((part(each, "a", w) + part(each, "b", w)) / w).alias(mean(each.column, w))
            for each in asked
            for w in each.means
        ],
        *[centred(each, w).alias(squares(each.column, w)) for each, w in spreads],
    )


def _on_grid(value: Column, per_unit: float) -> Column:
    """Rounded to a multiple of 1 / per_unit, a power of two."""
    from pyspark.sql import functions as F

    return F.rint(value * per_unit) * (1 / per_unit)
