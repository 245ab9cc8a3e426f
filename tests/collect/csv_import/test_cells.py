"""Dates of any look: the pattern is found, or asked where day and month can be exchanged."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.collect.csv_import.cells import StampForm, guessed_stamps
from bitstorm.core.time import parse_instant

# 40 days or half-days from here show each order of day and month.
START = datetime(2024, 1, 20, 9, tzinfo=UTC)
DATES = [
    "%b %d, %Y", "%B %d, %Y", "%d %b %Y", "%d %B %Y", "%d-%b-%Y", "%d-%b-%y", "%d. %B %Y",
    "%b-%d-%Y", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d",
    "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%y/%m/%d", "%-d/%-m/%Y", "%-m/%-d/%Y", "%-d.%-m.%y",
    "%Y-%-m-%-d", "%Y%m%d", "%a %b %d %Y", "%A, %B %d, %Y", "%a, %d %b %Y",
]  # fmt: skip
MOMENTS = [
    "%Y.%m.%d %H:%M:%S", "%Y.%m.%d %H:%M", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M %p", "%-m/%-d/%Y %-I:%M:%S %p", "%-m/%-d/%y %-H:%M", "%d/%m/%Y, %H:%M:%S",
    "%Y-%m-%d %-H:%M", "%Y-%m-%d %I-%p", "%Y-%m-%d %I%p", "%Y-%m-%d %I:%M:%S %p", "%Y%m%d %H%M%S",
    "%Y%m%d %H:%M", "%Y%m%d%H%M", "%Y%m%d%H%M%S", "%H:%M %d/%m/%Y", "%b %d %Y %H:%M:%S",
    "%d.%m.%Y %H:%M:%S.000 GMT+0000", "%a, %d %b %Y %H:%M:%S GMT", "%Y/%m/%d %H:%M:%S UTC",
    "%a %b %d %Y %H:%M:%S GMT+0000", "%m/%d/%Y %H:%M:%S+0000", "%Y.%m.%dT%H:%M:%SZ",
    "%Y-%m-%dT%H:%M:%S.000Z", "%Y-%m-%d %H:%M:%S+00:00", "%Y-%m-%d %H:%M:%S UTC",
]  # fmt: skip


def moments(texts: list[str]) -> list[int | None] | tuple[str, ...]:
    """Unix ms of each text in the form that is found; the patterns where it has to be asked."""
    unit, patterns = guessed_stamps(texts)
    assert unit is not None, texts[0]
    if len(patterns) > 1:
        return patterns
    by_size = unit in ("s", "ms", "us", "ns")
    form = StampForm(unit, by_size=by_size, pattern="".join(patterns))
    return [form.moment(text) for text in texts]


@pytest.mark.parametrize("pattern", [*DATES, *MOMENTS])
def test_a_date_is_read_in_the_form_it_is_written(pattern: str) -> None:
    step = timedelta(days=1) if pattern in DATES else timedelta(hours=12)
    first = START.replace(hour=0) if pattern in DATES else START
    times = [first + step * n for n in range(40)]
    stamps = [int(time.timestamp()) * 1000 for time in times]
    assert moments([f"{time:{pattern}}" for time in times]) == stamps


@given(
    st.dates(datetime(2009, 1, 3).date(), datetime(2025, 12, 31).date()),
    st.integers(1, 40),
    st.sampled_from([p for p in DATES if "%b" not in p and "%B" not in p]),
)
@settings(max_examples=200, deadline=None)
def test_a_date_is_read_right_or_asked(first: Any, count: int, pattern: str) -> None:
    days = [first + timedelta(days=n) for n in range(count)]
    read = moments([f"{day:{pattern}}" for day in days])
    if isinstance(read, tuple):
        # Asked, and never of a year in front with four digits.
        assert len(read) > 1 and "%Y" not in pattern[:2]
        assert pattern.replace("-d", "d").replace("-m", "m") in read
    else:
        assert read == [parse_instant(day.isoformat()) for day in days]


@pytest.mark.parametrize(
    ("texts", "patterns"),
    [
        (["01/05/2024"], {"%d/%m/%Y", "%m/%d/%Y"}),
        (["01/05/2024", "02/05/2024", "12/05/2024"], {"%d/%m/%Y", "%m/%d/%Y"}),
        (["05/05/2024"], {"%d/%m/%Y", "%m/%d/%Y"}),
        (["05.02.2024 13:00"], {"%d.%m.%Y %H:%M", "%m.%d.%Y %H:%M"}),
        (["5-2-2024"], {"%d-%m-%Y", "%m-%d-%Y"}),
        (["01/05/2024 1:00 PM"], {"%d/%m/%Y %I:%M %p", "%m/%d/%Y %I:%M %p"}),
        (["10/11/12"], {"%d/%m/%y", "%m/%d/%y", "%y/%m/%d"}),
        (["13/02/24"], {"%d/%m/%y", "%y/%m/%d"}),
        # A spreadsheet has exchanged what it could: no order reads all.
        (["13/02/2024", "02/14/2024"], {"%d/%m/%Y", "%m/%d/%Y"}),
        (["13/02/2024", "14/02/2024", "02/15/2024"], {"%d/%m/%Y", "%m/%d/%Y"}),
    ],
)
def test_day_and_month_are_never_guessed(texts: list[str], patterns: set[str]) -> None:
    unit, found = guessed_stamps(texts)
    assert (unit, set(found)) == ("date", patterns)


@pytest.mark.parametrize(
    "texts",
    [["soon"], [""], ["n/a", "-"], ["12:30"], ["Feb"], ["13 Brumaire 2024"], ["5.2."],
     ["13 Feb 2024 00:00 EST"], ["%d.%m.%Y"], ["2024-02-31x"], []],
)  # fmt: skip
def test_what_is_no_date_is_none(texts: list[str]) -> None:
    assert guessed_stamps(texts) == (None, ())


def test_a_date_without_a_year_or_zone_of_ours_is_not_read() -> None:
    assert StampForm("date", pattern="%d.%m.%Y").moment("31.02.2024") is None
    assert StampForm("date", pattern="%Y%m%d").moment("2024111") is None
    zoned = StampForm("date", pattern="%d.%m.%Y %Z")
    assert zoned.moment("13.02.2024 UTC") == parse_instant("2024-02-13")
    assert zoned.moment("13.02.2024 CET") is None


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("45335", "2024-02-13"),
        ("45335.0", "2024-02-13"),
        ("45335.5", "2024-02-13T12:00"),
        ("45335,5", "2024-02-13T12:00"),
        ("45335.041667", "2024-02-13T01:00"),
        ("45335.0416666667", "2024-02-13T01:00"),
        ("45335.04167", "2024-02-13T01:00"),
        ("45335.0417", "2024-02-13T01:00"),
        ("45335.042", "2024-02-13T01:00"),
        ("45335.999988", "2024-02-13T23:59:59"),
        ("45335.000694", "2024-02-13T00:01"),
        ("39816", "2009-01-03"),
        ("41518.25", "2013-09-01T06:00"),
    ],
)
def test_a_spreadsheets_day_number_is_its_date(text: str, time: str) -> None:
    assert guessed_stamps([text]) == ("excel", ())
    assert StampForm("excel").moment(text) == parse_instant(time)


@pytest.mark.parametrize("text", ["4533", "453350", "39399", "73000", "45335.1.2", "-45335", "1e4"])
def test_another_number_is_no_day_number(text: str) -> None:
    assert StampForm("excel").moment(text) is None


@given(st.integers(1_231_000_000_000_000_000, 4_000_000_000_000_000_000))
def test_a_unix_time_shows_its_unit_by_its_size(ns: int) -> None:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 1000), ("ns", 1)):
        text = str(ns // size)
        assert guessed_stamps([text]) == (unit, ())
        stamp = ns // 10**9 * 1000 if unit == "s" else ns // 10**6
        assert StampForm(unit).moment(text) == stamp  # type: ignore[arg-type]
