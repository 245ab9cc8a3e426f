"""Instants, durations and half-open intervals: int64 Unix milliseconds UTC, text at the edges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_UNITS_MS = {
    "ms": 1,
    "s": SECOND_MS,
    "m": MINUTE_MS,
    "min": MINUTE_MS,
    "h": HOUR_MS,
    "d": DAY_MS,
    "w": 7 * DAY_MS,
}
_DURATION = re.compile(r"(\d+)(ms|s|min|m|h|d|w)")


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as `30s`, `5m`, `5min`, `1h`, `1d`, `1w`.

    Raises ValueError for anything else, zero included.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit: 30s, 5m, 1h, 1d")
    return int(match[1]) * _UNITS_MS[match[2]]


def duration_text(milliseconds: int) -> str:
    """The shortest exact text of a duration: 3_600_000 → `1h`, 0 → `0s`."""
    if milliseconds == 0:
        return "0s"
    for unit in ("w", "d", "h", "m", "s"):
        if milliseconds % _UNITS_MS[unit] == 0 and milliseconds >= _UNITS_MS[unit]:
            return f"{milliseconds // _UNITS_MS[unit]}{unit}"
    return f"{milliseconds}ms"


def age_text(milliseconds: int) -> str:
    """A duration in its largest unit, rounded down: `55 min`, `3 h`, `12 days`, `2 years`.

    In two units below three of the larger one: `1 h 20 min`, `1 day 5 h`.
    """
    seconds = max(milliseconds, 0) // SECOND_MS
    units = (("year", 31_557_600), ("day", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    place = next((n for n, (_, size) in enumerate(units) if seconds >= size), len(units) - 1)

    def counted(count: int, name: str) -> str:
        return f"{count} {name}{'s' if name in ('day', 'year') and count != 1 else ''}"

    name, size = units[place]
    text = counted(seconds // size, name)
    if 0 < seconds // size < 3 and place + 1 < len(units):
        smaller, small = units[place + 1]
        if seconds % size >= small:
            text += f" {counted(seconds % size // small, smaller)}"
    return text


def now_ms() -> int:
    """The machine's clock as Unix milliseconds."""
    return int(datetime.now(UTC).timestamp() * 1000)


def iso(timestamp_ms: int) -> str:
    """`2021-05-16T08:19:47.123Z`; without the fraction when it is zero."""
    moment = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    fraction = timestamp_ms % 1000
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction:03d}Z" if fraction else "Z")


def parse_instant(text: str) -> int:
    """Unix milliseconds of an ISO-8601 date or date-time (no offset means UTC) or an integer.

    An integer below 10^11 is seconds, else milliseconds. Raises ValueError.
    """
    stripped = text.strip()
    if re.fullmatch(r"\d{1,15}", stripped):
        value = int(stripped)
        return value * SECOND_MS if value < 10**11 else value
    try:
        moment = datetime.fromisoformat(stripped)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time; write ISO-8601 (2024-03-01T12:00:00Z) or Unix seconds"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


class Span(NamedTuple):
    start: int
    end: int


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same moments in the fewest spans, oldest first, without empty ones."""
    joined: list[Span] = []
    for span in sorted(span for span in spans if span.start < span.end):
        if joined and span.start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined


def minus(spans: Iterable[Span], covered: Iterable[Span]) -> list[Span]:
    """The part of `spans` outside `covered`, merged, oldest first; one sweep over all edges."""
    ours, theirs = merged(spans), merged(covered)
    edges = [(span.start, 1, 0) for span in ours] + [(span.end, -1, 0) for span in ours]
    edges += [(span.start, 0, 1) for span in theirs] + [(span.end, 0, -1) for span in theirs]
    left: list[Span] = []
    inside = covering = 0
    for (edge, entered, covers), (following, *_) in pairwise(sorted(edges)):
        inside, covering = inside + entered, covering + covers
        if inside and not covering:
            left.append(Span(edge, following))
    return merged(left)


def overlap(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """The moments in both, merged, oldest first."""
    ours = merged(spans)
    return minus(ours, minus(ours, others))


def whole(spans: Iterable[Span], *, step: int) -> list[Span]:
    """The whole steps of the grid through zero inside the merged spans."""
    inner = [Span(-(-s.start // step) * step, s.end // step * step) for s in merged(spans)]
    return [span for span in inner if span.start < span.end]


def widened(spans: Iterable[Span], *, step: int) -> list[Span]:
    """Each span up to the next steps of the grid through zero, outwards; not merged."""
    return [Span(s.start // step * step, -(-s.end // step) * step) for s in spans]


def length(spans: Iterable[Span]) -> int:
    """The sum of all spans in milliseconds; an overlap counts twice."""
    return sum(span.end - span.start for span in spans)


def hull(spans: Sequence[Span]) -> Span:
    """The shortest span that contains them all; `spans` must not be empty."""
    return Span(min(span.start for span in spans), max(span.end for span in spans))


def cut(span: Span, *, every: int) -> list[Span]:
    """The span, cut at the multiples of `every`, oldest first: the same cuts on any day."""
    inner = range((span.start // every + 1) * every, span.end, every)
    edges = [span.start, *inner, span.end]
    return [Span(a, b) for a, b in pairwise(edges)]
