"""History in slices, only what is missing, one batch a slice.

What need not be asked again is read from three places: the batches that landed (each sidecar names
the spans that its answer settled), the record of what was served (`served`), and the hours that the
caller knows to be in the data set. So a killed run goes on at the slice where it stopped, and a
later one asks for the new end alone. The end is asked again until it is an hour old, because
answers are cached; points that landed before are not written twice. An hour inside a served span
without a point is confirmed empty and never asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bitstorm.collect.batches import (
    Batch,
    Observation,
    batch_name,
    batches_of,
    landed_stamps,
    observation_rows,
    stamps_of,
    swept,
    write_batch,
)
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.gaps import count, note_served, occupied, read_served
from bitstorm.core.errors import BadAnswer, HistoryTooOld, UsageError
from bitstorm.core.results import Result
from bitstorm.core.schema import GENESIS_MS
from bitstorm.core.sidecar import Origin, Sidecar
from bitstorm.core.time import (
    DAY_MS,
    HOUR_MS,
    Span,
    cut,
    duration_text,
    hull,
    iso,
    length,
    merged,
    minus,
    now_ms,
    overlap,
    whole,
)

ENDPOINT = "/coins/{id}/market_chart/range"
# Free plans reach 365 days back; the exact second is not known, so a day is left.
FREE_DAYS = 364

# Ranges up to a day may come 5-minutely, so at least two are asked for and the rest is dropped.
_SHORTEST_MS = 2 * DAY_MS
# Answers may be half an hour old; what is older than this is sure to be in them.
_SETTLED_AFTER_MS = HOUR_MS
_COARSEST_MS = 6 * HOUR_MS
_NAME_SUFFIX = "_hourly"


@dataclass(frozen=True)
class Wanted:
    """The hourly history of `days` days up to `until_ms` (Unix ms; now when None).

    `known` are the hours that the data set holds, which are not asked for; `within` leaves of the
    days only these spans, and then an hour there is asked for though the data set holds it.
    """

    coin: str
    vs_currency: str
    days: int
    slice_days: int = 90
    until_ms: int | None = None
    within: Sequence[Span] | None = None
    known: Sequence[Span] = ()


@dataclass(frozen=True)
class PlannedSlice:
    """One request: from and to in Unix ms UTC, and the points to expect of it, one an hour."""

    from_ms: int
    to_ms: int
    points: int


@dataclass(frozen=True, repr=False)
class Planned(Result):
    """A backfill that is not made: its `slices`, newest first, and their cost.

    `clamped` says that more days were asked for than the plan of the key reaches. A slice is one
    call and one credit, when nothing has to be tried again.
    """

    wanted: Span
    clamped: bool
    calls: int
    credits: int
    points: int
    slices: tuple[PlannedSlice, ...]

    @property
    def idle(self) -> bool:
        return not self.slices


@dataclass(frozen=True)
class Progress:
    """After each slice: how many of how many are done, and what they brought and cost so far.

    `points` are new, `empty` are hours that are confirmed to have none, `calls` are HTTP requests
    with those that were tried again, `credits` the answers among them.
    """

    done: int
    total: int
    points: int
    empty: int
    calls: int
    credits: int
    span: Span


@dataclass(frozen=True, repr=False)
class Backfilled(Result):
    """`calls` counts HTTP requests, retries included; `credits` those that were answered, which is
    what a plan counts a month; `points` the rows that are new, `empty` the hours that are confirmed
    to have none."""

    source: str
    wanted: Span
    clamped: bool
    slices: int
    calls: int
    credits: int
    points: int
    empty: int
    batches: tuple[Path, ...]

    @property
    def idle(self) -> bool:
        return not self.slices


def backfill(
    client: CoinGecko,
    landing: Path,
    wanted: Wanted,
    *,
    clock: Callable[[], int] = now_ms,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Backfilled:
    """Land what is wanted and missing.

    Raises UsageError for days that make no sense, HistoryTooOld when the plan reaches none of them,
    and SourceError as `CoinGecko.market_chart_range`; the slices before that have landed.
    """
    swept(landing)
    span, slices, clamped = _missing(client, landing, wanted, clock())
    origin = Origin(client.source, wanted.coin, wanted.vs_currency)
    before = _history(batches_of(landing, origin))
    calls_before = client.calls
    batches: list[Batch] = []
    points = empty = 0
    for done, missing in enumerate(slices, start=1):
        piece = hull(missing)
        found = _fetch(client, missing, origin, clock)
        old = landed_stamps(before, piece)
        fresh = [point for point in found.points if point.timestamp not in old]
        if fresh:
            batch = write_batch(
                landing,
                observation_rows(fresh),
                name=batch_name(wanted.coin, piece.start, _NAME_SUFFIX),
                origin=origin,
                granularity_ms=HOUR_MS,
                fetched_at=found.fetched_at,
                request=found.request,
            )
            batches.append(batch)
            before.append((batch.path, batch.sidecar))
            points += batch.sidecar.rows
        # Only now: a run that is killed before this asks again, and loses nothing.
        note_served(landing, origin, spans=found.settled, filled=found.filled)
        empty += count(minus(whole(found.settled, step=HOUR_MS), found.filled), HOUR_MS)
        calls = client.calls - calls_before
        progress(Progress(done, len(slices), points, empty, calls, done, piece))
    return Backfilled(
        source=client.source,
        wanted=span,
        clamped=clamped,
        slices=len(slices),
        calls=client.calls - calls_before,
        credits=len(slices),
        points=points,
        empty=empty,
        batches=tuple(batch.path for batch in batches),
    )


def planned(
    client: CoinGecko,
    landing: Path,
    wanted: Wanted,
    *,
    clock: Callable[[], int] = now_ms,
) -> Planned:
    """What `backfill` would ask for; fetches no prices. Raises UsageError and HistoryTooOld."""
    span, pieces, clamped = _missing(client, landing, wanted, clock())
    slices = tuple(PlannedSlice(*hull(one), round(length(one) / HOUR_MS)) for one in pieces)
    points = sum(one.points for one in slices)
    return Planned(span, clamped, len(slices), len(slices), points, slices)


def _missing(
    client: CoinGecko, landing: Path, wanted: Wanted, now: int
) -> tuple[Span, list[list[Span]], bool]:
    """What can be asked for of what is wanted, what is missing of that, slice by slice, the newest
    first, and whether the plan of the key reaches less far than wanted."""
    days, until_ms, known = wanted.days, wanted.until_ms, wanted.known
    if days < 1:
        raise UsageError(f"backfill is asked for {days} days; expected at least 1")
    if not 2 <= wanted.slice_days <= 90:
        raise UsageError(f"backfill.slice_days is {wanted.slice_days}; expected 2 to 90")
    end = now if until_ms is None else min(until_ms, now)
    start = (end - days * DAY_MS) // HOUR_MS * HOUR_MS
    reach = reach_ms(client.plan, now)
    if end <= reach:
        raise HistoryTooOld(
            f"the history up to {iso(end)} is older than keyless and demo plans reach "
            f"({iso(reach)}); choose a later --until, or source.plan=pro"
        )
    whole_span = Span(max(start, reach), end)
    origin = Origin(client.source, wanted.coin, wanted.vs_currency)
    batches = batches_of(landing, origin)
    trusting = wanted.within is None
    settled = answered(landing, origin, batches, known=known, trusting=trusting)
    asked = [whole_span] if wanted.within is None else overlap([whole_span], wanted.within)
    missing = minus(asked, settled)
    every = wanted.slice_days * DAY_MS
    cells: dict[int, list[Span]] = {}
    for span in missing:
        for piece in cut(span, every=every):
            cells.setdefault(piece.start // every, []).append(piece)
    return whole_span, [cells[at] for at in sorted(cells, reverse=True)], start < reach


def answered(
    landing: Path,
    origin: Origin,
    batches: Iterable[tuple[Path, Sidecar]],
    *,
    known: Sequence[Span],
    trusting: bool = False,
) -> list[Span]:
    """What of the origin's history the source has settled: asking again would bring nothing.

    `batches` are the origin's (`batches_of`), `known` are the hours that the data set holds. With
    `trusting` they need not be asked either, but for those that an answer has touched while they
    were still too young to be settled: there another point may have come.
    """
    history = _history(batches)
    served = [span for _, sidecar in history for span in _served_spans(sidecar)]
    present = [*known, *slots_of(history, step=HOUR_MS)]
    record = read_served(landing, origin)
    trusted: list[Span] = []
    if trusting:
        # To the end of the hour: the rest of it had not even come then.
        young = [
            Span(start, -(-end // HOUR_MS) * HOUR_MS)
            for _, sidecar in history
            for start, end in _spans(sidecar, "young_ms")
        ]
        trusted = minus(known, young)
    return merged([*served, *record.settled(present), *trusted])


def slots_of(batches: Iterable[tuple[Path, Sidecar]], *, step: int) -> list[Span]:
    """The slots of `step` ms with an observation in these batches."""
    stamps: set[int] = set()
    for path, sidecar in batches:
        stamps |= stamps_of(path, sidecar)
    return occupied(sorted(stamps), step)


def reach_ms(plan: str, now: int) -> int:
    """From when on (Unix ms) a plan is served history; a whole hour, to be the same within it."""
    if plan == "pro":
        return GENESIS_MS
    return -(-(now - FREE_DAYS * DAY_MS) // HOUR_MS) * HOUR_MS


def _history(batches: Iterable[tuple[Path, Sidecar]]) -> list[tuple[Path, Sidecar]]:
    """Those that backfills have landed."""
    return [(path, sidecar) for path, sidecar in batches if _served_spans(sidecar)]


def _served_spans(sidecar: Sidecar) -> list[Span]:
    """The spans that a backfill's answer settled, as its sidecar has them; none for others."""
    request = sidecar.request
    if request.get("endpoint") != ENDPOINT:
        return []
    bounds = (request.get("served_from_ms"), request.get("served_to_ms"))
    if isinstance(bounds[0], int) and isinstance(bounds[1], int):
        return [Span(bounds[0], bounds[1])]  # as the first version wrote it
    return _spans(sidecar, "served_ms")


def _spans(sidecar: Sidecar, name: str) -> list[Span]:
    try:
        return [Span(int(start), int(end)) for start, end in sidecar.request.get(name, ())]
    except (TypeError, ValueError):
        return []


@dataclass(frozen=True)
class _Found:
    """The wanted points of a slice, when they were fetched, the request as the sidecar names it,
    the spans that are settled, and the hours that have a point."""

    points: Sequence[Observation]
    fetched_at: int
    request: Mapping[str, Any]
    settled: Sequence[Span]
    filled: Sequence[Span]


def _fetch(
    client: CoinGecko, missing: Sequence[Span], origin: Origin, clock: Callable[[], int]
) -> _Found:
    asked_at, piece = clock(), hull(missing)
    asked = _padded(piece, now=asked_at, oldest=reach_ms(client.plan, asked_at))
    from_s, to_s = asked.start // 1000, min(-(-asked.end // 1000), asked_at // 1000)
    points = client.market_chart_range(origin.coin, origin.vs_currency, from_s, to_s)
    apart = [later.timestamp - one.timestamp for one, later in pairwise(points)]
    if apart and median(apart) > _COARSEST_MS:
        raise BadAnswer(
            f"asked for hourly points, got one in {duration_text(int(median(apart)))}; set "
            "backfill.slice_days lower, the source may have changed from what length on it is daily"
        )
    settled_to = asked_at - _SETTLED_AFTER_MS
    # One that is too young altogether stays as an empty span: it marks the batch as history.
    settled = [Span(start, max(start, min(end, settled_to))) for start, end in missing]
    filled = occupied([point.timestamp for point in points], HOUR_MS)
    if client.doubtful:
        # A price was refused: an hour without a point may be that one's, so none is confirmed
        # empty by this answer. An empty span marks the batch as history all the same.
        settled = [*overlap(settled, filled), Span(piece.start, piece.start)]
    young = minus(missing, settled)
    request = {
        "endpoint": ENDPOINT,
        "from_s": from_s,
        "to_s": to_s,
        "served_ms": [list(span) for span in settled],
        "young_ms": [list(span) for span in young],
    }
    # Both ends count: a slot holds its end, and whether the source's bounds do is not known.
    wanted = [
        point for point in points if any(start <= point.timestamp <= end for start, end in missing)
    ]
    return _Found(wanted, clock(), request, settled, filled)


def _padded(span: Span, *, now: int, oldest: int) -> Span:
    """At least two days around the span: backwards, near the oldest that is served forwards."""
    start = min(span.start, max(span.end - _SHORTEST_MS, oldest))
    return Span(start, min(max(span.end, start + _SHORTEST_MS), now))
