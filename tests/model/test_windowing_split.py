"""The parts of the series: cut by time, in order, wherever the series lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.model.windowing import split_by_time

HOUR = 3_600_000


def parts(first_ms: int, last_ms: int, train: float, validation: float) -> tuple[int, int]:
    split = split_by_time(
        first_ms=first_ms, last_ms=last_ms, train_share=train, validation_share=validation
    )
    return split.train_until_ms, split.validate_until_ms


@pytest.mark.parametrize(
    ("hours", "train", "validation", "expected"),
    [
        (100, 0.70, 0.15, (70, 85)),
        (10, 0.7, 0.1, (7, 8)),  # 0.7 + 0.1 is 0.7999… in binary
        (90, 0.1, 0.2, (9, 27)),
        (1000, 0.57, 0.29, (570, 860)),
    ],
)
def test_a_share_of_whole_steps_ends_exactly_there(hours, train, validation, expected):
    first = 1_600_000_123_457
    found = parts(first, first + hours * HOUR, train, validation)
    assert found == tuple(first + step * HOUR for step in expected)


@given(
    first=st.integers(0, 4 * 10**12),
    span=st.integers(0, 10**12),
    train=st.floats(0.01, 0.9),
    rest=st.floats(0.01, 0.99),
)
def test_parts_are_in_order_inside_the_span_and_move_with_it(first, span, train, rest):
    validation = (1 - train) * rest
    train_until, validate_until = parts(first, first + span, train, validation)
    assert first <= train_until <= validate_until <= first + span
    assert train_until - first == pytest.approx(span * train, abs=1)
    assert validate_until - train_until == pytest.approx(span * validation, abs=2)
    assert parts(0, span, train, validation) == (train_until - first, validate_until - first)
