"""An output at cuts of its input: what changes with later input, counted in Spark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Literal

from bitstorm.core.console import Console
from bitstorm.core.time import Span, iso
from bitstorm.indicators.lookahead import (
    KEY,
    Tolerance,
    altered_after,
    compared_cells,
    counted,
    first_changed,
    known_at,
    newest_known,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


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
    """The end of the input up to each cut, ms UTC, in one job."""
    cuts = [cut_ms for cut_ms, _ in places]
    if not cuts:
        return []
    (row,) = newest_known(observations, cuts_ms=cuts, step_ms=step_ms).collect()
    return [(row[f"last_{n}"], row[f"complete_{n}"]) for n in range(len(cuts))]


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
