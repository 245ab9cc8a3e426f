"""Half-open spans of time, [start, end) in Unix milliseconds: what is missing and how to cut it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple


class Span(NamedTuple):
    start: int
    end: int


def without(wanted: Span, covered: Iterable[Span]) -> list[Span]:
    """What of `wanted` no span of `covered` holds, oldest first."""
    missing = []
    reached = wanted.start
    for span in sorted(covered):
        if span.start >= wanted.end:
            break
        if span.start > reached:
            missing.append(Span(reached, span.start))
        reached = max(reached, span.end)
    if reached < wanted.end:
        missing.append(Span(reached, wanted.end))
    return missing


def cut(span: Span, *, every: int) -> list[Span]:
    """The span cut at the multiples of `every`, oldest first: the same cuts on any day."""
    inner = range((span.start // every + 1) * every, span.end, every)
    edges = [span.start, *inner, span.end]
    return [Span(a, b) for a, b in pairwise(edges)]
