"""Look-ahead: compares two outputs up to a cut, a time after which their inputs differ.

Without look-ahead no value up to the cut changes. One input ends at the cut: that shows rows and
values that wait for later input. The other has altered prices after the cut: that shows later
prices in rows that exist only with later input, such as a hole that is filled backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Literal

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from bitstorm.core.console import Console
from bitstorm.core.errors import DataError
from bitstorm.core.time import Span, duration_text, iso
from bitstorm.spark.stage import kept

# As the `column` of a cell, the key means the whole row.
KEY = "timestamp"
PLANTED = "planted_next_price"


def only_until(prices: DataFrame, *, cut_ms: int) -> DataFrame:
    """The observations up to the cut (ms UTC), including the cut."""
    return prices.where(F.col(KEY) <= cut_ms)


def with_altered_prices(prices: DataFrame, *, cut_ms: int) -> DataFrame:
    """The observations with each `price` after the cut multiplied by 1.5 to 2.5.

    The factor depends on the time, so differences and ratios of later prices change, too.
    """
    factor = 1.5 + F.pmod(F.xxhash64(KEY), F.lit(1000)) / 1000
    other = (F.col("price") * factor).cast(prices.schema["price"].dataType)
    return prices.withColumn("price", F.when(F.col(KEY) <= cut_ms, F.col("price")).otherwise(other))


def newest_known(prices: DataFrame, *, cuts_ms: Sequence[int], step_ms: int) -> DataFrame:
    """One row with two columns for cut N, both int64 ms UTC and null where there is none.

    `last_N` is the time of the newest observation up to the cut. `complete_N` is the newest label
    of a bucket (label - step, label] with an observation up to the cut and an observation at the
    label or later, so that its price can't change.
    """
    time = F.col(KEY)
    newest = prices.agg(
        *[F.max(F.when(time <= cut, time)).alias(f"last_{n}") for n, cut in enumerate(cuts_ms)]
    )
    # All buckets up to the last whole step are complete.
    whole = [F.expr(f"last_{n} div {step_ms}") * step_ms for n in range(len(cuts_ms))]
    label = F.ceil(time / F.lit(step_ms)) * step_ms
    complete = [
        F.max(F.when(time <= until, label)).alias(f"complete_{n}") for n, until in enumerate(whole)
    ]
    return prices.crossJoin(F.broadcast(newest)).groupBy(*newest.columns).agg(*complete)


def compared_cells(whole: DataFrame, again: DataFrame, *, last_ms: int) -> DataFrame:
    """Cells of two outputs up to `last_ms`, both keyed by a unique `timestamp` (ms UTC).

    Columns `timestamp`, `column`, `whole`, `again` (values as text) and `changed`. Each row of
    either side has one cell named `timestamp`, changed where the other side lacks the row. A row of
    both sides has a changed cell for each column whose values differ, to the last bit. Raises
    ValueError for different columns.
    """
    if whole.schema.simpleString() != again.schema.simpleString():
        raise ValueError(
            f"found {again.schema.simpleString()}, expected {whole.schema.simpleString()}: "
            "the outputs of one computation have the same columns"
        )
    names = [name for name in whole.columns if name != KEY]

    def side(frame: DataFrame, name: str) -> DataFrame:
        return frame.where(F.col(KEY) <= last_ms).select(KEY, F.struct(KEY, *names).alias(name))

    rows = side(whole, "whole").join(side(again, "again"), KEY, "full_outer")
    both = F.col("whole").isNotNull() & F.col("again").isNotNull()

    def cell(name: str, changed: Column) -> Column:
        return F.struct(
            F.lit(name).alias("column"),
            F.col(f"whole.{name}").cast("string").alias("whole"),
            F.col(f"again.{name}").cast("string").alias("again"),
            changed.alias("changed"),
        )

    def value(name: str) -> Column:
        return cell(name, both & ~F.col(f"whole.{name}").eqNullSafe(F.col(f"again.{name}")))

    cells = F.filter(
        F.array(cell(KEY, ~both), *map(value, names)),
        lambda one: (one["column"] == KEY) | one["changed"],
    )
    return rows.select(KEY, F.inline(cells))


def change_counts(cells: DataFrame) -> DataFrame:
    """For each `column` the number of `cells` and of `changed` ones; `timestamp` counts rows."""
    changed = F.sum(F.col("changed").cast("bigint"))
    return cells.groupBy("column").agg(F.count("*").alias("cells"), changed.alias("changed"))


def first_changed(cells: DataFrame, *, count: int) -> DataFrame:
    """The oldest changed cells."""
    return cells.where("changed").orderBy(KEY, "column").limit(count)


def with_next_price(points: DataFrame) -> DataFrame:
    """Add `planted_next_price`, the price one step ahead: a look-ahead that the check must find."""
    # The whole series is one partition; a constant key avoids Spark's warning about an empty one.
    series = Window.partitionBy(F.lit(0)).orderBy(KEY)
    return points.withColumn(PLANTED, F.lead("price").over(series))


SHOWN = 5
# Observations and the time of the newest one (ms UTC) → output.
Compute = Callable[[DataFrame, int], DataFrame]
Place = Literal["after a hole", "inside a bucket", "random"]
# `last_N` and `complete_N` of `newest_known`.
End = tuple[int | None, int | None]


@dataclass(frozen=True)
class Change:
    """A value up to a cut that changes with later input, as text, None for null. `column` is
    `timestamp` where only one side has the row."""

    timestamp: int
    column: str
    whole: str | None
    again: str | None


@dataclass(frozen=True)
class Compared:
    """Compared `rows`, `changed` values by column, and the `first` (oldest) few changes."""

    rows: int
    changed: dict[str, int]
    first: tuple[Change, ...]


@dataclass(frozen=True)
class Cut:
    """Comparisons with the output of the whole input: for the input up to `time_ms` (`truncated`),
    and for the input with altered prices after it (`altered`)."""

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
    """Random times to cut at (ms UTC), oldest first: the first observation after a hole and a time
    inside a bucket, where there are such; the others anywhere.

    `slots` are the spans of the grid that have observations. A hole that cuts the series is
    preferred to one with imputed points.
    """
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
        # Before the last step: a later cut would remove no input.
        first, last = slots[0].start, slots[-1].end - step_ms
        while len(drawn) < count:
            drawn.append((random.randrange(first, max(last, first + 1)), "random"))
    return sorted(drawn[:count])


def ends_of(
    observations: DataFrame, places: Sequence[tuple[int, Place]], step_ms: int
) -> list[End]:
    """The end of the input up to each cut (ms UTC), in one Spark job. Raises DataError where no cut
    has a whole step before it."""
    cuts = [cut_ms for cut_ms, _ in places]
    ends: list[End] = []
    if cuts:
        (row,) = newest_known(observations, cuts_ms=cuts, step_ms=step_ms).collect()
        ends = [(row[f"last_{n}"], row[f"complete_{n}"]) for n in range(len(cuts))]
    if all(complete_ms is None for _, complete_ms in ends):
        raise DataError(
            f"no cut has a whole step of {duration_text(step_ms)} before it, so there is "
            "nothing to compare: use more cuts (--cuts), more prices, or a finer grid.frequency"
        )
    return ends


def compare_cuts(
    observations: DataFrame,
    compute: Compute,
    places: Sequence[tuple[int, Place]],
    ends: Sequence[End],
    *,
    last_ms: int,
    console: Console,
    cache: Path,
) -> tuple[int, tuple[str, ...], list[Cut]]:
    """The number of rows and the columns of the whole output, and the comparisons for each cut.

    Spark compares; the driver gets a count for each column and a few changed cells.
    """
    with kept(compute(observations, last_ms), cache) as whole:
        with console.stage("whole") as say:
            rows = whole.count()
            say(f"{rows:,} rows of {len(whole.columns)} columns")
        found = []
        for number, ((cut_ms, place), end) in enumerate(zip(places, ends, strict=True), start=1):
            with console.stage(f"cut {number}/{len(places)}") as say:
                shorter = _compare_truncated(whole, observations, compute, cut_ms, end, cache)
                # A point up to the cut holds no observation after it.
                altered = compute(with_altered_prices(observations, cut_ms=cut_ms), last_ms)
                other = _compare(whole, altered, cut_ms)
                cut = Cut(cut_ms, place, shorter, other)
                changed = ", ".join(sorted(cut.changed)) or "nothing"
                say(f"{iso(cut_ms)}, {place}: {changed} changed")
            found.append(cut)
        return rows, tuple(name for name in whole.columns if name != KEY), found


def _compare_truncated(
    whole: DataFrame, observations: DataFrame, compute: Compute, cut_ms: int, end: End, cache: Path
) -> Compared:
    """Compare up to the last label that the shorter input has, or should have: a missing row that
    waits for later input is a change, too."""
    last_ms, complete_ms = end
    if last_ms is None:
        return Compared(0, {}, ())
    with kept(compute(only_until(observations, cut_ms=cut_ms), last_ms), cache) as part:
        (row,) = part.agg(F.max(KEY)).collect()
        labels = [last for last in (row[0], complete_ms) if last is not None]
        if not labels:
            return Compared(0, {}, ())
        return _compare(whole, part, max(labels))


def _compare(whole: DataFrame, again: DataFrame, last_ms: int) -> Compared:
    cells = compared_cells(whole, again, last_ms=last_ms)
    counts = {row["column"]: row for row in change_counts(cells).collect()}
    changed = {name: int(row["changed"]) for name, row in sorted(counts.items()) if row["changed"]}
    first = first_changed(cells, count=SHOWN).collect() if changed else []
    return Compared(
        rows=int(counts[KEY]["cells"]) if KEY in counts else 0,
        changed=changed,
        first=tuple(Change(row[KEY], row["column"], row["whole"], row["again"]) for row in first),
    )
