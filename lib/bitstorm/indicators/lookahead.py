"""Whether an output knows what comes later: two outputs side by side, up to a moment.

Of an honest output nothing up to a cut changes when the input after it is taken away, or is
another. Taken away shows rows and values that wait for later input; another input shows values that
come from it in rows that are only there because of it, such as a hole that is filled backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Literal

from bitstorm.core.console import Console
from bitstorm.core.errors import DataError
from bitstorm.core.time import Span, duration_text, iso

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


# The row itself stands under the key's name: it is there on one side alone.
KEY = "timestamp"
PLANTED = "planted_next_price"


@dataclass(frozen=True)
class Tolerance:
    """Numbers a, b are the same where |a - b| <= max(relative * min(|a|, |b|), absolute * unit).

    The unit of a column is what its row has in the column that `units` names for it, else 1: a
    difference of prices is as small as they are, and is held to a share of them. Zero for both asks
    for the same bits.
    """

    relative: float = 1e-12
    absolute: float = 1e-12
    units: Mapping[str, str] = field(
        default_factory=lambda: {"macd": "price", "macd_signal": "price"}
    )


def known_at(prices: DataFrame, *, cut_ms: int) -> DataFrame:
    """The observations up to the cut (ms UTC), itself included."""
    from pyspark.sql import functions as F

    return prices.where(F.col(KEY) <= cut_ms)


def altered_after(prices: DataFrame, *, cut_ms: int) -> DataFrame:
    """The observations with each `price` after the cut 1.5 to 2.5 times what it was.

    The factor is a function of the time, so differences and ratios of later prices change, too.
    """
    from pyspark.sql import functions as F

    factor = 1.5 + F.pmod(F.xxhash64(KEY), F.lit(1000)) / 1000
    other = (F.col("price") * factor).cast(prices.schema["price"].dataType)
    return prices.withColumn("price", F.when(F.col(KEY) <= cut_ms, F.col("price")).otherwise(other))


def newest_known(prices: DataFrame, *, cuts_ms: Sequence[int], step_ms: int) -> DataFrame:
    """One row with a column for each place in `cuts_ms`: of the observations up to that cut the
    newest one's time as `last_N`, and as `complete_N` the newest label (label - step, label] with
    an observation in it whose price can't change any more: something is observed at the label or
    after it. Both int64 ms UTC, null where there is none."""
    from pyspark.sql import functions as F

    time = F.col(KEY)
    newest = prices.agg(
        *[F.max(F.when(time <= cut, time)).alias(f"last_{n}") for n, cut in enumerate(cuts_ms)]
    )
    # Of what lies behind the last whole step all buckets are complete.
    whole = [F.expr(f"last_{n} div {step_ms}") * step_ms for n in range(len(cuts_ms))]
    label = F.ceil(time / F.lit(step_ms)) * step_ms
    complete = [
        F.max(F.when(time <= until, label)).alias(f"complete_{n}") for n, until in enumerate(whole)
    ]
    return prices.crossJoin(F.broadcast(newest)).groupBy(*newest.columns).agg(*complete)


def compared_cells(
    whole: DataFrame, again: DataFrame, *, last_ms: int, tolerance: Tolerance
) -> DataFrame:
    """Cells of two outputs up to `last_ms`, both keyed by a unique `timestamp` (ms UTC).

    Columns `timestamp`, `column`, `whole`, `again` (values as text) and `changed`. There is one
    cell named `timestamp` for every row of either side, changed where the other side lacks the row;
    of rows that both have, the other cells are there where the values are not exactly the same, and
    changed where they differ by more than the tolerance, or one of them is null. Raises ValueError
    where the two have other columns.
    """
    from pyspark.sql import functions as F

    if whole.schema.simpleString() != again.schema.simpleString():
        raise ValueError(
            f"found {again.schema.simpleString()}, expected {whole.schema.simpleString()}: "
            "the outputs of one computation have the same columns"
        )
    names = [name for name in whole.columns if name != KEY]

    def side(frame: DataFrame, name: str) -> DataFrame:
        kept = frame.where(F.col(KEY) <= last_ms)
        return kept.select(KEY, F.struct(KEY, *names).alias(name))

    rows = side(whole, "whole").join(side(again, "again"), KEY, "full_outer")
    both = F.col("whole").isNotNull() & F.col("again").isNotNull()

    def cell(name: str, apart: Column, changed: Column) -> Column:
        return F.struct(
            F.lit(name).alias("column"),
            F.col(f"whole.{name}").cast("string").alias("whole"),
            F.col(f"again.{name}").cast("string").alias("again"),
            changed.alias("changed"),
            apart.alias("apart"),
        )

    def value(name: str) -> Column:
        a, b = F.col(f"whole.{name}"), F.col(f"again.{name}")
        apart = both & ~a.eqNullSafe(b)
        number = whole.schema[name].dataType.simpleString() in ("float", "double")
        if not number:
            return cell(name, apart, apart)
        unit = tolerance.units.get(name)
        one = F.abs(F.col(f"whole.{unit}").cast("double")) if unit in names else F.lit(1.0)
        return cell(name, apart, apart & ~_near(a, b, tolerance, one))

    row = cell(KEY, F.lit(True), ~both)
    cells = F.filter(F.array(row, *map(value, names)), lambda one: one["apart"])
    return rows.select(KEY, F.inline(cells)).drop("apart")


def counted(cells: DataFrame) -> DataFrame:
    """`column`, `cells` and how many of them `changed`: that of `timestamp` counts the rows."""
    from pyspark.sql import functions as F

    changed = F.sum(F.col("changed").cast("bigint"))
    return cells.groupBy("column").agg(F.count("*").alias("cells"), changed.alias("changed"))


def first_changed(cells: DataFrame, *, count: int) -> DataFrame:
    """The oldest changed cells."""
    return cells.where("changed").orderBy(KEY, "column").limit(count)


def with_next_price(points: DataFrame) -> DataFrame:
    """Add `planted_next_price`, the price one step ahead: what a check for look-ahead must find."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    # One series is one ordered run; a constant key says so where an empty one would warn.
    series = Window.partitionBy(F.lit(0)).orderBy(KEY)
    return points.withColumn(PLANTED, F.lead("price").over(series))


def _near(a: Column, b: Column, tolerance: Tolerance, unit: Column) -> Column:
    from pyspark.sql import functions as F

    a, b = a.cast("double"), b.cast("double")
    gap = F.abs(a - b)
    # In Spark NaN is above every number and equals itself: the lesser side and the bound on the gap
    # keep a NaN or an infinite number on one side from passing for near.
    scale = F.lit(tolerance.relative) * F.least(F.abs(a), F.abs(b))
    allowed = F.greatest(scale, F.lit(tolerance.absolute) * unit)
    return F.coalesce((gap <= allowed) & (gap < float("inf")), F.lit(False))


SHOWN = 5
# Of observations whose newest one is at the time given (ms UTC).
Compute = Callable[["DataFrame", int], "DataFrame"]
Place = Literal["after a hole", "inside a bucket", "random"]
# Of the input up to a cut: the newest observation's time, and the newest label that is complete.
End = tuple[int | None, int | None]


@dataclass(frozen=True)
class Change:
    """A value up to a cut that is another without, or with other, later input. Values as text,
    None for null; `column` is `timestamp` where the whole row is there on one side only."""

    timestamp: int
    column: str
    whole: str | None
    again: str | None


@dataclass(frozen=True)
class Compared:
    """`rows` were compared; `changed` of them by column; `inexact` values differ within tolerance.

    `first` are the oldest changes, a few of them.
    """

    rows: int
    changed: dict[str, int]
    inexact: int
    first: tuple[Change, ...]


@dataclass(frozen=True)
class Cut:
    """What came of the input up to `time_ms` (`truncated`), and of all of it with other prices
    after that (`altered`), against the whole input's output."""

    time_ms: int
    place: Place
    truncated: Compared
    altered: Compared

    @property
    def changed(self) -> set[str]:
        return {*self.truncated.changed, *self.altered.changed}


def draw_cuts(
    observations: DataFrame,
    *,
    slots: Sequence[Span],
    step_ms: int,
    max_gap: int,
    count: int,
    random: Random,
) -> list[tuple[int, Place]]:
    """Times to cut at, ms UTC, oldest first: one at the first observation after a hole and one
    inside a bucket that goes on, where there are such; the others anywhere.

    `slots` are the spans of the grid that have observations. A hole that cuts the series is taken
    before one that is carried over.
    """
    from pyspark.sql import functions as F

    drawn: list[tuple[int, Place]] = []
    holes = [(then.start - before.end, then.start) for before, then in pairwise(slots)]
    cutting = [after for gap, after in holes if gap > max_gap * step_ms]
    if holes:
        after = random.choice(cutting or [after for _, after in holes])
        (row,) = observations.where(F.col(KEY) >= after).agg(F.min(KEY)).collect()
        drawn.append((int(row[0]), "after a hole"))
    shuffled = F.xxhash64("label", F.lit(random.randrange(2**31)))
    several = (
        observations.groupBy(F.ceil(F.col(KEY) / F.lit(step_ms)).alias("label"))
        .agg(F.min(KEY).alias("first"), F.max(KEY).alias("last"))
        .where(F.col("first") < F.col("last"))
        .orderBy(shuffled, "label")
        .limit(1)
    )
    drawn += [(int(row["first"]), "inside a bucket") for row in several.collect()]
    if slots:
        # Not at the very end: nothing would be taken away.
        first, last = slots[0].start, slots[-1].end - step_ms
        while len(drawn) < count:
            drawn.append((random.randrange(first, max(last, first + 1)), "random"))
    return sorted(drawn[:count])


def ends_of(
    observations: DataFrame, places: Sequence[tuple[int, Place]], step_ms: int
) -> list[End]:
    """The end of the input up to each cut, ms UTC, in one job. Raises DataError where no cut leaves
    a whole step before it."""
    cuts = [cut_ms for cut_ms, _ in places]
    ends: list[End] = []
    if cuts:
        (row,) = newest_known(observations, cuts_ms=cuts, step_ms=step_ms).collect()
        ends = [(row[f"last_{n}"], row[f"complete_{n}"]) for n in range(len(cuts))]
    if all(complete_ms is None for _, complete_ms in ends):
        raise DataError(
            f"no cut leaves a whole step of {duration_text(step_ms)} before it, so there is "
            "nothing to compare: take more cuts (--cuts), more prices, or a finer grid.frequency"
        )
    return ends


def look(
    observations: DataFrame,
    compute: Compute,
    places: Sequence[tuple[int, Place]],
    ends: Sequence[End],
    *,
    last_ms: int,
    tolerance: Tolerance,
    console: Console,
) -> tuple[int, tuple[str, ...], list[Cut]]:
    """Rows and columns of the whole output, and what came of each cut. All of it happens in Spark;
    to the driver come a count for each column and a few changed cells."""
    whole = compute(observations, last_ms).persist()
    try:
        with console.stage("whole") as say:
            rows = whole.count()
            say(f"{rows:,} rows of {len(whole.columns)} columns")
        found = []
        for number, ((cut_ms, place), end) in enumerate(zip(places, ends, strict=True), start=1):
            with console.stage(f"cut {number}/{len(places)}") as say:
                cut = Cut(
                    cut_ms,
                    place,
                    _truncated(whole, observations, compute, cut_ms, end, tolerance),
                    # What is labelled up to the cut holds nothing after it.
                    _compared(
                        whole,
                        compute(altered_after(observations, cut_ms=cut_ms), last_ms),
                        cut_ms,
                        tolerance,
                    ),
                )
                changed = ", ".join(sorted(cut.changed)) or "nothing"
                say(f"{iso(cut_ms)}, {place}: {changed} changed")
            found.append(cut)
        return rows, tuple(name for name in whole.columns if name != KEY), found
    finally:
        whole.unpersist()


def _truncated(
    whole: DataFrame,
    observations: DataFrame,
    compute: Compute,
    cut_ms: int,
    end: End,
    tolerance: Tolerance,
) -> Compared:
    """Up to the last label that the shorter input has, or should have: output that is missing
    because it waits for later input is a change, too."""
    from pyspark.sql import functions as F

    last_ms, complete_ms = end
    if last_ms is None:
        return Compared(0, {}, 0, ())
    part = compute(known_at(observations, cut_ms=cut_ms), last_ms).persist()
    try:
        (row,) = part.agg(F.max(KEY)).collect()
        labels = [last for last in (row[0], complete_ms) if last is not None]
        if not labels:
            return Compared(0, {}, 0, ())
        return _compared(whole, part, max(labels), tolerance)
    finally:
        part.unpersist()


def _compared(whole: DataFrame, again: DataFrame, last_ms: int, tolerance: Tolerance) -> Compared:
    cells = compared_cells(whole, again, last_ms=last_ms, tolerance=tolerance)
    counts = {row["column"]: row for row in counted(cells).collect()}
    changed = {name: int(row["changed"]) for name, row in sorted(counts.items()) if row["changed"]}
    first = first_changed(cells, count=SHOWN).collect() if changed else []
    return Compared(
        rows=int(counts[KEY]["cells"]) if KEY in counts else 0,
        changed=changed,
        inexact=sum(
            int(row["cells"] - row["changed"]) for name, row in counts.items() if name != KEY
        ),
        first=tuple(Change(row[KEY], row["column"], row["whole"], row["again"]) for row in first),
    )
