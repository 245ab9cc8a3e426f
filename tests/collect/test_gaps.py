"""Slots of a grid: what is missing is told once, in its right state, as sets of slots have it."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.collect.gaps import gaps, occupied
from bitstorm.core.time import Span, hull, length, merged, minus, overlap, whole

STEP = 10

moments = st.integers(0, 200)
spans = st.tuples(moments, moments).map(lambda pair: Span(min(pair), max(pair)))
many = st.lists(spans, max_size=8)


def held(found: list[Span]) -> set[int]:
    return {moment for span in found for moment in range(*span)}


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


@given(st.lists(st.integers(-500, 500)))
def test_a_stamp_occupies_the_slot_that_ends_at_it_or_after_it(stamps: list[int]) -> None:
    found = occupied(np.array(stamps, dtype=np.int64), STEP)
    ends = {end for s in found for end in range(s.start + STEP, s.end + 1, STEP)}
    assert ends == {next(e for e in range(s, s + STEP) if e % STEP == 0) for s in stamps}
    assert found == merged(found)


slots = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(
    lambda pair: Span(min(pair) * STEP, max(pair) * STEP)
)


@given(st.lists(slots, max_size=5), many, st.lists(slots, max_size=4), st.integers(0, 200))
def test_gaps_are_those_of_a_plain_loop(
    present: list[Span], final: list[Span], had: list[Span], reach: int
) -> None:
    expected = Span(0, 200)
    found = gaps(expected, present, final=final, had=had, reach_ms=reach, step=STEP)
    states = {}
    for start in range(0, 200, STEP):
        slot = set(range(start, start + STEP))
        if slot <= held(present):
            continue
        if slot <= held(final):
            states[start] = "refused" if slot <= held(had) else "empty"
        else:
            states[start] = "open" if start >= reach else "unreachable"
    told = {s: gap.state for gap in found for s in range(gap.start_ms, gap.end_ms, STEP)}
    assert told == states
    assert sum(gap.missing for gap in found) == len(states)
    assert [gap.start_ms for gap in found] == sorted(gap.start_ms for gap in found)


def test_where_nobody_can_be_asked_nothing_is_open() -> None:
    found = gaps(Span(0, 50), [Span(0, 10)], final=[], had=[], reach_ms=None, step=STEP)
    assert [(gap.missing, gap.state) for gap in found] == [(4, "unreachable")]


def test_the_hull_holds_all() -> None:
    assert hull([Span(5, 7), Span(1, 2), Span(3, 9)]) == Span(1, 9)
