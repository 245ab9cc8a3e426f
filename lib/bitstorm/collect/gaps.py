"""The slots of a regular grid with and without an observation.

A slot has the name of its end t and holds the observations of (t - step, t], as in the indicators'
grid; as a span it is [t - step, t).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from bitstorm.core.time import HOUR_MS, Span, length, merged, minus, overlap, whole, widened

# open         not fetched yet
# silent       fetched without a price, and not confirmed: fetched again from `next_ms` on
# empty        two answers confirm that the source has nothing there: not fetched again
# refused      a batch had an observation that the data set lacks: refused or retracted
# unreachable  no source has it: older than the plan reaches, or the source is a file
State = Literal["open", "silent", "empty", "refused", "unreachable"]


@dataclass(frozen=True)
class Gap:
    """`missing` slots in a row, all in one state: no observation after `start_ms` and up to
    `end_ms` (Unix ms UTC, both on the grid).

    `asked_ms` is the time of the last request without a price, `next_ms` of the next one (Unix ms);
    None where there is none, or none is known.
    """

    start_ms: int
    end_ms: int
    missing: int
    state: State
    asked_ms: int | None = None
    next_ms: int | None = None


class Silence(NamedTuple):
    """Whole hours without a price in `tries` answers, the last one at `asked_ms` (Unix ms).

    `witnessed_ms` is the time of the first answer that had prices shortly before and after them,
    None without one; `tries` counts from it on. A second such answer, an hour later or more, makes
    them `confirmed` empty.
    """

    start: int
    end: int
    tries: int
    asked_ms: int
    witnessed_ms: int | None = None
    confirmed: bool = False

    @property
    def span(self) -> Span:
        return Span(self.start, self.end)

    @property
    def next_ms(self) -> int:
        """The time of the next request: after 1 h, 2 h, 4 h … at most 24 h."""
        return self.asked_ms + min(2 ** (self.tries - 1), 24) * HOUR_MS

    def waits(self, now: int) -> bool:
        # A request in the future was noted by a wrong clock.
        return not self.confirmed and self.asked_ms <= now < self.next_ms

    def within(self, spans: Iterable[Span]) -> list[Silence]:
        """The parts of it in these spans."""
        return [self._replace(start=s.start, end=s.end) for s in overlap([self.span], spans)]


def occupied(stamps: Any, step: int) -> list[Span]:
    """The slots with a stamp (Unix ms, any order, any integers or an array), merged."""
    import numpy as np

    ends = np.unique(-(-np.asarray(stamps, dtype=np.int64) // step))
    runs = np.split(ends, np.flatnonzero(np.diff(ends) > 1) + 1)
    return [Span((int(run[0]) - 1) * step, int(run[-1]) * step) for run in runs if len(run)]


def gaps(
    expected: Span,
    present: Iterable[Span],
    *,
    final: Sequence[Span],
    had: Sequence[Span],
    reach_ms: int | None,
    step: int,
    silences: Sequence[Silence] = (),
) -> list[Gap]:
    """The missing slots of `expected`, a gap for each run of one state, oldest first.

    `expected` and `present` are whole slots. `final` are the spans with a final answer, `had` the
    slots with an observation in a batch, `silences` the hours without a price in an answer. The
    source has history from `reach_ms` (Unix ms) on; None where no source has any.
    """
    missing = minus([expected], present)
    answered = overlap(missing, whole(final, step=step))
    refused = overlap(answered, had)
    rest = minus(missing, answered)
    reachable = [] if reach_ms is None else [Span(-(-reach_ms // step) * step, expected.end)]
    silent = overlap(overlap(rest, reachable), whole([one.span for one in silences], step=step))
    kinds: tuple[tuple[State, list[Span]], ...] = (
        ("refused", refused),
        ("empty", minus(answered, refused)),
        ("unreachable", minus(rest, reachable)),
        ("silent", silent),
        ("open", minus(overlap(rest, reachable), silent)),
    )
    found = [
        Gap(
            span.start,
            span.end,
            (span.end - span.start) // step,
            state,
            None if one is None else one.asked_ms,
            None if one is None or state != "silent" else one.next_ms,
        )
        for state, spans in kinds
        for span, one in _requested(spans, silences if state in ("silent", "empty") else (), step)
    ]
    return sorted(found, key=lambda gap: gap.start_ms)


def _requested(
    spans: Iterable[Span], silences: Sequence[Silence], step: int
) -> Iterator[tuple[Span, Silence | None]]:
    """The spans, cut where the silence changes, each with its silence; None where none is known.

    `silences` are disjoint, oldest first.
    """
    slots = widened([one.span for one in silences], step=step)
    for span in minus(spans, slots):
        yield span, None
    starts = [slot.start for slot in slots]
    for start, end in overlap(spans, slots):
        while start < end:
            place = bisect_right(starts, start) - 1
            cut = min(end, slots[place].end)
            yield Span(start, cut), silences[place]
            start = cut


def count(spans: Iterable[Span], step: int) -> int:
    """The number of slots in spans of whole slots."""
    return length(merged(spans)) // step
