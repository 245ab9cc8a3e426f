"""Sets of spans, against sets of the moments that they hold."""

from itertools import pairwise

from hypothesis import given

from bitstorm.core.time import Span, hull, length, merged, minus, overlap, whole
from core.spans import held, many

STEP = 10


@given(many, many)
def test_sets_of_spans_are_sets_of_moments(ours: list[Span], others: list[Span]) -> None:
    for found, expected in (
        (merged(ours), held(ours)),
        (minus(ours, others), held(ours) - held(others)),
        (overlap(ours, others), held(ours) & held(others)),
    ):
        assert held(found) == expected
        assert length(found) == len(expected)
        # Merged: in order, and nothing touches.
        assert all(a.end < b.start for a, b in pairwise(found))


@given(many)
def test_whole_steps_are_those_that_are_covered_all_over(ours: list[Span]) -> None:
    covered = {n for n in range(-1, 21) if set(range(n * STEP, n * STEP + STEP)) <= held(ours)}
    found = whole(ours, step=STEP)
    assert {moment // STEP for moment in held(found)} == covered


def test_the_hull_holds_all() -> None:
    assert hull([Span(5, 7), Span(1, 2), Span(3, 9)]) == Span(1, 9)
