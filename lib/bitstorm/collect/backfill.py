"""History in slices, only what is missing, one batch a slice.

Three places say what is not fetched again: the landed batches (each sidecar names the spans that
its answer made final), the record of served spans (`gaps`), and the hours in the data set, from the
caller. So a run after a kill goes on at the slice where the other stopped, and a later run fetches
the new end alone. The end is fetched again until it is an hour old, because answers are cached; no
point is written twice. An hour inside a served span without a point is confirmed empty and is not
fetched again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from bitstorm.collect import batches
from bitstorm.collect.batches import Observation
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.gaps import count, note_served, occupied, read_served
from bitstorm.core import time as times
from bitstorm.core.errors import BadAnswer, HistoryTooOld, UsageError
from bitstorm.core.results import Result
from bitstorm.core.schema import GENESIS_MS
from bitstorm.core.sidecar import Origin, Sidecar
from bitstorm.core.time import DAY_MS, HOUR_MS, Span, duration_text, iso, now_ms

ENDPOINT = "/coins/{id}/market_chart/range"
# Free plans reach 365 days back; the exact second is not known, so a day is left.
FREE_DAYS = 364

# A range up to a day can come 5-minutely, so a request covers two days and the rest is dropped.
_SHORTEST_MS = 2 * DAY_MS
# A cached answer can be half an hour old; it holds everything older than this.
_FINAL_AFTER_MS = HOUR_MS
_COARSEST_MS = 6 * HOUR_MS
_NAME_SUFFIX = "_hourly"


@dataclass(frozen=True)
class BackfillRequest:
    """The hourly history of `days` days up to `until_ms` (Unix ms; now when None).

    `known` are the hours in the data set, which are not fetched. `within` limits the days to these
    spans; then their hours are fetched even when the data set holds them.
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
    """One request: from and to in Unix ms UTC, and the expected points, one an hour."""

    from_ms: int
    to_ms: int
    points: int


@dataclass(frozen=True, repr=False)
class Planned(Result):
    """The `slices` of a backfill, newest first, and their cost.

    `clamped`: the plan of the key reaches less far than the wanted days. A slice is one call and
    one credit, without retries.
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
    """The state after each slice: `done` of `total` slices; the counts are those of `Backfilled`,
    so far."""

    done: int
    total: int
    points: int
    empty: int
    calls: int
    credits: int
    span: Span


@dataclass(frozen=True, repr=False)
class Backfilled(Result):
    """`calls` counts HTTP requests, retries included; `credits` counts answers, as a plan does.

    `points` counts new rows, `empty` the hours that are confirmed to have no point.
    """

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
    span, slices, clamped = _missing(client, landing, wanted, clock())
    origin = Origin(client.source, wanted.coin, wanted.vs_currency)
    before = _history(batches.batches_of(landing, origin))
    calls_before = client.calls
    new: list[Path] = []
    points = empty = 0
    for done, missing in enumerate(slices, start=1):
        piece = times.hull(missing)
        fetched = _fetch(client, missing, origin, clock)
        old = batches.landed_stamps(before, piece)
        fresh = [point for point in fetched.points if point.timestamp not in old]
        if fresh:
            name = batches.batch_name(wanted.coin, piece.start, _NAME_SUFFIX)
            rows = batches.observation_rows(fresh)
            batch = batches.write_batch(landing, rows, fetched.info, name=name)
            new.append(batch.path)
            before.append((batch.path, batch.sidecar))
            points += batch.sidecar.rows
        # Last: a run that is killed before this fetches the slice again, and loses nothing.
        note_served(landing, origin, spans=fetched.final, filled=fetched.filled)
        confirmed = times.minus(times.whole(fetched.final, step=HOUR_MS), fetched.filled)
        empty += count(confirmed, HOUR_MS)
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
        batches=tuple(new),
    )


def plan_backfill(
    client: CoinGecko, landing: Path, wanted: BackfillRequest, *, clock: Callable[[], int] = now_ms
) -> Planned:
    """The slices that `backfill` would fetch; fetches no prices. Raises as `backfill`."""
    span, pieces, clamped = _missing(client, landing, wanted, clock())
    slices = tuple(
        PlannedSlice(*times.hull(piece), round(times.length(piece) / HOUR_MS)) for piece in pieces
    )
    points = sum(one.points for one in slices)
    return Planned(span, clamped, len(slices), len(slices), points, slices)


def _missing(
    client: CoinGecko, landing: Path, wanted: BackfillRequest, now: int
) -> tuple[Span, list[list[Span]], bool]:
    """The reachable span, its missing spans slice by slice, newest first, and whether the plan of
    the key reaches less far than wanted."""
    if wanted.days < 1:
        raise UsageError(f"found {wanted.days} days to backfill; expected at least 1")
    if not 2 <= wanted.slice_days <= 90:
        raise UsageError(f"backfill.slice_days is {wanted.slice_days}; expected 2 to 90")
    end = now if wanted.until_ms is None else min(wanted.until_ms, now)
    start = (end - wanted.days * DAY_MS) // HOUR_MS * HOUR_MS
    reach = reach_ms(client.plan, now)
    if end <= reach:
        raise HistoryTooOld(
            f"the history up to {iso(end)} is older than keyless and demo plans reach "
            f"({iso(reach)}); choose a later --until, or source.plan=pro"
        )
    reachable = Span(max(start, reach), end)
    origin = Origin(client.source, wanted.coin, wanted.vs_currency)
    final = final_spans(
        landing,
        origin,
        batches.batches_of(landing, origin),
        known=wanted.known,
        trust_known=wanted.within is None,
    )
    inside = [reachable] if wanted.within is None else times.overlap([reachable], wanted.within)
    every = wanted.slice_days * DAY_MS
    cells: dict[int, list[Span]] = {}
    for span in times.minus(inside, final):
        for piece in times.cut(span, every=every):
            cells.setdefault(piece.start // every, []).append(piece)
    return reachable, [cells[at] for at in sorted(cells, reverse=True)], start < reach


def final_spans(
    landing: Path,
    origin: Origin,
    landed: Iterable[tuple[Path, Sidecar]],
    *,
    known: Sequence[Span],
    trust_known: bool = False,
) -> list[Span]:
    """The spans of the origin's history with a final answer: another request brings nothing new.

    `landed` are the origin's batches (`batches_of`), `known` the hours in the data set. With
    `trust_known` those hours count as answered, except where a fetch touched them while they were
    too young: there another point can come.
    """
    history = _history(landed)
    served = [span for _, sidecar in history for span in _served_spans(sidecar)]
    present = [*known, *slots_of(history, step=HOUR_MS)]
    trusted: list[Span] = []
    if trust_known:
        # Up to the end of the hour: its rest lay in the future then.
        young = [
            Span(start, -(-end // HOUR_MS) * HOUR_MS)
            for _, sidecar in history
            for start, end in _spans(sidecar, "young_ms")
        ]
        trusted = times.minus(known, young)
    return times.merged([*served, *read_served(landing, origin).final(present), *trusted])


def slots_of(landed: Iterable[tuple[Path, Sidecar]], *, step: int) -> list[Span]:
    """The slots of `step` ms with an observation in these batches."""
    stamps: set[int] = set()
    for path, sidecar in landed:
        stamps |= batches.stamps_of(path, sidecar)
    return occupied(sorted(stamps), step)


def reach_ms(plan: str, now: int) -> int:
    """The oldest moment (Unix ms) of a plan's history; a whole hour, so that it stays the same
    within the hour."""
    if plan == "pro":
        return GENESIS_MS
    return -(-(now - FREE_DAYS * DAY_MS) // HOUR_MS) * HOUR_MS


def _history(landed: Iterable[tuple[Path, Sidecar]]) -> list[tuple[Path, Sidecar]]:
    """The batches of backfills."""
    return [(path, sidecar) for path, sidecar in landed if _served_spans(sidecar)]


def _served_spans(sidecar: Sidecar) -> list[Span]:
    """The spans that a backfill's answer made final; none for other batches."""
    request = sidecar.request
    if request.get("endpoint") != ENDPOINT:
        return []
    bounds = (request.get("served_from_ms"), request.get("served_to_ms"))
    if isinstance(bounds[0], int) and isinstance(bounds[1], int):
        return [Span(bounds[0], bounds[1])]  # the form of the first version
    return _spans(sidecar, "served_ms")


def _spans(sidecar: Sidecar, name: str) -> list[Span]:
    try:
        return [Span(int(start), int(end)) for start, end in sidecar.request.get(name, ())]
    except (TypeError, ValueError):
        return []


@dataclass(frozen=True)
class _Fetched:
    """The wanted points of a slice, their source, the final spans, and the hours with a point."""

    points: Sequence[Observation]
    info: batches.SourceInfo
    final: Sequence[Span]
    filled: Sequence[Span]


def _fetch(
    client: CoinGecko, missing: Sequence[Span], origin: Origin, clock: Callable[[], int]
) -> _Fetched:
    now, piece = clock(), times.hull(missing)
    padded = _padded(piece, now=now, oldest=reach_ms(client.plan, now))
    from_s, to_s = padded.start // 1000, min(-(-padded.end // 1000), now // 1000)
    points = client.market_chart_range(origin.coin, origin.vs_currency, from_s, to_s)
    apart = [later.timestamp - one.timestamp for one, later in pairwise(points)]
    if apart and median(apart) > _COARSEST_MS:
        raise BadAnswer(
            f"expected hourly points, found one in {duration_text(int(median(apart)))}; set "
            "backfill.slice_days lower: the source may give daily points for shorter ranges now"
        )
    final_to = now - _FINAL_AFTER_MS
    # A span that is too young stays as an empty span: it marks the batch as history.
    final = [Span(start, max(start, min(end, final_to))) for start, end in missing]
    filled = occupied([point.timestamp for point in points], HOUR_MS)
    if client.doubtful:
        # A price was refused: it may belong to an hour without a point, so this answer confirms
        # no hour as empty. The empty span marks the batch as history.
        final = [*times.overlap(final, filled), Span(piece.start, piece.start)]
    young = times.minus(missing, final)
    request = {
        "endpoint": ENDPOINT,
        "from_s": from_s,
        "to_s": to_s,
        "served_ms": [list(span) for span in final],
        "young_ms": [list(span) for span in young],
    }
    # Both ends count: a slot holds its end, and whether the source's bounds do is not known.
    wanted = [
        point for point in points if any(start <= point.timestamp <= end for start, end in missing)
    ]
    return _Fetched(wanted, batches.SourceInfo(origin, HOUR_MS, clock(), request), final, filled)


def _padded(span: Span, *, now: int, oldest: int) -> Span:
    """At least two days around the span: backwards, and forwards near the oldest history."""
    start = min(span.start, max(span.end - _SHORTEST_MS, oldest))
    return Span(start, min(max(span.end, start + _SHORTEST_MS), now))
