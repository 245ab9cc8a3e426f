"""History in slices, only what is missing, one batch a slice.

What has been fetched is read from the batches that landed: each sidecar names the span that its
answer settled. So a killed run goes on at the slice where it stopped, and a later one asks for
the new end alone. The end is asked again until it is an hour old, because answers are cached;
points that landed before are not written twice. A slice without any new point leaves no batch and
is asked for again the next time.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from bitstorm.collect.batches import (
    Batch,
    batch_name,
    known_batches,
    observation_rows,
    swept,
    write_batch,
)
from bitstorm.collect.coingecko import CoinGecko
from bitstorm.collect.observation import Observation
from bitstorm.collect.spans import Span, cut, without
from bitstorm.errors import BadAnswer, HistoryTooOld, UsageError
from bitstorm.instants import DAY_MS, HOUR_MS, duration_text, iso, now_ms
from bitstorm.schema import GENESIS_MS
from bitstorm.sidecar import Sidecar

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
class Plan:
    """What a backfill would ask for: `slices` newest first, within `wanted`.

    `clamped` says that more days were asked for than the plan of the key reaches.
    """

    wanted: Span
    slices: tuple[Span, ...]
    clamped: bool


@dataclass(frozen=True)
class Progress:
    """After each slice: how many of how many are done, and what they brought so far."""

    done: int
    total: int
    points: int
    span: Span


@dataclass(frozen=True)
class Backfilled:
    """`calls` counts HTTP requests, retries included; `points` the rows that are new."""

    source: str
    wanted: Span
    clamped: bool
    slices: int
    calls: int
    points: int
    batches: tuple[Path, ...]


def backfill(
    client: CoinGecko,
    landing: Path,
    *,
    coin: str,
    vs_currency: str,
    days: int,
    slice_days: int = 90,
    until_ms: int | None = None,
    clock: Callable[[], int] = now_ms,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Backfilled:
    """Land the hourly history of `days` days up to `until_ms` (Unix ms; now when None).

    Raises UsageError for days that make no sense, HistoryTooOld when the plan reaches none of
    them, and SourceError as `CoinGecko.market_chart_range`; the slices before that have landed.
    """
    swept(landing)
    plan = planned(
        client,
        landing,
        coin=coin,
        vs_currency=vs_currency,
        days=days,
        slice_days=slice_days,
        until_ms=until_ms,
        clock=clock,
    )
    before = [(path, sidecar) for path, sidecar in known_batches(landing) if _is_backfill(sidecar)]
    calls_before = client.calls
    batches: list[Batch] = []
    points = 0
    for done, span in enumerate(plan.slices, start=1):
        found = _fetch(client, span, coin=coin, vs_currency=vs_currency, clock=clock)
        old = _landed_stamps(before, span, client.source)
        fresh = [point for point in found.points if point.timestamp not in old]
        if fresh:
            batch = write_batch(
                landing,
                observation_rows(fresh),
                name=batch_name(coin, span.start, _NAME_SUFFIX),
                source=client.source,
                coin=coin,
                vs_currency=vs_currency,
                granularity_ms=HOUR_MS,
                fetched_at=found.fetched_at,
                request=found.request,
            )
            batches.append(batch)
            points += batch.sidecar.rows
        progress(Progress(done, len(plan.slices), points, span))
    return Backfilled(
        source=client.source,
        wanted=plan.wanted,
        clamped=plan.clamped,
        slices=len(plan.slices),
        calls=client.calls - calls_before,
        points=points,
        batches=tuple(batch.path for batch in batches),
    )


def planned(
    client: CoinGecko,
    landing: Path,
    *,
    coin: str,
    vs_currency: str,
    days: int,
    slice_days: int = 90,
    until_ms: int | None = None,
    clock: Callable[[], int] = now_ms,
) -> Plan:
    """What `backfill` would ask for; fetches no prices. Raises UsageError and HistoryTooOld."""
    if days < 1:
        raise UsageError(f"backfill is asked for {days} days; expected at least 1")
    if not 2 <= slice_days <= 90:
        raise UsageError(f"backfill.slice_days is {slice_days}; expected 2 to 90")
    now = clock()
    end = now if until_ms is None else min(until_ms, now)
    start = (end - days * DAY_MS) // HOUR_MS * HOUR_MS
    oldest = _oldest(client, now)
    if end <= oldest:
        raise HistoryTooOld(
            f"the history up to {iso(end)} is older than keyless and demo plans reach "
            f"({iso(oldest)}); choose a later --until, or source.plan=pro"
        )
    wanted = Span(max(start, oldest), end)
    origin = (client.source, coin, vs_currency)
    served = [
        Span(sidecar.request["served_from_ms"], sidecar.request["served_to_ms"])
        for _, sidecar in known_batches(landing)
        if _is_backfill(sidecar) and (sidecar.source, sidecar.coin, sidecar.vs_currency) == origin
    ]
    slices = [
        piece for span in without(wanted, served) for piece in cut(span, every=slice_days * DAY_MS)
    ]
    return Plan(wanted, tuple(reversed(slices)), clamped=start < oldest)


def _oldest(client: CoinGecko, now: int) -> int:
    """From when on the client's plan serves; a whole hour, to be the same within the hour."""
    if client.plan == "pro":
        return GENESIS_MS
    return -(-(now - FREE_DAYS * DAY_MS) // HOUR_MS) * HOUR_MS


def _is_backfill(sidecar: Sidecar) -> bool:
    request = sidecar.request
    bounds = (request.get("served_from_ms"), request.get("served_to_ms"))
    return request.get("endpoint") == ENDPOINT and all(isinstance(b, int) for b in bounds)


@dataclass(frozen=True)
class _Found:
    """The points of a slice, when they were fetched, and the request as the sidecar names it."""

    points: Sequence[Observation]
    fetched_at: int
    request: Mapping[str, Any]


def _fetch(
    client: CoinGecko, span: Span, *, coin: str, vs_currency: str, clock: Callable[[], int]
) -> _Found:
    asked_at = clock()
    asked = _padded(span, now=asked_at, oldest=_oldest(client, asked_at))
    from_s, to_s = asked.start // 1000, min(-(-asked.end // 1000), asked_at // 1000)
    points = client.market_chart_range(coin, vs_currency, from_s, to_s)
    gaps = [later.timestamp - one.timestamp for one, later in pairwise(points)]
    if gaps and median(gaps) > _COARSEST_MS:
        raise BadAnswer(
            f"asked for hourly points, got one in {duration_text(int(median(gaps)))}; set "
            "backfill.slice_days lower, the source may have changed from what length on it is daily"
        )
    request = {
        "endpoint": ENDPOINT,
        "from_s": from_s,
        "to_s": to_s,
        "served_from_ms": span.start,
        "served_to_ms": max(span.start, min(span.end, asked_at - _SETTLED_AFTER_MS)),
    }
    within = [point for point in points if span.start <= point.timestamp < span.end]
    return _Found(within, clock(), request)


def _padded(span: Span, *, now: int, oldest: int) -> Span:
    """At least two days around the span: backwards, near the oldest that is served forwards."""
    start = min(span.start, max(span.end - _SHORTEST_MS, oldest))
    return Span(start, min(max(span.end, start + _SHORTEST_MS), now))


def _landed_stamps(batches: Iterable[tuple[Path, Sidecar]], span: Span, source: str) -> set[int]:
    """The stamps in the span that earlier backfills have landed."""
    stamps: set[int] = set()
    for path, sidecar in batches:
        first, last = sidecar.first_ms, sidecar.last_ms
        if sidecar.source != source or first is None or last is None:
            continue
        if first < span.end and last >= span.start:
            with path.open(encoding="utf-8", newline="") as stream:
                stamps |= {int(row["timestamp"]) for row in csv.DictReader(stream)}
    return stamps
