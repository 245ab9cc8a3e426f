"""Files of well-known origin are taken for what they are; habits of numbers, zones and banners."""

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest

from bitstorm.collect.csv_import.cells import guessed_decimal, number_text
from bitstorm.collect.csv_import.importer import Imported, import_file, preview
from bitstorm.core.errors import UsageError
from bitstorm.core.time import DAY_MS, HOUR_MS, parse_instant
from collect.faulty_server import NOW_MS
from collect.foreign_files import reading_of

# 2024-12-31T22:00Z and on; from 2025 on the stamps are microseconds.
BINANCE_MS = (
    "1735682400000,93500.10,93720.00,93400.00,93576.01,612.5,1735685999999,57301234.1,98012,"
    "301.2,28180000.5,0\n"
    "1735686000000,93576.01,93700.00,93300.00,93429.20,512.1,1735689599999,47888888.2,88012,"
    "251.2,23480000.5,0\n"
)
BINANCE_US = (
    "1735689600000000,93576.00,94509.42,93489.03,94401.14,755.99,1735693199999999,71064311.9,"
    "129000,401.1,37712345.6,0\n"
    "1735693200000000,94401.13,94408.72,93578.77,93607.74,586.53,1735696799999999,55154932.2,"
    "112000,280.9,26412345.6,0\n"
)
CDD = """https://www.CryptoDataDownload.com
unix,date,symbol,open,high,low,close,Volume BTC,Volume USD
1646107200,2022-03-01 04:00:00,BTC/USD,43221.71,43626.49,43185.48,43185.48,49.00,2116360.10
1646103600000,2022-03-01 03:00:00,BTC/USD,43085.30,43364.81,42892.37,43221.71,69.00,2986240.20
1646100000,2022-03-01 02:00:00,BTC/USD,43077.03,43109.16,42820.20,43085.30,59.00,2540000.30
"""
CDD_OLD = """https://www.CryptoDataDownload.com
Date,Symbol,Open,High,Low,Close,Volume BTC,Volume USD
2019-10-17 12-PM,BTCUSD,8051,8056.83,8021.23,8035.88,71.93,578200
2019-10-17 11-AM,BTCUSD,8051,8056.83,8021.23,8051,71.93,578200
2019-10-17 12-AM,BTCUSD,8000,8001,7999,8000.5,1,8000
"""


def imported(file: Path, landing: Path, **options: Any) -> Imported:
    return import_file(file, landing, reading_of(file, **options), clock=lambda: NOW_MS)


def taken(folder: Path, text: str | bytes, **options: Any) -> list[tuple[str, ...]]:
    """Time and price of each row of the batch."""
    file = folder / "file.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return rows_of(imported(file, folder / "landing", **{"auto": True, **options}))


def moved(folder: Path, text: str | bytes, **options: Any) -> list[tuple[str, ...]]:
    """The same of bars whose closes go to their ends."""
    return taken(folder, text, stamp="open", **options)


def rows_of(result: Imported) -> list[tuple[str, ...]]:
    with result.batch.path.open(encoding="utf-8", newline="") as stream:
        return [tuple(row[:2]) for row in list(csv.reader(stream))[1:]]


def at(text: str) -> str:
    return str(parse_instant(text))


# Binance


@pytest.mark.parametrize("packed", [False, True])
def test_binance_klines_have_their_closes_at_their_ends(tmp_path: Path, packed: bool) -> None:
    text = (BINANCE_MS + BINANCE_US).encode()
    rows = moved(tmp_path, gzip.compress(text) if packed else text)
    # Milliseconds in 2024, microseconds in 2025, one file.
    assert rows == [
        (at("2024-12-31T23:00Z"), "93576.01"),
        (at("2025-01-01T00:00Z"), "93429.20"),
        (at("2025-01-01T01:00Z"), "94401.14"),
        (at("2025-01-01T02:00Z"), "93607.74"),
    ]


@pytest.mark.parametrize("text", [BINANCE_MS, BINANCE_US])
def test_what_a_kline_is_taken_for_is_shown_and_stated(tmp_path: Path, text: str) -> None:
    file = tmp_path / "BTCUSDT-1h.csv"
    file.write_text(text)
    reading = reading_of(file, auto=True, stamp="open")
    shown = preview(file, reading, rows=1)
    assert shown.notes[0] == "recognised as klines of Binance"
    assert any("starts of bars of 1h" in note for note in shown.notes)
    result = import_file(file, tmp_path / "landing", reading, clock=lambda: NOW_MS)
    sidecar = result.batch.sidecar
    assert sidecar.corrections == [{"stamp": "open", "shifted_ms": HOUR_MS}]
    assert sidecar.granularity_ms == HOUR_MS
    assert sidecar.request["format"] == "binance"
    assert sidecar.request["columns"] == {"timestamp": "open_time", "price": "close"}


def test_stamps_of_a_known_file_stay_unless_told_otherwise(tmp_path: Path) -> None:
    assert taken(tmp_path, BINANCE_MS)[0] == (at("2024-12-31T22:00Z"), "93576.01")
    notes = reading_of(tmp_path / "file.csv", auto=True).notes
    assert any("starts of bars" in note and "--stamp open" in note for note in notes)


def test_klines_with_a_header_are_the_same_and_one_row_is_enough(tmp_path: Path) -> None:
    header = (
        "open_time,open,high,low,close,volume,close_time,quote_volume,count,"
        "taker_buy_volume,taker_buy_quote_volume,ignore\n"
    )
    row = BINANCE_MS.splitlines(keepends=True)[0]
    assert moved(tmp_path, header + row) == [(at("2024-12-31T23:00Z"), "93576.01")]
    assert moved(tmp_path, row) == [(at("2024-12-31T23:00Z"), "93576.01")]


def test_what_is_said_of_a_known_file_wins_over_what_is_known(tmp_path: Path) -> None:
    as_is = taken(tmp_path, BINANCE_MS, stamp="close")
    assert as_is[0] == (at("2024-12-31T22:00Z"), "93576.01")
    opens = taken(tmp_path, BINANCE_MS, price_column="open", stamp="close")
    assert opens[0] == (at("2024-12-31T22:00Z"), "93500.10")
    by_end = taken(tmp_path, BINANCE_MS, timestamp_column="close_time")
    assert by_end[0] == (str(1735685999999), "93576.01")
    assert moved(tmp_path, BINANCE_MS, bar="2h")[0] == (at("2025-01-01T00:00Z"), "93576.01")


def test_a_file_without_a_header_has_numbered_columns(tmp_path: Path) -> None:
    text = "1,x,1500000000,5.5\n2,y,1500003600,6.5\n"
    with pytest.raises(UsageError, match=r"1, x, 1500000000, 5\.5"):
        taken(tmp_path, text)  # a word among them: that may be a header
    text = text.replace("x", "0").replace("y", "0")
    with pytest.raises(UsageError, match=r"the file has: 1, 2, 3, 4 \(it has no header\)"):
        taken(tmp_path, text)
    rows = taken(tmp_path, text, timestamp_column="3", price_column="4")
    assert rows == [("1500000000000", "5.5"), ("1500003600000", "6.5")]


# CryptoDataDownload


def test_cryptodatadownload_bars_with_mixed_units_are_read(tmp_path: Path) -> None:
    file = tmp_path / "Coinbase_BTCUSD_1h.csv"
    file.write_text(CDD)
    result = imported(file, tmp_path / "landing", auto=True, stamp="open")
    assert rows_of(result) == [
        (at("2022-03-01T05:00Z"), "43185.48"),
        (at("2022-03-01T04:00Z"), "43221.71"),
        (at("2022-03-01T03:00Z"), "43085.30"),
    ]
    assert result.notes[0] == "recognised as bars of CryptoDataDownload"
    assert "1 line(s) before the header are left out" in result.notes
    assert any("newest to the oldest" in note for note in result.notes)
    sidecar = result.batch.sidecar
    assert (sidecar.first_ms, sidecar.last_ms) == tuple(
        parse_instant(t) for t in ("2022-03-01T03:00Z", "2022-03-01T05:00Z")
    )


def test_its_old_files_have_hours_with_am_and_pm(tmp_path: Path) -> None:
    assert moved(tmp_path, CDD_OLD, bar="1h") == [
        (at("2019-10-17T13:00Z"), "8035.88"),
        (at("2019-10-17T12:00Z"), "8051"),
        (at("2019-10-17T01:00Z"), "8000.5"),
    ]


def test_without_auto_nothing_is_recognised(tmp_path: Path) -> None:
    options = {"auto": False, "timestamp_column": "unix", "price_column": "close"}
    assert taken(tmp_path, CDD, **options)[0] == (at("2022-03-01T04:00Z"), "43185.48")


# Numbers


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("1234.5", ".", "1234.5"),
        ("1,234.5", ".", "1234.5"),
        ("1,234,567", ".", "1234567"),
        ("$1,234.50", ".", "1234.50"),
        ("-1'234.5", ".", "-1234.5"),
        ("1 234.5", ".", "1234.5"),
        ("1\u202f234\u202f567", ".", "1234567"),
        ("1e4", ".", "1e4"),
        ("1.234,56", ",", "1234.56"),
        ("1234,56", ",", "1234.56"),
        ("1 234,56 €", ",", "1234.56"),
        ("1.234", ",", "1234"),
        # Not such numbers: they stay as they are, for ingest to refuse.
        ("1,23,456", ".", "1,23,456"),
        ("1,234 567", ".", "1,234 567"),
        ("12,5", ".", "12,5"),
        ("n/a", ".", "n/a"),
        ("", ".", ""),
        ("", ",", ""),
        ("12.5", ",", "12.5 (no number with a decimal comma)"),
    ],
)
def test_a_number_lands_as_digits_and_a_point_or_as_its_text(
    text: str, decimal: Any, number: str
) -> None:
    assert number_text(text, decimal) == number


@pytest.mark.parametrize(
    ("texts", "guess"),
    [
        (["1234.5", "7"], (".", False)),
        (["1,234.50", "999.99"], (".", False)),
        (["1.234,50", "999,99"], (",", False)),
        (["1234,5"], (",", False)),
        (["1,234", "2,345"], (".", True)),
        (["1,5", "1.5"], (".", True)),
        (["", "n/a"], (".", False)),
    ],
)
def test_the_decimal_mark_is_guessed_only_from_what_shows_it(
    texts: list[str], guess: tuple[str, bool]
) -> None:
    assert guessed_decimal(texts) == guess


def test_a_european_file_is_read_as_it_is_meant(tmp_path: Path) -> None:
    text = (
        "Date;Close\n2024-01-01 00:00;42.265,19\n2024-01-01 01:00;42.491,5\n"
        "2024-01-01 02:00;\n2024-01-01 03:00;999,00\n"
    )
    rows = taken(tmp_path, text, timezone="Europe/Berlin")
    assert rows == [
        (at("2023-12-31T23:00Z"), "42265.19"),
        (at("2024-01-01T00:00Z"), "42491.5"),
        (at("2024-01-01T01:00Z"), ""),
        (at("2024-01-01T02:00Z"), "999.00"),
    ]


def test_a_comma_that_may_be_either_is_pointed_out(tmp_path: Path) -> None:
    file = tmp_path / "file.csv"
    file.write_text("date;close\n2024-01-01;1,234\n2024-01-02;1,235\n")
    assert any("--decimal" in note for note in reading_of(file, auto=True).notes)
    said = imported(file, tmp_path / "landing", auto=True, decimal=",")
    assert [price for _, price in rows_of(said)] == ["1.234", "1.235"]
    assert not any("--decimal" in note for note in said.notes)


# Times


def test_a_time_that_the_clock_skips_or_repeats_is_nobodys_guess(tmp_path: Path) -> None:
    rows = taken(
        tmp_path,
        "date,close\n2024-03-31 01:59,1\n2024-03-31 02:30,2\n2024-10-27 02:30,3\n"
        "2024-10-27 03:00,4\n2024-10-27T02:30+01:00,5\n",
        timezone="Europe/Berlin",
    )
    remark = "(the clock of Europe/Berlin shows this never or twice)"
    assert [time for time, _ in rows] == [
        at("2024-03-31T00:59Z"),
        f"2024-03-31 02:30 {remark}",
        f"2024-10-27 02:30 {remark}",
        at("2024-10-27T02:00Z"),
        at("2024-10-27T01:30Z"),
    ]


def test_a_zone_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no time zone 'Berlin'.*Europe/Berlin"):
        taken(tmp_path, "date,close\n2024-01-01,1\n", timezone="Berlin")


def test_a_unit_that_is_given_holds_for_every_row(tmp_path: Path) -> None:
    rows = taken(tmp_path, "time,close\n1500000000,1\n1500000060000,2\n", unit="s")
    assert rows == [("1500000000000", "1"), ("1500000060000 (not Unix seconds)", "2")]


# Beginnings


@pytest.mark.parametrize(
    "text",
    [
        "# prices, hourly, in USD\n# by nobody\ntime,close\n1500000000,5\n1500003600,6\n",
        "Prices of bitcoin, in USD\n\nno,time,close\n1,1500000000,5\n2,1500003600,6\n",
        "time|close\n1500000000|5\n# half time\n1500003600|6\n# end\n",
        "export 1.2\n\n\ntime\tclose\n1500000000\t5\n1500003600\t6\n",
    ],
    ids=["comments", "banner with commas", "comments between rows", "banner and blanks"],
)
def test_banners_and_comments_are_no_rows(tmp_path: Path, text: str) -> None:
    assert taken(tmp_path, text) == [("1500000000000", "5"), ("1500003600000", "6")]


def test_a_delimiter_that_is_said_is_taken(tmp_path: Path) -> None:
    text = "2024-01-01;1,5\n2024-01-02;2,5\n"
    options = {"timestamp_column": "1", "price_column": "2", "delimiter": ";"}
    assert taken(tmp_path, text, **options) == [
        (at("2024-01-01"), "1.5"),
        (at("2024-01-02"), "2.5"),
    ]


def test_a_daily_file_of_a_known_kind_has_bars_of_a_day(tmp_path: Path) -> None:
    lines = CDD.splitlines()
    days = [line.replace("1646103600000", "1646020800").replace("1646100000", "1645934400")
            for line in lines]  # fmt: skip
    rows = moved(tmp_path, "\n".join(days) + "\n")
    assert int(rows[0][0]) - 1646107200000 == DAY_MS
