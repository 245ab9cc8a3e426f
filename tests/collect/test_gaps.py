"""Slots of a grid: what is missing is told once, in its right state, as sets of slots have it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.collect.gaps import Silence, gaps, occupied
from bitstorm.core.time import HOUR_MS, Span, merged
from core.spans import held, many

STEP = 10


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


@given(
    st.lists(slots, max_size=4),
    st.lists(slots, max_size=4),
    st.lists(slots, max_size=5),
    st.integers(0, 200),
    st.sampled_from([5, 10, 20, 50]),
)
def test_silent_and_empty_slots_tell_their_requests(
    present: list[Span], final: list[Span], quiet: list[Span], reach: int, step: int
) -> None:
    silences = [Silence(*s, tries=1, asked_ms=n) for n, s in enumerate(merged(quiet), start=1)]
    present = merged(Span(s.start // step * step, -(-s.end // step) * step) for s in present)
    found = gaps(
        Span(0, 200), present, final=final, had=[], reach_ms=reach, step=step, silences=silences
    )
    told = {at: gap for gap in found for at in range(gap.start_ms, min(gap.end_ms, 200), step)}
    for start in range(0, 200, step):
        slot = set(range(start, start + step))
        if slot <= held(present):
            assert start not in told
            continue
        gap = told[start]
        touching = [one for one in silences if slot & set(range(one.start, one.end))]
        if slot <= held(final):
            assert gap.state == "empty"
        elif start < reach:
            assert gap.state == "unreachable"
        else:
            assert gap.state == ("silent" if slot <= held(quiet) else "open")
        asked = gap.state in ("silent", "empty") and touching
        assert gap.asked_ms in ([one.asked_ms for one in touching] if asked else [None])
        assert gap.next_ms == (gap.asked_ms + HOUR_MS if gap.state == "silent" else None)  # type: ignore[operator]
    assert sum(gap.missing for gap in found) == len(told)


def test_where_nobody_can_be_asked_nothing_is_open() -> None:
    found = gaps(Span(0, 50), [Span(0, 10)], final=[], had=[], reach_ms=None, step=STEP)
    assert [(gap.missing, gap.state) for gap in found] == [(4, "unreachable")]
