"""Half-open spans of time, [start, end) in Unix milliseconds: what is missing and how to cut it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple


class Span(NamedTuple):
    start: int
    end: int


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same moments in as few spans as can be, oldest first; empty spans are left out."""
    joined: list[Span] = []
    for span in sorted(span for span in spans if span.start < span.end):
        if joined and span.start <= joined[-1].end:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return joined


def minus(spans: Iterable[Span], covered: Iterable[Span]) -> list[Span]:
    """What of `spans` no span of `covered` holds, merged, oldest first; one sweep over both."""
    held = merged(covered)
    left: list[Span] = []
    place = 0
    for start, end in merged(spans):
        reached = start
        while place < len(held) and held[place].end <= reached:
            place += 1
        ahead = place
        while ahead < len(held) and held[ahead].start < end:
            if held[ahead].start > reached:
                left.append(Span(reached, held[ahead].start))
            reached = max(reached, held[ahead].end)
            ahead += 1
        if reached < end:
            left.append(Span(reached, end))
        place = max(place, ahead - 1)
    return left


def overlap(spans: Iterable[Span], others: Iterable[Span]) -> list[Span]:
    """What is in both, merged, oldest first."""
    ours = merged(spans)
    return minus(ours, minus(ours, others))


def whole(spans: Iterable[Span], *, step: int) -> list[Span]:
    """Of the merged spans what fills whole steps of the grid through zero."""
    inner = [Span(-(-s.start // step) * step, s.end // step * step) for s in merged(spans)]
    return [span for span in inner if span.start < span.end]


def length(spans: Iterable[Span]) -> int:
    """Milliseconds of all spans together; where they overlap, twice."""
    return sum(span.end - span.start for span in spans)


def hull(spans: Sequence[Span]) -> Span:
    """The shortest span that holds them all; `spans` must not be empty."""
    return Span(min(span.start for span in spans), max(span.end for span in spans))


def cut(span: Span, *, every: int) -> list[Span]:
    """The span cut at the multiples of `every`, oldest first: the same cuts on any day."""
    inner = range((span.start // every + 1) * every, span.end, every)
    edges = [span.start, *inner, span.end]
    return [Span(a, b) for a, b in pairwise(edges)]
