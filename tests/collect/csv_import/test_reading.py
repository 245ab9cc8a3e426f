"""The user's options for columns and dates: what they say counts, and what contradicts is said."""

from pathlib import Path
from typing import Any

import pytest

from bitstorm.collect.csv_import.importer import import_file, preview
from bitstorm.core.errors import BatchError, UsageError
from collect.faulty_server import NOW_MS
from collect.foreign_files import reading_of


def read(folder: Path, text: str, **options: Any) -> list[tuple[str, ...]]:
    file = folder / "file.csv"
    file.write_text(text)
    return list(preview(file, reading_of(file, **options)).rows)


def notes(folder: Path, text: str, **options: Any) -> str:
    (folder / "file.csv").write_text(text)
    return "\n".join(reading_of(folder / "file.csv", **options).notes)


@pytest.mark.parametrize(
    ("pattern", "text", "time"),
    [
        ("%d/%m/%Y", "01/05/2024", "2024-05-01T00:00:00Z"),
        ("%m/%d/%Y", "01/05/2024", "2024-01-05T00:00:00Z"),
        ("%m/%d/%y", "1/5/24", "2024-01-05T00:00:00Z"),
        ("%y/%m/%d", "24/01/05", "2024-01-05T00:00:00Z"),
        ("%Y-%d-%m", "2024-01-05", "2024-05-01T00:00:00Z"),
        ("%d.%m.%Y %H:%M", "01.05.2024 13:45", "2024-05-01T13:45:00Z"),
        ("%d/%m/%Y %I:%M %p", "01/05/2024 01:45 pm", "2024-05-01T13:45:00Z"),
        ("%b %d, %Y", '"May 1, 2024"', "2024-05-01T00:00:00Z"),
        ("%A %d %B %Y at %Hh%M", "Wednesday 01 May 2024 at 13h45", "2024-05-01T13:45:00Z"),
        ("%Y%j", "2024122", "2024-05-01T00:00:00Z"),
        ("%Y%m%d%H", "2024050113", "2024-05-01T13:00:00Z"),
        ("%d/%b/%Y:%H:%M:%S %z", "01/May/2024:13:45:00 +0200", "2024-05-01T11:45:00Z"),
        ("%Y-%m-%dT%H:%M:%S.%fZ", "2024-05-01T13:45:00.250Z", "2024-05-01T13:45:00.250Z"),
        ("%G-W%V-%u", "2024-W18-3", "2024-05-01T00:00:00Z"),
    ],
)
def test_a_stated_pattern_counts(tmp_path: Path, pattern: str, text: str, time: str) -> None:
    body = f"time;price\n{text};1.5\n"
    columns = {"timestamp_column": "time", "price_column": "price"}
    assert read(tmp_path, body, date_format=pattern, **columns) == [(time, "1.5")]


@pytest.mark.parametrize(
    "pattern",
    ["", "DD.MM.YYYY", "dd/mm/yyyy", "%d.%m", "%Y", "%H:%M", "%-d.%-m.%Y", "%s", "%Q", "%", "iso",
     "%d%d%m%Y", "%U %Y"],
)  # fmt: skip
def test_a_pattern_of_no_whole_date_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match=r"--date-format: .*'%d\.%m\.%Y'"):
        read(tmp_path, "timestamp,price\n01.05.2024,1\n", date_format=pattern)


def test_a_pattern_that_no_stamp_has_is_refused(tmp_path: Path) -> None:
    text = 'timestamp,price\n"May 1, 2024",1\n'
    with pytest.raises(UsageError, match=r"no stamp in 'timestamp' .* %d\.%m\.%Y; .* 'May 1"):
        read(tmp_path, text, date_format="%d.%m.%Y")
    with pytest.raises(UsageError, match="--date-format and --unit"):
        read(tmp_path, text, date_format="%b %d, %Y", unit="iso")


def test_a_stamp_of_another_form_stays_unreadable(tmp_path: Path) -> None:
    text = "timestamp,price\n01/05/2024,1\n2024-05-02,2\n1714608000,3\n31/31/2024,4\nsoon,5\n"
    rows = read(tmp_path, text, date_format="%d/%m/%Y")
    remark = " (not dates of the form %d/%m/%Y)"
    assert [row[0] for row in rows] == [
        "2024-05-01T00:00:00Z", f"2024-05-02{remark}", f"1714608000{remark}",
        f"31/31/2024{remark}", "soon",
    ]  # fmt: skip


def test_ambiguous_dates_are_asked_with_the_ways_to_answer(tmp_path: Path) -> None:
    text = "timestamp,price\n01/05/2024,1\n02/05/2024,2\n"
    with pytest.raises(UsageError, match=r"which number is the day .*'01/05/2024'") as asked:
        read(tmp_path, text)
    assert "--date-format '%d/%m/%Y'" in str(asked.value)
    assert "--date-format '%m/%d/%Y'" in str(asked.value)


def test_a_guess_is_shown_and_stated_in_the_sidecar(tmp_path: Path) -> None:
    text = "timestamp,price\n13/05/2024,1\n"
    assert "dates of the form %d/%m/%Y" in notes(tmp_path, text)
    file = tmp_path / "file.csv"
    landed = import_file(file, tmp_path / "landing", reading_of(file), clock=lambda: NOW_MS)
    request = landed.batch.sidecar.request
    assert (request["unit"], request["date_format"]) == ("date", "%d/%m/%Y")


def test_a_date_is_of_the_stated_zone(tmp_path: Path) -> None:
    text = "timestamp,price\n31/03/2024 02:30,1\n13/05/2024 02:30,2\n"
    rows = read(tmp_path, text, timezone="Europe/Berlin")
    assert rows[0][0].endswith("(the clock of Europe/Berlin shows this never or twice)")
    assert rows[1] == ("2024-05-13T00:30:00Z", "2")


@pytest.mark.parametrize("value", ["45335", "45335.5", "45335,5"])
def test_day_numbers_are_flagged(tmp_path: Path, value: str) -> None:
    text = f"timestamp;price\n{value};1.5\n"
    assert read(tmp_path, text)[0][0].startswith("2024-02-13T")
    assert "serial dates of Excel" in notes(tmp_path, text)


@pytest.mark.parametrize("value", ["12345", "1107782400", "987654", "2707782400000"])
def test_times_that_bitcoin_cannot_have_are_pointed_out(tmp_path: Path, value: str) -> None:
    text = f"timestamp,price\n{value},1.5\n"
    assert "before Bitcoin's first day or in the future" in notes(tmp_path, text)
    assert "before Bitcoin" not in notes(tmp_path, "timestamp,price\n1707782400,1.5\n")


@pytest.mark.parametrize("rows", ["", "\n\n", "1707782400\n", "1,2,3\n# end\n"])
def test_a_header_without_a_row_is_said_so(tmp_path: Path, rows: str) -> None:
    with pytest.raises(BatchError, match=r"file\.csv has a header and no row"):
        read(tmp_path, f"timestamp,price\n{rows}")


@pytest.mark.parametrize("zone", [None, "Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize(
    "text",
    ["0001-01-01", "0001-01-01T00:00+14:00", "9999-12-31T23:59:59", "9999-12-31T23:59:59-10:00",
     "253402300799999", "253402300799"],
)  # fmt: skip
def test_a_time_at_the_ends_of_the_calendar_is_a_bad_row(
    tmp_path: Path, zone: str | None, text: str
) -> None:
    body = f"timestamp,price\n{text},1\n2024-02-13,1\n2024-02-14,1\n"
    for options in ({}, {"stamp": "open", "bar": "1d"}):
        rows = read(tmp_path, body, timezone=zone, **options)
        assert rows[0] == (f"{text} (not ISO-8601)", "1")


# Columns


@pytest.mark.parametrize(
    ("header", "row", "column"),
    [
        ("day,clock,price", "2024-05-01,13:45,1.5", "day+clock"),
        ("clock,day,price", "13:45:00,2024-05-01,1.5", "day+clock"),
        ("day,clock,price", "05/01/2024,1:45 PM,1.5", "day+clock"),
        ("day,clock,price", "20240501,134500,1.5", "day+clock"),
        ("day,clock,price", "20240501,1345,1.5", "day+clock"),
        ("a+b,clock,price", "2024-05-01,13:45,1.5", "a+b+clock"),
        ("day,c+d+,price", "2024-05-01,13:45,1.5", "day+c+d+"),
        ("day+clock,day,price", "2024-05-01 13:45,x,1.5", "day+clock"),
    ],
)
def test_date_and_time_in_two_columns(tmp_path: Path, header: str, row: str, column: str) -> None:
    pattern = {"date_format": "%m/%d/%Y %I:%M %p"} if "PM" in row else {}
    rows = read(tmp_path, f"{header}\n{row}\n", timestamp_column=column, **pattern)
    assert rows == [("2024-05-01T13:45:00Z", "1.5")]


@pytest.mark.parametrize("column", ["day+hour", "+clock", "day+", "day+clock+price", "+"])
def test_two_columns_that_are_not_there_are_refused(tmp_path: Path, column: str) -> None:
    with pytest.raises(UsageError, match=r"there is no column.*day, clock, price"):
        read(tmp_path, "day,clock,price\n2024-05-01,13:45,1.5\n", timestamp_column=column)


@pytest.mark.parametrize(
    "options",
    [
        {"timestamp_column": "price", "price_column": "price"},
        {"timestamp_column": "price+close", "price_column": "close"},
        {"timestamp_column": "price+close", "price_column": "price", "auto": True},
    ],
)
def test_one_column_is_never_time_and_price(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be the column of both time and price"):
        read(tmp_path, "price,close\n1707782400,1.5\n", **options)


def test_the_other_column_is_taken_where_one_is_named(tmp_path: Path) -> None:
    text = "price,close\n1707782400,1.5\n"
    rows = read(tmp_path, text, auto=True, timestamp_column="price")
    assert rows == [("2024-02-13T00:00:00Z", "1.5")]
    with pytest.raises(UsageError, match="which column is the price"):
        read(tmp_path, "price,last\n1707782400,1.5\n", auto=True, timestamp_column="price")
    with pytest.raises(UsageError, match="which column is the timestamp"):
        read(tmp_path, "time,last\n1707782400,1.5\n", auto=True, price_column="time")


def test_a_clock_alone_is_no_time(tmp_path: Path) -> None:
    text = "date,time,close\n2024-05-01,13:45,1.5\n"
    assert read(tmp_path, text, auto=True) == [("2024-05-01T13:45:00Z", "1.5")]
    whole = "date,time,close\nx,1707782400,1.5\n"
    assert read(tmp_path, whole, auto=True) == [("2024-02-13T00:00:00Z", "1.5")]
