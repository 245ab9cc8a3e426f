"""Which batches are taken, which are refused, and what is known of them."""

from __future__ import annotations

import gzip
import hashlib

import pytest

from bitstorm.core.errors import BatchError
from bitstorm.store.landing import contract_columns, survey
from landed import collected, drop

NOW = 4_000_000_000_000


def look(landing, *, known=(), settle=10.0, now=None):
    import time

    moment = int(time.time() * 1000) if now is None else now
    return survey(landing, known=dict.fromkeys(known), settle_seconds=settle, now_ms=moment)


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("timestamp,price", ("timestamp", "price")),
        ("price_usd,timestamp", ("price", "timestamp")),
        (' "volume_24h" , price,timestamp', ("volume_24h", "price", "timestamp")),
    ],
)
def test_columns_go_by_name_in_any_order(header, columns):
    assert contract_columns(header) == columns


@pytest.mark.parametrize(
    ("header", "rule", "said"),
    [
        ("timestamp,price,colour", "columns_known", "'colour'"),
        ("timestamp,price,price_usd", "columns_unique", "price"),
        ("timestamp,price,timestamp", "columns_unique", "timestamp"),
        ("timestamp,volume_24h", "columns_present", "price"),
        ("price", "columns_present", "timestamp"),
        ("1609459200,29000", "columns_known", "1609459200"),
    ],
)
def test_a_wrong_header_refuses_the_batch_and_says_why(header, rule, said):
    with pytest.raises(BatchError, match=said) as refused:
        contract_columns(header)
    assert refused.value.rule == rule


@pytest.mark.parametrize(
    "text",
    [
        "Date,Open,High,Low,Close,Volume\n2024-02-13,1,2,1,2,9\n",
        '"Datum","Zuletzt"\n"13.02.2024","49.699,6"\n',
        "sep=;\nDate;Close\n2024-02-13;1,5\n",
        "<DATE>\t<TIME>\t<CLOSE>\n2024.02.13\t00:00\t1.5\n",
        "1707782400000,1,2,1,2,9,1707785999999,9,9,9,9,0\n",
        "time,price\n1707782400,1.5\n",
        "timestamp,close\n1707782400,1.5\n",
        "timestamp,volume_24h\n1707782400,1.5\n",
    ],
)
def test_a_foreign_file_is_refused_with_the_way_in(tmp_path, text):
    drop(tmp_path, "foreign.csv", text)
    (refused,) = look(tmp_path).refused
    assert "`bitstorm import FILE`" in refused.reason


def test_a_bom_crlf_and_gzip_are_fine(tmp_path):
    drop(tmp_path, "bom.csv", b"\xef\xbb\xbftimestamp,price\r\n1609459200,1\r\n")
    drop(tmp_path, "packed.csv.gz", "price,timestamp\n1,1609459200\n")
    found = look(tmp_path)
    assert [b.columns for b in found.ready] == [("timestamp", "price"), ("price", "timestamp")]
    assert found.refused == ()


@pytest.mark.parametrize(
    ("content", "numeric"),
    [
        (b"timestamp,price\n1609459200,1.5\n", True),
        (b'timestamp,price\r\n"1609459200", +1.5\r\n', True),
        (b"timestamp,price\n", True),
        (b"timestamp,price\n1609459200,1d\n", False),
        (b"timestamp,price\r1609459200,1d\n1609459200,1\n", False),
        (b"timestamp,price\n" + b"1609459200,1\n" * 30 + b"1609459200,1\0\n", False),
        (
            b"timestamp,price\n1609459200,1\n" + b"1609459200,1\n" * 200_000 + b"1609459200,1d",
            False,
        ),
        ("timestamp,price\n1609459200,\u0661\n".encode(), False),
        (b"timestamp,price", False),
    ],
)
def test_a_batch_is_numeric_when_no_row_has_a_letter_or_nul(tmp_path, content, numeric):
    drop(tmp_path, "batch.csv", content)
    (batch,) = look(tmp_path).ready
    assert batch.numeric is numeric
    assert batch.sha256 == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("empty.csv", b"", "batch_readable"),
        ("utf16.csv", "timestamp,price\n1609459200,1\n".encode("utf-16"), "batch_utf8"),
        ("latin.csv", "timestamp,price,größe\n".encode("latin-1"), "batch_utf8"),
        ("nul.csv", b"timestamp,\0price\n", "batch_utf8"),
    ],
)
def test_what_is_no_utf8_csv_is_refused(tmp_path, name, content, rule):
    drop(tmp_path, name, content)
    assert [r.rule for r in look(tmp_path).refused] == [rule]


def test_a_cut_archive_is_refused_before_spark_meets_it(tmp_path):
    whole = gzip.compress(b"timestamp,price\n" + b"1609459200,1\n" * 10_000)
    path = drop(tmp_path, "cut.csv", whole[:-20])
    path.rename(tmp_path / "cut.csv.gz")
    assert [r.rule for r in look(tmp_path, settle=0).refused] == ["batch_readable"]


def test_a_file_without_a_sidecar_waits_until_it_has_settled(tmp_path):
    path = drop(tmp_path, "young.csv", "timestamp,price\n", age=5)
    assert look(tmp_path, settle=10).unsettled == (path,)
    assert [b.path for b in look(tmp_path, settle=3).ready] == [path]


def test_a_collected_batch_is_taken_at_once_and_states_its_time(tmp_path):
    collected(tmp_path, "a.csv", "timestamp,price\n1609459200,1\n", fetched_at=123_000)
    (batch,) = look(tmp_path).ready
    assert batch.seen_ms == 123_000 and batch.sidecar.granularity_ms == 3_600_000


def test_a_batch_that_is_not_what_its_sidecar_says_is_refused(tmp_path):
    path = collected(tmp_path, "a.csv", "timestamp,price\n1609459200,1\n")
    path.write_text("timestamp,price\n1609459200,2\n")
    collected(tmp_path, "b.csv", "timestamp,price\n1609459200,3\n")
    (tmp_path / "b.csv.json").write_text("{")
    assert [r.rule for r in look(tmp_path).refused] == ["sidecar_hash", "sidecar_readable"]


def test_the_same_content_is_taken_once_whatever_its_name(tmp_path):
    for name in ("a.csv", "b.csv"):
        drop(tmp_path, name, "timestamp,price\n1609459200,1\n")
    found = look(tmp_path)
    assert [b.name for b in found.ready] == ["a.csv"]
    assert [p.name for p in found.known] == ["b.csv"]
    again = look(tmp_path, known=[found.ready[0].sha256])
    assert again.ready == () and len(again.known) == 2


def test_other_files_and_a_missing_folder_are_no_batches(tmp_path):
    drop(tmp_path, "notes.txt", "hello")
    drop(tmp_path, ".hidden.csv", "timestamp,price\n")
    assert look(tmp_path) == look(tmp_path / "absent")
