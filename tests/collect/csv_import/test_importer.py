"""A foreign file becomes one batch: no row lost, no price at a wrong time, no guess unsaid."""

import csv
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.collect.csv_import.importer import Imported, import_file, preview
from bitstorm.core.errors import BatchError, UsageError
from bitstorm.core.time import DAY_MS, HOUR_MS
from collect.faulty_server import NOW_MS
from collect.foreign_files import reading_of
from collect.recordings import recording

COINBASE = "coinbase_btcusd_hourly_2017-07-01_2018-12-31.csv.gz"
COINGECKO = "coingecko_bitcoin_usd_daily_2013-04-28_2023-06-03.csv.gz"


def imported(file: Path, landing: Path, **options: Any) -> Imported:
    reading = reading_of(file, **options)
    return import_file(file, landing, reading, clock=lambda: NOW_MS)


def table(result: Imported) -> list[list[str]]:
    """Header and rows of the batch as text."""
    with result.batch.path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def taken(folder: Path, text: str, **options: Any) -> list[list[str]]:
    """The rows of the batch that comes of a file with this text."""
    file = folder / "file.csv"
    file.write_bytes(text.encode())
    return table(imported(file, folder / "landing", **{"auto": True, **options}))[1:]


# Real files


def test_bars_stamped_with_their_start_move_to_their_close(tmp_path: Path) -> None:
    file = recording(COINBASE)
    result = imported(file, tmp_path, auto=True, stamp="open", bar="1h")
    source = pd.read_csv(file, dtype=str)
    header, *rows = table(result)
    assert header == ["timestamp", "price"]
    assert [row[1] for row in rows] == source["close"].tolist()
    closes = [int(s) * 1000 + HOUR_MS for s in source["timestamp_s"]]
    assert [int(row[0]) for row in rows] == closes
    sidecar = result.batch.sidecar
    assert sidecar.corrections == [{"stamp": "open", "shifted_ms": HOUR_MS}]
    assert (sidecar.rows, sidecar.granularity_ms) == (len(source), HOUR_MS)
    assert (sidecar.first_ms, sidecar.last_ms) == (closes[0], closes[-1])
    assert (sidecar.source, sidecar.fetched_at) == ("csv", NOW_MS)


def test_a_bars_own_volume_is_not_a_rolling_one(tmp_path: Path) -> None:
    header = table(imported(recording(COINBASE), tmp_path, auto=True))[0]
    assert header == ["timestamp", "price"]


def test_coingeckos_history_keeps_every_digit(tmp_path: Path) -> None:
    file = recording(COINGECKO)
    result = imported(file, tmp_path, auto=True, daily_switch="keep")
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        source = list(csv.DictReader(stream))
    header, *rows = table(result)
    assert header == ["timestamp", "price", "market_cap", "volume_24h"]
    names = ("timestamp_ms", "price_usd", "market_cap_usd", "total_volume_usd")
    assert rows == [[line[name] for name in names] for line in source]
    assert result.batch.sidecar.granularity_ms == DAY_MS
    assert any("2018-01-30" in note for note in result.notes)


def test_a_bar_without_a_word_about_its_stamp_is_pointed_out() -> None:
    notes = reading_of(recording(COINBASE), auto=True).notes
    assert any("--stamp open" in note for note in notes)
    said = reading_of(recording(COINBASE), auto=True, stamp="open", bar="1h").notes
    assert not any("--stamp open" in note for note in said)


def test_a_preview_shows_the_first_rows_as_they_would_land(tmp_path: Path) -> None:
    file = recording(COINBASE)
    reading = reading_of(file, auto=True, stamp="open", bar="1h")
    shown = preview(file, reading, rows=2)
    assert shown.columns == ("timestamp", "price")
    assert shown.rows == (("2017-07-01T12:00:00Z", "2509.17"), ("2017-07-01T13:00:00Z", "2488.43"))
    assert shown.notes == reading.notes
    assert any("'timestamp_s'" in note and "'close'" in note for note in shown.notes)


# Stamps


@pytest.mark.parametrize(
    ("text", "unit", "stamp"),
    [
        ("1500000000", "s", "1500000000000"),
        ("1500000000.25", "s", "1500000000250"),
        ("1500000000123", "ms", "1500000000123"),
        ("1500000000123999", "us", "1500000000123"),
        ("2017-07-14T02:40:00Z", "iso", "1500000000000"),
        ("2017-07-14 02:40:00", "iso", "1500000000000"),
        ("2017-07-14T04:40:00+02:00", "iso", "1500000000000"),
        ("2017-07-14", "iso", "1499990400000"),
        ("2017-07-14T02:40:00.123456Z", "iso", "1500000000123"),
    ],
)
def test_a_stamp_of_each_unit_becomes_milliseconds(
    tmp_path: Path, text: str, unit: Any, stamp: str
) -> None:
    body = f"time,price\n{text},5.5\n"
    assert taken(tmp_path, body, unit=unit) == [[stamp, "5.5"]]
    # The unit is recognised by the size or form as well.
    assert taken(tmp_path, body) == [[stamp, "5.5"]]


@given(st.integers(1_300_000_000_000, 4_000_000_000_000), st.sampled_from(["1m", "1h", "1d"]))
@settings(max_examples=30, deadline=None)
def test_units_agree_and_a_shift_is_exactly_a_bar(
    tmp_path_factory: pytest.TempPathFactory, stamp: int, bar: str
) -> None:
    folder = tmp_path_factory.mktemp("foreign")
    moment = pd.Timestamp(stamp, unit="ms", tz="UTC").isoformat()
    texts = (f"{stamp // 1000}.{stamp % 1000:03d}", str(stamp), f"{stamp}000", moment)
    plain = {taken(folder, f"time,price\n{text},1\n")[0][0] for text in texts}
    assert plain == {str(stamp)}
    shifted = {taken(folder, f"time,price\n{t},1\n", stamp="open", bar=bar)[0][0] for t in texts}
    length = {"1m": 60_000, "1h": HOUR_MS, "1d": DAY_MS}[bar]
    assert shifted == {str(stamp + length)}


@pytest.mark.parametrize(
    ("text", "unit", "landed"),
    [
        ("soon", "s", "soon"),
        ("", "s", ""),
        ("1.5E+12", "ms", "1.5E+12 (not Unix milliseconds)"),
        ("2017-07-01 11-AM", "iso", "2017-07-01 11-AM (not ISO-8601)"),
        # What ingest could read, but in another unit or unshifted, has to stay unreadable.
        ("2017-07-14T02:40:00Z", "s", "2017-07-14T02:40:00Z (not Unix seconds)"),
        ("1500000000", "iso", "1500000000 (not ISO-8601)"),
        ("-1500000000", "s", "-1500000000 (not Unix seconds)"),
        # Milliseconds this small would be read as seconds: 1970, not 2017.
        ("1500000000", "ms", "1970-01-18T08:40:00Z"),
    ],
)
def test_what_cannot_be_read_lands_as_text_for_ingest(
    tmp_path: Path, text: str, unit: Any, landed: str
) -> None:
    assert taken(tmp_path, f"time,price\n{text},5.5\n", unit=unit) == [[landed, "5.5"]]


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8),
            st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8),
        ),
        min_size=1,
        max_size=10,
    )
)
@settings(max_examples=60, deadline=None)
def test_every_row_of_the_file_is_a_row_of_the_batch(
    tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]]
) -> None:
    # A line that begins with # is a comment.
    lines = [f"{a.replace('#', '_')},{b}" for a, b in cells]
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "file.csv").write_bytes("\n".join(["time,price", "1500000000,1", *lines]).encode())
    result = imported(folder / "file.csv", folder / "landing", auto=True, unit="s")
    rows = table(result)[1:]
    assert len(rows) == result.rows == len(lines) + 1
    assert result.batch.path.read_bytes().count(b"\n") == len(lines) + 2
    assert all(len(row) == 2 for row in rows)


def test_prices_land_as_their_text_good_or_not(tmp_path: Path) -> None:
    prices = ["8765.4321000000001", "1e4", "n/a", "", "-5", '"1,234.5"', " 7 "]
    body = "time,price\n" + "".join(f"1500000000,{price}\n" for price in prices)
    rows = taken(tmp_path, body)
    assert [row[1] for row in rows] == ["8765.4321000000001", "1e4", "n/a", "", "-5", "1234.5", "7"]


def test_a_row_with_a_cell_too_many_is_not_half_believed(tmp_path: Path) -> None:
    rows = taken(tmp_path, "time,price\n1500000000,1,234.5\n1500000060\n1500000120,9\n")
    assert rows == [
        ["1500000000,1,234.5 (3 cells, the header has 2)", ""],
        ["1500000060 (1 cells, the header has 2)", ""],
        ["1500000120000", "9"],
    ]


def test_a_stray_quote_costs_its_own_row(tmp_path: Path) -> None:
    rows = taken(tmp_path, 'time,price\n"1500000000,1\n1500000060,2\n1500000120,3\n')
    assert len(rows) == 3
    assert rows[1:] == [["1500000060000", "2"], ["1500000120000", "3"]]


# Files of all sorts


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbftime,close\r\n1500000000,5\r\n",
        b"time;close\n1500000000;5\n",
        b"time\tclose\n1500000000\t5",
        b'"Time","Close"\n"1500000000","5"\n\n',
        b"https://www.example.com\ntime,close\n1500000000,5\n",
        b"no,TIME,caf\xe9,Close\n1,1500000000,\xff,5\n",
        gzip.compress(b"time,close\n1500000000,5\n"),
    ],
    ids=["BOM", "semicolons", "tabs", "quotes", "preamble", "Latin-1", "gzip"],
)
def test_files_of_other_habits_are_read(tmp_path: Path, body: bytes) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(body)
    if b"\xe9" in body:
        with pytest.raises(BatchError, match="UTF-8"):
            reading_of(file, auto=True)
        return
    assert table(imported(file, tmp_path / "landing", auto=True)) == [
        ["timestamp", "price"],
        ["1500000000000", "5"],
    ]


def test_columns_by_name_win_over_the_common_ones(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text("timestamp,open,close,when\n1,2,3,1500000000\n")
    result = imported(file, tmp_path, timestamp_column="when", price_column="open")
    assert table(result)[1:] == [["1500000000000", "2"]]


def test_our_own_columns_need_no_word(tmp_path: Path) -> None:
    header = "timestamp,price_usd,market_cap,volume_24h,price_change_24h"
    file = tmp_path / "file.csv"
    file.write_text(f"{header}\n1500000000123,2,3,4,5\n")
    assert table(imported(file, tmp_path / "landing")) == [
        ["timestamp", "price", "market_cap", "volume_24h", "price_change_24h"],
        ["1500000000123", "2", "3", "4", "5"],
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "which column is the timestamp.*--format auto.*when, open, last"),
        ({"timestamp_column": "time"}, "no column 'time'.*when, open, last"),
        ({"timestamp_column": "when", "auto": True}, "which column is the price.*--price-column"),
        ({"stamp": "open"}, "--bar 1h"),
        ({"bar": "an hour"}, "--bar: 'an hour' is not a duration"),
        ({"timestamp_column": "last", "price_column": "open"}, "neither Unix times nor ISO-8601"),
    ],
)
def test_options_that_do_not_fit_say_what_is_there(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    file = tmp_path / "file.csv"
    file.write_text("when,open,last\n1500000000,2,soon\n")
    with pytest.raises(UsageError, match=words) as raised:
        reading_of(file, **options)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no header"),
        (b"just text\n", "no header"),
        (b"time,price\n", "no rows"),
        (b"time,price,price\n1500000000,1,2\n", "'price' more than once"),
        ("time,price\n1500000000,1\n".encode("utf-16"), "not UTF-8"),
        (gzip.compress(b"time,price\n1500000000,1\n" * 500)[:-20], "cannot be decompressed"),
    ],
    ids=["empty", "text", "no rows", "repeated column", "UTF-16", "cut gzip"],
)
def test_a_file_that_is_no_table_is_refused_as_a_whole(
    tmp_path: Path, body: bytes, words: str
) -> None:
    file = tmp_path / "file.csv"
    file.write_bytes(body)
    with pytest.raises((BatchError, UsageError), match=words):
        imported(file, tmp_path / "landing", auto=True, unit="s")
    assert list(tmp_path.glob("landing/*")) == []


def test_an_archive_cut_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    lines = "".join(f"{1500000000 + n},{n * 7919 % 100003}\n" for n in range(20_000))
    file = tmp_path / "file.csv.gz"
    file.write_bytes(gzip.compress(f"time,price\n{lines}".encode())[:-2000])
    reading = reading_of(file, auto=True)
    with pytest.raises(BatchError, match="cannot be decompressed"):
        import_file(file, tmp_path / "landing", reading)
    assert list(tmp_path.glob("landing/*")) == []


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="there is no file"):
        reading_of(tmp_path / "nowhere.csv")
    with pytest.raises(BatchError, match="cannot be read"):
        reading_of(tmp_path)


def test_a_bar_that_is_not_the_rows_distance_is_pointed_out(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text("time,close\n" + "".join(f"{1500000000 + n * 86400},1\n" for n in range(9)))
    notes = reading_of(file, auto=True, stamp="open", bar="1h").notes
    assert "a bar is 1h but most rows are 1d apart" in notes


# Again, and large


def test_the_same_file_again_is_the_same_batch(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text("time,close\n1500000000,1\n")
    first = imported(file, tmp_path / "landing", auto=True)
    moved = tmp_path / "other.csv"
    moved.write_bytes(file.read_bytes())
    second = import_file(moved, tmp_path / "landing", reading_of(moved, auto=True))
    assert (first.batch.new, second.batch.new) == (True, False)
    assert second.batch.path == first.batch.path
    assert second.batch.sidecar == first.batch.sidecar
    shifted = imported(file, tmp_path / "landing", auto=True, stamp="open", bar="1h")
    assert shifted.batch.new
    assert first.batch.path.name.startswith("bitcoin_prices_20170714_024000_import_")


def test_the_sidecar_names_file_columns_and_unit(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text("time,close\n1500000000,1\n")
    path = imported(file, tmp_path, auto=True).batch.path
    sidecar = json.loads(path.with_name(path.name + ".json").read_bytes())
    assert sidecar["request"] == {
        "file": "file.csv",
        "columns": {"timestamp": "time", "price": "close"},
        "unit": "s",
    }


def test_a_hundred_thousand_rows_take_no_two_seconds(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    with file.open("w") as stream:
        stream.write("time,close\n")
        stream.writelines(f"{1500000000 + n * 60},{1000 + n / 100}\n" for n in range(100_000))
    begun = time.process_time()
    result = imported(file, tmp_path / "landing", auto=True)
    assert time.process_time() - begun < 2
    assert result.rows == 100_000
