"""History in slices, only what is missing, one batch a slice.

Landed batches, the record of answers (`request_log`) and the hours in the data set say what is not
fetched again. So a run after a kill goes on at the slice where the other stopped, and a later run
fetches the new end alone. Answers are cached, so the end is fetched again until it is an hour old.
No point is written twice.

One answer without a price for an hour proves nothing: an answer can be cut off. The hour is final
when two answers, an hour or more apart, have no price for it, but prices shortly before and after
it. Until then it is fetched again, at growing intervals.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

from bitstorm.collect import batches
from bitstorm.collect.batches import Observation
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.gaps import Silence, count, occupied
from bitstorm.collect.request_log import (
    ENDPOINT,
    Served,
    change_served,
    final_spans,
    history_of,
    reach_ms,
    read_served,
)
from bitstorm.core import time as times
from bitstorm.core.errors import BadAnswer, HistoryTooOld, UsageError
from bitstorm.core.results import Result
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import DAY_MS, HOUR_MS, Span, duration_text, iso, now_ms

# A range up to a day can come 5-minutely, so a request covers two days and the rest is dropped; one
# of more than 90 days comes daily.
_SHORTEST_MS, _LONGEST_MS = 2 * DAY_MS, 90 * DAY_MS
# A short request, or another one for the same hours, also covers the time around them, for prices
# before and after them.
_AROUND_MS = DAY_MS
# An answer that lacks a greater share of its hours gets a warning.
_MOST_LACKING = 0.05
# A cached answer can be half an hour old; it holds everything older than this.
_FINAL_AFTER_MS = HOUR_MS
_COARSEST_MS = 6 * HOUR_MS
_NAME_SUFFIX = "_hourly"


@dataclass(frozen=True)
class BackfillRequest:
    """The hourly history of `days` days, or from `from_ms`, up to `until_ms` (Unix ms; None: now).

    `known` are the hours in the data set, which are not fetched. `within` limits the history to
    these spans; then their hours are fetched even when the data set holds them. With `again` all
    wanted hours are fetched, whatever earlier answers said. Two answers confirm that up to
    `confirm_hours` hours in a row are empty.
    """

    coin: str
    vs_currency: str
    days: int
    slice_days: int = 90
    from_ms: int | None = None
    until_ms: int | None = None
    within: Sequence[Span] | None = None
    known: Sequence[Span] = ()
    again: bool = False
    confirm_hours: int = 24


@dataclass(frozen=True)
class PlannedSlice:
    """One request: from and to in Unix ms UTC, and the expected points, one an hour."""

    from_ms: int
    to_ms: int
    points: int


@dataclass(frozen=True, repr=False)
class Planned(Result):
    """The `slices` of a backfill, newest first, and their cost.

    `clamped`: the source's plan reaches less far than the wanted history. A slice is one call,
    without retries. `silent` hours without a price wait for their next request, the
    first of them until `next_ms`.
    """

    wanted: Span
    clamped: bool
    calls: int
    points: int
    slices: tuple[PlannedSlice, ...]
    silent: int
    next_ms: int | None

    @property
    def idle(self) -> bool:
        return not self.slices


@dataclass(frozen=True)
class Progress:
    """The state after each slice: `done` of `total` slices. `lacking` counts the requested hours
    without a point; the other counts are those of `Backfilled`, so far."""

    done: int
    total: int
    points: int
    lacking: int
    calls: int
    span: Span


@dataclass(frozen=True, repr=False)
class Backfilled(Result):
    """`calls` counts HTTP requests, retries included; `calls.json` has the plan's credits.

    `points` counts new rows, `empty` the hours that are now confirmed to have no price, `silent`
    those that stay missing because an answer had no price for them. `next_ms` (Unix ms) is the time
    from which the first of these is fetched again. `warnings` are sentences about bad answers.
    """

    source: str
    wanted: Span
    clamped: bool
    slices: int
    calls: int
    points: int
    empty: int
    silent: int
    next_ms: int | None
    batches: tuple[Path, ...]
    warnings: tuple[str, ...]
    rows = property(lambda self: self.points)  # the landed ones, as other results name them

    @property
    def idle(self) -> bool:
        return not self.slices


def backfill(
    client: CoinGecko,
    landing: Path,
    wanted: BackfillRequest,
    *,
    clock: Callable[[], int] = now_ms,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Backfilled:
    """Land the wanted hours that are missing; `clock` gives Unix ms.

    Raises UsageError for impossible days, HistoryTooOld when the plan reaches none of them, and
    SourceError as `CoinGecko.market_chart_range`; the slices before the error have landed.
    """
    batches.delete_leftovers(landing)
    plan = _plan(client, landing, wanted, clock())
    origin = Origin(client.source, wanted.coin, wanted.vs_currency)
    if plan.forgotten:
        change_served(landing, origin, partial(Served.without, spans=plan.forgotten))
    before = history_of(batches.batches_of(landing, origin))
    old, calls_before, silent = len(before), client.calls, list(plan.waiting)
    warnings: list[str] = []
    points = empty = lacking = 0
    for done, missing in enumerate(plan.slices, start=1):
        around = _AROUND_MS if read_served(landing, origin).within(missing) else 0
        answer = _fetch(client, missing, origin, around, clock())
        # The silence first: it is true even where a killed run does not land the points.
        record = change_served(landing, origin, partial(answer.note_silence, wanted.confirm_hours))
        confirmed = times.overlap(answer.silent, record.empty())
        silent += [one for one in record.within(answer.silent) if not one.confirmed]
        final = answer.final(confirmed)
        fresh = answer.fresh_points(batches.landed_stamps(before, answer.piece))
        if fresh:
            name = batches.batch_name(wanted.coin, answer.piece.start, _NAME_SUFFIX)
            rows = batches.observation_rows(fresh)
            batch = batches.write_batch(landing, rows, answer.info(origin, final), name=name)
            before.append((batch.path, batch.sidecar))
            points += batch.sidecar.rows
        # Last: a run that is killed before this fetches the slice again, and loses nothing.
        change_served(
            landing, origin, partial(Served.with_points, spans=final, filled=answer.filled)
        )
        warnings += answer.warnings(record.empty())
        empty += count(confirmed, HOUR_MS)
        lacking += count(answer.silent, HOUR_MS)
        calls = client.calls - calls_before
        progress(Progress(done, len(plan.slices), points, lacking, calls, answer.piece))
    return Backfilled(
        source=client.source,
        wanted=plan.reachable,
        clamped=plan.clamped,
        slices=len(plan.slices),
        calls=client.calls - calls_before,
        points=points,
        empty=empty,
        silent=count([one.span for one in silent], HOUR_MS),
        next_ms=min((one.next_ms for one in silent), default=None),
        batches=tuple(path for path, _ in before[old:]),
        warnings=tuple(warnings),
    )


def plan_backfill(
    client: CoinGecko, landing: Path, wanted: BackfillRequest, *, clock: Callable[[], int] = now_ms
) -> Planned:
    """The slices that `backfill` would fetch; fetches no prices. Raises as `backfill`."""
    plan = _plan(client, landing, wanted, clock())
    slices = tuple(
        PlannedSlice(*times.hull(piece), round(times.length(piece) / HOUR_MS))
        for piece in plan.slices
    )
    return Planned(
        wanted=plan.reachable,
        clamped=plan.clamped,
        calls=len(slices),
        points=sum(one.points for one in slices),
        slices=slices,
        silent=count([one.span for one in plan.waiting], HOUR_MS),
        next_ms=min((one.next_ms for one in plan.waiting), default=None),
    )


@dataclass(frozen=True)
class _Plan:
    """The reachable span, its missing spans slice by slice, newest first, and the silences that
    wait for their next request. `forgotten`: the hours whose earlier answers do not count."""

    reachable: Span
    forgotten: Sequence[Span]
    slices: Sequence[Sequence[Span]]
    waiting: Sequence[Silence]
    clamped: bool


def _plan(client: CoinGecko, landing: Path, wanted: BackfillRequest, now: int) -> _Plan:
    if wanted.days < 1:
        raise UsageError(f"found {wanted.days} days to backfill; expected at least 1")
    end = now if wanted.until_ms is None else min(wanted.until_ms, now)
    start = end - wanted.days * DAY_MS if wanted.from_ms is None else wanted.from_ms
    if start >= end:
        raise UsageError(f"the history begins at {iso(start)}; expected a time before {iso(end)}")
    start = start // HOUR_MS * HOUR_MS
    reach = reach_ms(client.plan, now)
    if end <= reach:
        raise HistoryTooOld(
            f"the history up to {iso(end)} is older than keyless and demo plans reach "
            f"({iso(reach)}); choose a later --until, or source.plan=pro"
        )
    reachable = Span(max(start, reach), end)
    origin = Origin(client.source, wanted.coin, wanted.vs_currency)
    inside = [reachable] if wanted.within is None else times.overlap([reachable], wanted.within)
    forgotten = times.widened(inside, step=HOUR_MS) if wanted.again else []
    record = read_served(landing, origin).without(forgotten)
    final = final_spans(
        record,
        batches.batches_of(landing, origin),
        known=wanted.known,
        trust_known=wanted.within is None,
    )
    missing = times.minus(inside, final)
    touched = times.widened(missing, step=HOUR_MS)
    waiting = [one for one in record.within(touched) if one.waits(now)]
    every = wanted.slice_days * DAY_MS
    cells: dict[int, list[Span]] = {}
    for span in times.minus(missing, [one.span for one in waiting]):
        for piece in times.cut(span, every=every):
            cells.setdefault(piece.start // every, []).append(piece)
    slices = [cells[at] for at in sorted(cells, reverse=True)]
    return _Plan(reachable, forgotten, slices, waiting, start < reach)


@dataclass(frozen=True)
class _Answer:
    """The points in `asked`, fetched at `at_ms` (Unix ms).

    `missing` are the wanted spans, and `piece` is their hull. `settled` of them are old enough to
    be final; `silent` are the hours of these without a point, and `filled` all hours with one.
    """

    points: Sequence[Observation]
    asked: Span
    at_ms: int
    missing: Sequence[Span]
    settled: Sequence[Span]
    filled: Sequence[Span]
    silent: Sequence[Span]

    @property
    def piece(self) -> Span:
        return times.hull(self.missing)

    def fresh_points(self, landed: set[int]) -> list[Observation]:
        """The wanted points that have not landed yet.

        Both ends count: a slot holds its end, and whether the source's bounds do is unknown.
        """
        return [
            point
            for point in self.points
            if point.timestamp not in landed
            and any(start <= point.timestamp <= end for start, end in self.missing)
        ]

    def between(self, hours: int) -> list[Span]:
        """Up to `hours` hours in a row without a point, with points before and after them."""
        holes = [Span(one.end, later.start) for one, later in pairwise(self.filled)]
        return [hole for hole in holes if hole.end - hole.start <= hours * HOUR_MS]

    def note_silence(self, confirm_hours: int, record: Served) -> Served:
        witnessed = self.between(confirm_hours)
        return record.with_silence(self.silent, witnessed=witnessed, asked_ms=self.at_ms)

    def final(self, confirmed: Sequence[Span]) -> list[Span]:
        """The settled spans of the hours that have a point or are confirmed empty."""
        return times.overlap(self.settled, [*self.filled, *confirmed])

    def info(self, origin: Origin, final: Sequence[Span]) -> batches.SourceInfo:
        """What the sidecar states; an empty span marks the batch as history."""
        request = {
            "endpoint": ENDPOINT,
            "from_s": self.asked.start // 1000,
            "to_s": self.asked.end // 1000,
            "served_ms": [
                list(span) for span in final or [Span(self.asked.start, self.asked.start)]
            ],
            "young_ms": [list(span) for span in times.minus(self.missing, self.settled)],
        }
        return batches.SourceInfo(origin, HOUR_MS, self.at_ms, request)

    def warnings(self, empty: Sequence[Span]) -> list[str]:
        """What the answer lacks; `empty` are the hours that are confirmed to have no price."""
        old = Span(self.asked.start, min(self.asked.end, self.at_ms - _FINAL_AFTER_MS))
        hours = times.whole([old], step=HOUR_MS)
        asked, lacking = (
            count(spans, HOUR_MS) for spans in (hours, times.minus(hours, [*self.filled, *empty]))
        )
        when = f"the answer for {iso(self.asked.start)} to {iso(self.asked.end)}"
        found = []
        if lacking > _MOST_LACKING * asked:
            found.append(
                f"{when} has prices for {asked - lacking:,} of {asked:,} hours; the others stay "
                "missing: run `backfill` again later, or `backfill --again` to fetch them at once"
            )
        for name in ("market_cap", "volume_24h"):
            if self.points and all(getattr(point, name) is None for point in self.points):
                found.append(f"{when} has no {name}; its prices are taken without it")
        return found


def _fetch(
    client: CoinGecko, missing: Sequence[Span], origin: Origin, around: int, now: int
) -> _Answer:
    oldest = reach_ms(client.plan, now)
    padded = _padded(times.hull(missing), around, now=now, oldest=oldest)
    from_s, to_s = padded.start // 1000, min(-(-padded.end // 1000), now // 1000)
    points = client.market_chart_range(origin.coin, origin.vs_currency, from_s, to_s)
    apart = [later.timestamp - one.timestamp for one, later in pairwise(points)]
    if apart and median(apart) > _COARSEST_MS:
        raise BadAnswer(
            f"expected hourly points, found one in {duration_text(int(median(apart)))}; try again "
            "later, or set backfill.slice_days lower: shorter ranges may be daily now"
        )
    asked = Span(from_s * 1000, to_s * 1000)
    old = Span(asked.start, now - _FINAL_AFTER_MS)
    filled = occupied([point.timestamp for point in points], HOUR_MS)
    settled = times.overlap(missing, [old])
    silent: list[Span] = []
    if client.doubtful:
        # A price was refused. It may belong to an hour without a point, so such hours are fetched
        # again at once.
        settled = times.overlap(settled, filled)
    else:
        hours = times.whole([Span(old.start, min(old.end, asked.end))], step=HOUR_MS)
        wanted = times.overlap(hours, times.widened(settled, step=HOUR_MS))
        silent = times.minus(wanted, filled)
    return _Answer(points, asked, now, missing, settled, filled, silent)


def _padded(span: Span, around: int, *, now: int, oldest: int) -> Span:
    """The span up to the end of its last hour, with `around` ms on each side (a day where it is
    short), at least two days and at most ninety in all."""
    length = span.end - span.start
    spare = (_LONGEST_MS - length) // 2 // 1000 * 1000 - 1000
    around = max(0, min(_AROUND_MS if length < _SHORTEST_MS else around, spare))
    end = min(max(span.end + around, -(-span.end // HOUR_MS) * HOUR_MS), now)
    start = max(min(span.start - around, end - _SHORTEST_MS), min(oldest, span.start))
    return Span(start, min(max(end, start + _SHORTEST_MS), now))
