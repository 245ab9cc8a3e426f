"""Means and spreads of trailing windows by running sums that lose nothing.

A window's sum is the difference of two running sums: constant work a row, whatever the width. But
plain running sums in double lose the digits of quiet stretches beside wild ones. So each number u
is cut into a + high + low on three fixed grids, each finer than the one before by as many bits as
can be summed twice over a block, and its square, a whole multiple of the finest grid's square, into
four numbers on grids of their own: aa, ab, d and f, such that the sums of each over a block are
below 2^53 of its grid. All of these sums, and so the differences of two, are exact.

The spread is the centred sum of squares around m, the window's mean, which is taken off grid by
grid: what cancels does so exactly, and only the last addition rounds. (The idea of fixed grids is
that of reproducible summation: J. Demmel, H. D. Nguyen, "Fast Reproducible Floating-Point
Summation", ARITH 2013.)

That holds for numbers in [-1, 1]. Of larger ones (rare: a price that jumps) the whole part of a has
its share of the square in a sum of its own, q, and those that no grid holds are kept out of all of
these, in plain sums beside them: the windows without such a number don't see them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

_MANTISSA = 53
# Squares of outliers up to here are summed exactly while there are a few hundred of the largest.
_HUGE = 2.0**14
_FEWEST_ROWS = 2**16


@dataclass(frozen=True)
class Moments:
    """The windows asked for of a column of doubles: `means` and `spreads` are widths in rows.

    Values are in [-1, 1] but for outliers. `rest` names a column with what `column` was rounded off
    by, if that is known: it counts as far as the finest grid goes. For means alone the only grid
    has `per_unit` steps to 1, a power of two, and outliers are those beyond 2^50 steps. Nulls count
    as zero.
    """

    column: str
    means: tuple[int, ...] = ()
    spreads: tuple[int, ...] = ()
    rest: str | None = None
    per_unit: float | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(sorted({*self.means, *self.spreads}))

    @property
    def sums(self) -> list[str]:
        """The columns that are summed."""
        parts = ["a", "b", "huge"]
        if self.spreads:
            parts += ["huge2", "q", "aa", "ab", "d", "f"]
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

    columns = {name for each in asked for name in (each.column, each.rest)}
    kept = [name for name in rows.columns if name not in columns]
    for each in asked:
        rows = _with_parts(rows, each, most_rows)
    names = [name for each in asked for name in each.sums]
    until_here = window.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    further = running or {}
    rows = rows.select(
        *kept,
        *[column.alias(name) for name, column in further.items()],
        # Of what can't be null Java code is half as long, and stays below what Java compiles.
        F.struct(
            *[F.coalesce(F.sum(n).over(until_here), F.lit(0.0)).alias(n) for n in names]
        ).alias("sums"),
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
    """How many steps there are to 1 on the grids of a, high and low, and on those of the sums of
    squares: aa, ab, d. That of f is the square of `low`'s."""

    a: float
    high: float
    low: float
    aa: float
    ab: float
    d: float


def _grids(most_rows: int) -> _Grids:
    # So many bits can be summed over so many rows without rounding: half of them can be squared.
    # Fewer rows would allow finer grids, and leave fewer digits to numbers beyond 1.
    bits = _MANTISSA - math.ceil(math.log2(max(_FEWEST_ROWS, most_rows)))
    half = bits // 2
    # |high| is up to half a step of a, |low| half a step of high: 2 a high is on the grid ab,
    # high squared on the grid d, and what is left of the square there, 2 high low + low squared,
    # is a multiple of low's grid squared and at most half a step of d.
    a, high = half, 2 * half + 1
    low = half + 1 + bits
    return _Grids(*(2.0**n for n in (a, high, low, 2 * a, a + high - 1, 2 * high)))


def _with_parts(rows: DataFrame, asked: Moments, most_rows: int) -> DataFrame:
    """Append the columns that are summed. Each step has names of its own, so that Spark computes
    it once."""
    from pyspark.sql import functions as F

    grids, zero = _grids(most_rows), F.lit(0.0)
    name = asked.column

    def part(of: str) -> Column:
        return F.col(f"{name}_{of}")

    def with_parts(**parts: Column) -> DataFrame:
        return rows.withColumns({f"{name}_{of}": value for of, value in parts.items()})

    per_unit = grids.a if asked.spreads else asked.per_unit or grids.aa
    most = _HUGE if asked.spreads else 2.0**50 / per_unit
    rows = with_parts(all=F.coalesce(F.col(name), zero))
    rows = with_parts(huge=F.when(F.abs(part("all")) > most, part("all")).otherwise(zero))
    rows = with_parts(u=part("all") - part("huge"))
    u, a, b, huge = part("u"), part("a"), part("b"), part("huge")
    rows = with_parts(a=_on_grid(u, per_unit))
    if not asked.spreads:
        return with_parts(b=u - a)
    rest = zero if asked.rest is None else F.coalesce(F.col(asked.rest), zero)
    rest = F.when(huge == zero, rest).otherwise(zero)
    rows = with_parts(b=_on_grid((u - a) + rest, grids.low), huge2=huge * huge)
    rows = with_parts(high=_on_grid(b, grids.high))
    rows = with_parts(low=b - part("high"))
    high, low = part("high"), part("low")
    # The square, (a + high + low)², product by product; what is beyond a grid goes to the next.
    rows = with_parts(ah=2 * a * high, al=2 * a * low, hl=2 * high * low, ll=low * low)
    ah, al, hl, ll = (part(product) for product in ("ah", "al", "hl", "ll"))
    rows = with_parts(al_up=_on_grid(al, grids.ab), hl_up=_on_grid(hl + ll, grids.d))
    rows = with_parts(
        d=(al - part("al_up")) + high * high + part("hl_up"), f=(hl - part("hl_up")) + ll
    )
    rows = with_parts(whole=_on_grid(a, 1.0), ah_up=_on_grid(ah, grids.aa))
    whole, ah_up = part("whole"), part("ah_up")
    rows = with_parts(less=a - whole)
    less = part("less")
    return with_parts(q=whole * (a + less), aa=less * less + ah_up, ab=(ah - ah_up) + part("al_up"))


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

    def with_steps(**steps: Callable[[Moments, int], Column]) -> DataFrame:
        named = [
            of(e, w).alias(f"{e.column}_{name}_{w}")
            for name, of in steps.items()
            for e, w in spreads
        ]
        return rows.select("*", *named)

    # m on the grid of a, b's sum cut at the grid of high; the sum of what is left without m; then
    # m2, the next part of the mean, and what that leaves.
    rows = with_steps(
        m=lambda e, w: _on_grid(part(e, "a", w) * (1 / w), grids.a),
        h=lambda e, w: _on_grid(part(e, "b", w), grids.high),
    )
    rows = with_steps(e=lambda e, w: (part(e, "a", w) - w * part(e, "m", w)) + part(e, "b", w))
    rows = with_steps(m2=lambda e, w: _on_grid(part(e, "e", w) * (1 / w), grids.high))
    rows = with_steps(e2=lambda e, w: part(e, "e", w) - w * part(e, "m2", w))

    def centred(each: Moments, width: int) -> Column:
        a, b, h, m, m2, e2 = (part(each, n, width) for n in ("a", "b", "h", "m", "m2", "e2"))
        huge, huge2 = part(each, "huge", width), part(each, "huge2", width)
        # From the coarsest grid to the finest: wherever what is left is small, each step is exact.
        left = part(each, "q", width) + part(each, "aa", width)
        left = left - m * (2 * a - width * m)
        left = left + (part(each, "ab", width) - 2 * m * h)
        left = left + (part(each, "d", width) - 2 * m * (b - h) - width * m2 * m2)
        left = left - 2 * m2 * e2
        left = left + (part(each, "f", width) - e2 * e2 / width)
        left = left + (huge2 - huge * (huge + 2 * (a + b)) * (1 / width))
        return F.greatest(left, F.lit(0.0))

    def average(each: Moments, width: int) -> Column:
        a, b, huge = (part(each, name, width) for name in ("a", "b", "huge"))
        return (a + b + huge) / width

    return rows.select(
        *kept,
        *[average(each, w).alias(mean(each.column, w)) for each in asked for w in each.means],
        *[centred(each, w).alias(squares(each.column, w)) for each, w in spreads],
    )


def _on_grid(value: Column, per_unit: float) -> Column:
    """Rounded to a multiple of 1 / per_unit, a power of two, to even where two are as near.

    Exactly that below 2^51 of them; of larger numbers some last bits are left. Adding a large
    number cuts those bits off in half the time that rounding takes.
    """
    from pyspark.sql import functions as F

    large = F.lit(1.5 * 2.0 ** (_MANTISSA - 1) / per_unit)
    return (value + large) - large
