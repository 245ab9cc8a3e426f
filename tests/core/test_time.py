"""Durations and instants at the edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.core.time import age_text, duration_ms, duration_text, iso, parse_instant


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("30s", 30_000),
        ("5m", 300_000),
        ("5min", 300_000),
        ("1h", 3_600_000),
        ("1D", 86_400_000),
        ("1w", 604_800_000),
    ],
)
def test_durations_are_a_number_and_a_unit(text, milliseconds):
    assert duration_ms(text) == milliseconds


@pytest.mark.parametrize("text", ["", "h", "1", "-1h", "0h", "1.5h", "1 hour", "1mo"])
def test_anything_else_is_no_duration(text):
    with pytest.raises(ValueError, match="duration"):
        duration_ms(text)


@given(st.integers(min_value=1, max_value=10**12))
def test_the_text_of_a_duration_means_the_duration(milliseconds):
    assert duration_ms(duration_text(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2021-01-01", 1_609_459_200_000),
        ("2021-01-01T01:00:00+01:00", 1_609_459_200_000),
        ("1609459200", 1_609_459_200_000),
        ("1609459200123", 1_609_459_200_123),
    ],
)
def test_an_instant_is_iso_or_unix_and_utc_by_default(text, milliseconds):
    assert parse_instant(text) == milliseconds


def test_what_is_no_instant_is_refused():
    with pytest.raises(ValueError, match="ISO-8601"):
        parse_instant("12:30")


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_iso_text_comes_back_as_the_same_millisecond(milliseconds):
    assert parse_instant(iso(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (95, "1 min 35 s"),
        (55 * 60 + 59, "55 min"),
        (3_600, "1 h"),
        (4_800, "1 h 20 min"),
        (3 * 3_600 + 3_599, "3 h"),
        (86_400, "1 day"),
        (29 * 3_600, "1 day 5 h"),
        (12 * 86_400, "12 days"),
        (2 * 31_557_600, "2 years"),
        (2 * 31_557_600 + 40 * 86_400, "2 years 40 days"),
    ],
)
def test_an_age_is_said_as_people_say_it(seconds, text):
    assert age_text(seconds * 1000 + 999) == text
    assert age_text(-1) == "0 s"
