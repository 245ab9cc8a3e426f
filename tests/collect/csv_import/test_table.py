"""What a file is shows in its first bytes; its header can have hints above and names below."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitstorm.collect.csv_import.importer import preview
from bitstorm.core.errors import BatchError
from collect.foreign_files import reading_of

TEXT = b"time,close\n1707782400,49699.6\n1707786000,49826.6\n"
ROWS = [("2024-02-13T00:00:00Z", "49699.6"), ("2024-02-13T01:00:00Z", "49826.6")]
TIMES = [datetime(2024, 2, 13, hour) for hour in (0, 1)]
UTC_TIMES = [moment.replace(tzinfo=UTC) for moment in TIMES]
PRICES = [49699.6, 49826.6]


def read(folder: Path, content: bytes | str, name: str = "file.csv", **options: Any) -> list[Any]:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    shown = preview(file, reading_of(file, **{"auto": True, **options}))
    return [row[:2] for row in shown.rows]


def zipped(*files: tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return content.getvalue()


def tarred() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        info = tarfile.TarInfo("file.csv")
        info.size = len(TEXT)
        archive.addfile(info, io.BytesIO(TEXT))
    return content.getvalue()


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table(columns), content, **options)
    return content.getvalue()


def encrypted() -> bytes:
    content = bytearray(zipped(("file.csv", TEXT)))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


# Containers


@pytest.mark.parametrize("name", ["file.csv", "file.zip", "file.gz", "file"])
@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        lzma.compress,
        bz2.compress,
        lambda text: zipped(("BTCUSDT-1h.csv", text)),
        lambda text: zipped(("data/", b""), ("data/BTC.TXT", text), ("__MACOSX/._x.csv", b"\0")),
        lambda text: zipped(("README.md", b"read me"), ("BTC.csv", text), ("BTC.CHECKSUM", b"ab")),
        lambda text: zipped(("BTC.csv.gz", gzip.compress(text))),
        lambda text: gzip.compress(lzma.compress(text)),
        lambda text: gzip.compress(text[:20]) + gzip.compress(text[20:]),
    ],
)
def test_a_packed_table_is_read_whatever_its_name(
    tmp_path: Path, pack: Callable[[bytes], bytes], name: str
) -> None:
    assert read(tmp_path, pack(TEXT), name) == ROWS


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (TEXT.decode().encode("utf-16"), "UTF-16 text, not UTF-8"),
        (zipped(), "an empty zip archive"),
        (zipped(("a.csv", TEXT), ("b.csv", TEXT)), r"holds a\.csv, b\.csv; expected one table"),
        (zipped(("[Content_Types].xml", b""), ("xl/workbook.xml", b"")), "a spreadsheet"),
        (zipped(("mimetype", b"application/vnd.oasis"), ("content.xml", b"")), "a spreadsheet"),
        (encrypted(), "is encrypted"),
        (tarred(), "a tar archive"),
        (b"\x28\xb5\x2f\xfd\x24", "Zstandard"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "7-Zip"),
        (b"Rar!\x1a\x07\x01\0", "RAR"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", r"\.xls"),
        (b"SQLite format 3\0", "SQLite"),
        (b"ARROW1\0\0", "Arrow"),
        (b"%PDF-1.7", "PDF"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>", "HTML"),
        (b"\n<html lang='en'>", "HTML"),
        (b"<?xml version='1.0'?>", "XML"),
        (b'[[1707782400000,"49690.6","49719.6"],[1,2,3]]', "JSON"),
        (b'{"prices": [[1707782400000, 49699.6]]}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"PK\x03\x04 and then nothing of a zip", "cannot be decompressed"),
        (zipped(("a.csv", TEXT * 99))[:-60], "cannot be decompressed"),
        (lzma.compress(TEXT * 99)[:-9], "cannot be decompressed"),
        (bz2.compress(TEXT * 99)[:-9], "cannot be decompressed"),
        (parquet({"time": [1], "close": [1.0]})[:-9], "Parquet file cannot be read"),
        (gzip.compress(gzip.compress(gzip.compress(gzip.compress(TEXT)))), "more than three times"),
        (b"\0\0\0\1,time,close\n", "not UTF-8"),
    ],
)
def test_anything_else_is_named_for_what_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(BatchError, match=words) as refused:
        read(tmp_path, content)
    assert "file.csv" in str(refused.value) or "Parquet" in words
    assert "\n" not in str(refused.value)


# Parquet


@pytest.mark.parametrize(
    "times",
    [
        pa.array(UTC_TIMES, pa.timestamp("ms", "UTC")),
        pa.array(UTC_TIMES, pa.timestamp("ns", "Europe/Berlin")),
        pa.array(UTC_TIMES, pa.timestamp("us", "America/New_York")),
        pa.array(TIMES, pa.timestamp("s")),
        pa.array(TIMES, pa.timestamp("ns")),
        pa.array([1707782400, 1707786000], pa.int64()),
        pa.array([1707782400000, 1707786000000], pa.int64()),
        pa.array([1707782400000000000, 1707786000000000000], pa.int64()),
        pa.array([1707782400.0, 1707786000.0], pa.float64()),
        pa.array([1707782400000.0, 1707786000000.0], pa.float64()),
        pa.array(["2024-02-13 00:00", "2024-02-13 01:00"]),
        pa.array(["Feb 13, 2024 00:00", "Feb 13, 2024 01:00"]).dictionary_encode(),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "prices",
    [
        pa.array(PRICES, pa.float64()),
        pa.array(PRICES, pa.float32()),
        pa.array([Decimal("49699.60"), Decimal("49826.60")], pa.decimal128(18, 2)),
        pa.array(["49,699.6", "$49,826.6"]),
    ],
    ids=lambda prices: str(prices.type),
)
def test_a_parquet_file_is_read_as_such(tmp_path: Path, times: pa.Array, prices: pa.Array) -> None:
    book = pa.array([[1.0], [2.0]])
    content = parquet({"book": book, "timestamp": times, "close": prices}, row_group_size=1)
    for packed in (content, gzip.compress(content), zipped(("prices.parquet", content))):
        rows = read(tmp_path, packed)
        assert [(when, float(price)) for when, price in rows] == [
            (when, float(price)) for when, price in ROWS
        ]


def test_a_parquet_files_date_and_time_can_be_two_columns(tmp_path: Path) -> None:
    days = pa.array([date(2024, 2, 13)] * 2)
    clocks = pa.array([time(0), time(1)], pa.time64("us"))
    assert read(tmp_path, parquet({"date": days, "time": clocks, "close": PRICES})) == ROWS
    only_days = pa.array([date(2024, 2, 13), date(2024, 2, 14)])
    rows = read(tmp_path, parquet({"date": only_days, "close": [1.5, None]}))
    assert rows == [("2024-02-13T00:00:00Z", "1.5"), ("2024-02-14T00:00:00Z", "")]


def test_naive_times_of_parquet_are_of_the_stated_zone(tmp_path: Path) -> None:
    local = [moment + timedelta(hours=1) for moment in TIMES]
    content = parquet({"time": pa.array(local, pa.timestamp("us")), "close": PRICES})
    assert read(tmp_path, content, timezone="Europe/Berlin") == ROWS


def test_a_parquet_file_without_rows_has_no_rows(tmp_path: Path) -> None:
    content = parquet({"time": pa.array([], pa.int64()), "close": pa.array([], pa.float64())})
    assert read(tmp_path, content, unit="s") == []


# Headers


@pytest.mark.parametrize("hint", ["sep={}", '"sep={}"', "SEP={}", "sep={} ", "\ufeffsep={}"])
@pytest.mark.parametrize("mark", [";", "\t", ",", "|", "^"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_separator_that_excel_hints_at_counts(
    tmp_path: Path, hint: str, mark: str, end: str
) -> None:
    lines = [hint.format(mark), f"Date{mark}Close"]
    lines += [f"{day}{mark}{price}" for day, price in (("2024-02-13", 1.5), ("2024-02-14", 2.5))]
    text = "".join(line + end for line in lines)
    assert read(tmp_path, text) == [
        ("2024-02-13T00:00:00Z", "1.5"), ("2024-02-14T00:00:00Z", "2.5")
    ]  # fmt: skip


def test_commas_inside_quotes_are_no_delimiters(tmp_path: Path) -> None:
    text = '"Date, UTC";"Price, high, USD";"Price, USD"\n"2024-02-13";"2,5";"1,5"\n'
    options = {"timestamp_column": "Date, UTC", "price_column": "Price, USD"}
    assert read(tmp_path, text, **options) == [("2024-02-13T00:00:00Z", "1.5")]


@pytest.mark.parametrize(
    "names",
    [
        "time,close\n[s],[USD]\n",
        "time,close\nUTC,USD\nindex,last\n",
        "Symbols,BTC-USD\ntime,close\n",
        ",close\nTicker,BTC-USD\ntime,\n",
    ],
)
def test_more_rows_of_names_are_no_rows(tmp_path: Path, names: str) -> None:
    text = names + TEXT.decode().partition("\n")[2]
    assert read(tmp_path, text, timestamp_column="time", price_column="close") == ROWS
    notes = reading_of(tmp_path / "file.csv", timestamp_column="time", price_column="close").notes
    assert any(note.startswith("more rows of column names are left out: ") for note in notes)


@pytest.mark.parametrize("first", ["n/a,n/a", ",", "soon,5", "x,-", "1707782400,"])
def test_a_bad_first_row_is_a_row(tmp_path: Path, first: str) -> None:
    text = f"time,close\n{first}\n" + TEXT.decode().partition("\n")[2]
    if first == "x,-":
        text = text.replace("x,-", "nan,-")
    assert len(read(tmp_path, text)) == 3


@pytest.mark.parametrize("header", ["time,close,V,V", "V,time,V,close", "time,,close,"])
def test_a_column_twice_hurts_only_where_it_is_wanted(tmp_path: Path, header: str) -> None:
    cells = {"time": "1707782400", "close": "1.5"}
    text = f"{header}\n" + ",".join(cells.get(name, "7") for name in header.split(",")) + "\n"
    assert read(tmp_path, text) == [("2024-02-13T00:00:00Z", "1.5")]
    if "V" in header:
        with pytest.raises(BatchError, match="'V' more than once; rename"):
            read(tmp_path, text, price_column="V")


@pytest.mark.parametrize("header", ["time,close,close", "time,time,close"])
def test_a_wanted_column_twice_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(BatchError, match="more than once"):
        read(tmp_path, f"{header}\n1707782400,1707782400,1.5\n")


def test_an_optional_column_twice_is_left_out(tmp_path: Path) -> None:
    text = "timestamp,price,market_cap,market_cap\n1707782400,1.5,7,8\n"
    (tmp_path / "file.csv").write_text(text)
    assert list(reading_of(tmp_path / "file.csv").columns) == ["timestamp", "price"]
