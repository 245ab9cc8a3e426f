"""Rows from a program are held to the rules of `ingest`: times, prices, and what is refused."""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitstorm.core.errors import DataError, UsageError
from bitstorm.core.time import now_ms
from bitstorm.store import maintenance, snapshots
from bitstorm.store.publish import republish
from bitstorm.utils import (
    BitcoinSchema,
    load_petastorm_batches_to_df,
    make_batch_writer,
    prepare_bitcoin_df,
)
from faults.publishing import canonical_hash

START = 1_609_459_200_000  # 2021-01-01T00:00:00Z
MINUTE, DAY = 60_000, 86_400_000
TWO = np.array(["2021-01-01T00:00:00", "2021-01-01T00:01:00"], dtype="datetime64[s]")
UNITS = ("s", "ms", "us", "ns")


def frame(times, prices=(1.0, 2.0), **more):
    return pd.DataFrame({"timestamp": times, "price": list(prices), **more})


def table(times, prices=(1.0, 2.0)):
    return pa.table({"timestamp": times, "price": pa.array(prices)})


def read(root):
    found = load_petastorm_batches_to_df(str(root)).sort_values("timestamp", ignore_index=True)
    return dict(zip(found["timestamp"], found["price"], strict=True))


def written(root, *pieces, **options):
    """The writer after its block, without a warning."""
    with make_batch_writer(root, BitcoinSchema, **options) as writer:
        for piece in pieces:
            writer.write(piece)
    return writer


def warned(root, *pieces, match, **options):
    with pytest.warns(UserWarning, match=match):
        return written(root, *pieces, **options)


def counts(writer):
    names = ("read", "accepted", "duplicate", "superseded", "refused")
    return tuple(writer.tally[name] for name in names)


def refused(writer):
    return [json.loads(line) for line in writer.rejects.read_text().splitlines()]


def moment(text, zone=None):
    return pd.Timestamp(text, tz=zone).to_pydatetime()


TIMES = {
    **{f"pandas_{u}": frame(pd.DatetimeIndex(TWO).as_unit(u)) for u in UNITS},
    **{
        f"pandas_{u}_tokyo": frame(
            pd.DatetimeIndex(TWO).tz_localize("UTC").tz_convert("Asia/Tokyo").as_unit(u)
        )
        for u in UNITS
    },
    **{f"arrow_{u}": table(pa.array(TWO).cast(pa.timestamp(u))) for u in UNITS},
    **{
        f"arrow_{u}_new_york": table(pa.array(TWO).cast(pa.timestamp(u, "America/New_York")))
        for u in UNITS
    },
    "summer_offset": frame(pd.to_datetime(["2021-01-01T05:30+05:30", "2021-01-01T05:31+05:30"])),
    "python": frame([moment("2021-01-01 00:00"), moment("2021-01-01 00:01")]),
    "python_of_two_zones": frame(
        pd.Series(
            [moment("2021-01-01 00:00", "UTC"), moment("2021-01-01 01:01", "+01:00")], dtype=object
        )
    ),
    "naive_and_aware": frame(
        pd.Series([moment("2021-01-01 00:00"), moment("2021-01-01 00:01", "UTC")], dtype=object)
    ),
    "categories": frame(pd.Categorical(pd.DatetimeIndex(TWO))),
    "arrow_backed": frame(pd.array(TWO, dtype="timestamp[us][pyarrow]")),
    "parts_of_a_millisecond": table(
        pa.array([START * 10**6 + 999_999, (START + MINUTE) * 10**6 + 1], pa.timestamp("ns"))
    ),
    "unsigned": frame(np.array([START, START + MINUTE], dtype="uint64")),
    "whole_doubles": frame([float(START), float(START + MINUTE)]),
    "nullable": frame(pd.array([START, START + MINUTE], dtype="Int64")),
    "decimals": frame([decimal.Decimal(START), decimal.Decimal(START + MINUTE)]),
    "digits": frame([str(START), str(START + MINUTE)]),
    "record_batch": table([START, START + MINUTE]).to_batches()[0],
    "index": frame([START, START + MINUTE]).set_index("timestamp"),
    "prepared": prepare_bitcoin_df(frame([START // 1000, (START + MINUTE) // 1000])),
    "price_usd": frame([START, START + MINUTE]).rename(columns={"price": "price_usd"}),
    "prices_as_decimals": frame([START, START + MINUTE], map(decimal.Decimal, ("1.0", "2.0"))),
}


@pytest.mark.parametrize("rows", TIMES.values(), ids=TIMES)
def test_times_and_frames_of_each_form_come_in_right(tmp_path, rows):
    writer = written(tmp_path, rows)
    assert read(tmp_path) == {START: 1.0, START + MINUTE: 2.0}
    assert counts(writer) == (2, 2, 0, 0, 0) and writer.rejects is None
    # The same rows in their plainest form are the same batch.
    assert written(tmp_path, frame([START, START + MINUTE])).snapshot.id == writer.snapshot.id


def test_a_date_is_its_midnight_in_utc(tmp_path):
    days = [dt.date(2021, 1, 1), dt.date(2021, 1, 2)]
    for root, kind in (("32", pa.date32()), ("64", pa.date64())):
        written(tmp_path / root, table(pa.array(days).cast(kind)))
        assert read(tmp_path / root) == {START: 1.0, START + DAY: 2.0}
    written(tmp_path / "pandas", frame(days))
    assert read(tmp_path / "pandas") == {START: 1.0, START + DAY: 2.0}


@pytest.mark.parametrize(
    ("times", "said"),
    [
        ([1_609_459_200, 1_609_459_260], r"1609459200 .* seconds \(2021-01-01T00:00:00Z\)"),
        (np.array([1_609_459_200] * 2, dtype="int32"), "seconds"),
        ([1_609_459_200.0] * 2, "seconds"),
        (["1609459200"] * 2, "seconds"),
        ([1_230_940_800, 4_102_444_799], r"seconds \(2009-01-03T00:00:00Z\)"),
        ([4_070_908_800] * 2, r"seconds \(2099"),
        ([START * 1000, START * 1000 + 7], r"microseconds \(2021-01-01T00:00:00Z\)"),
        ([START * 10**6 + 1_000_000, START * 10**6], r"nanoseconds \(2021-01-01T00:00:00.001Z\)"),
        (pd.array([None, 1_609_459_200], dtype="Int64"), "1609459200"),
        ([1_609_459_200.5] * 2, r"1609459200.5 .* seconds \(2021-01-01T00:00:00Z\)"),
        ([START + 0.5, START], "timestamp is double"),
        (["2021-01-01T00:00:00Z"] * 2, "timestamp is string, .*to_datetime"),
        (pd.to_timedelta([1_609_459_200] * 2, unit="s"), "duration"),
        (pd.period_range("2021-01-01", periods=2, freq="h"), "period"),
        ([dt.time(1), dt.time(2)], "time64"),
        ([True, False], "bool"),
        ([[START], [START]], "list"),
        (pd.Series([START, "x"], dtype=object), "values of one type"),
        (pa.array([2**60, 1], pa.timestamp("s")), "timestamp\\[s\\]"),
    ],
    ids=str,
)
def test_times_that_cannot_be_read_refuse_the_piece(tmp_path, times, said):
    rows = table(times) if isinstance(times, pa.Array) else frame(times)
    with make_batch_writer(tmp_path, BitcoinSchema) as writer:
        with pytest.raises(DataError, match=said):
            writer.write(rows)
        # Nothing of the piece counts, and the block goes on.
        writer.write(frame([START, START + 1]))
    assert counts(writer) == (2, 2, 0, 0, 0)


GOOD = START + 5
NAN, INF = float("nan"), float("inf")
# Two rows, the first of which breaks the rule.
BROKEN = [
    ([1_230_940_799_999, GOOD], {}, "timestamp_in_range", "before Bitcoin's first block"),
    ([-5, GOOD], {}, "timestamp_in_range", "'-5'"),
    ([0, GOOD], {}, "timestamp_in_range", "'0'"),
    ([-(2**63), GOOD], {}, "timestamp_in_range", "first block"),
    ([1_609_459_200, GOOD], {}, "timestamp_in_range", r"seconds \(2021-01-01T00:00:00Z\)"),
    ([4_070_908_800_000, GOOD], {}, "not_in_future", "expected nothing after"),
    ([START * 1000, GOOD], {}, "not_in_future", "microseconds"),
    ([START * 10**6, GOOD], {}, "not_in_future", "nanoseconds"),
    ([2**63 - 1, GOOD], {}, "not_in_future", "later than its batch"),
    (pd.array([None, GOOD], dtype="Int64"), {}, "timestamp_present", "the timestamp is empty"),
    ([float("nan"), float(GOOD)], {}, "timestamp_present", "the timestamp is empty"),
    (np.array(["NaT", GOOD], "datetime64[ms]"), {}, "timestamp_present", "is empty"),
    (np.array(["1970-01-19", GOOD], "datetime64[ms]"), {}, "timestamp_in_range", "1970-01-19"),
    (np.array(["2099-01-01", "2021-01-01"], "datetime64[s]"), {}, "not_in_future", "2099-01-01"),
    ([GOOD, GOOD], {"price": [NAN, 2.0]}, "price_present", "the price is empty"),
    ([GOOD, GOOD], {"price": [INF, 2.0]}, "price_finite", "'inf' is not finite"),
    ([GOOD, GOOD], {"price": [-2.0, 2.0]}, "price_positive", "'-2.0' is not above zero"),
    ([GOOD, GOOD], {"price": [0.0, 2.0]}, "price_positive", "not above zero"),
    ([GOOD, GOOD], {"price": [1e60, 2.0]}, "price_in_range", "float32"),
    ([GOOD, GOOD], {"price": [1e-60, 2.0]}, "price_in_range", "float32"),
    ([GOOD, GOOD], {"market_cap": [INF, 1.0]}, "market_cap_readable", "not a finite number"),
    ([GOOD, GOOD], {"price_change_24h": [1e39, 1.0]}, "price_change_24h_readable", "finite"),
]


@pytest.mark.parametrize(("times", "columns", "rule", "said"), BROKEN)
def test_a_refused_row_is_counted_and_kept_the_others_go_on(tmp_path, times, columns, rule, said):
    root = tmp_path / "own"
    writer = warned(root, frame(times, (1.0, 2.0)).assign(**columns), match="1 of 2 rows")
    assert list(read(root).values()) == [2.0] and len(read(root)) == 1
    assert counts(writer) == (2, 1, 0, 0, 1)
    (row,) = refused(writer)
    assert (row["line"], row["rule"]) == (1, rule) and re.search(said, row["reason"])
    assert writer.rejects.parent == root / "rejects" / "rows"
    assert snapshots.read_ledger(writer.snapshot)[row["batch"]]["refused"] == 1
    assert maintenance.verify(root).problems == ()


def test_the_future_begins_300_s_after_the_fetch_or_now(tmp_path):
    times = [START + 300_000, START + 300_001]
    writer = warned(tmp_path / "fetched", frame(times), match="1 of 2", fetched_at=START)
    assert read(tmp_path / "fetched") == {START + 300_000: 1.0}
    now = now_ms()
    writer = warned(tmp_path / "now", frame([now + 200_000, now + 600_000]), match="1 of 2")
    assert read(tmp_path / "now") == {now + 200_000: 1.0}
    assert refused(writer)[0]["rule"] == "not_in_future"
    with pytest.raises(UsageError, match="fetched_at is 1609459200, which looks like seconds"):
        make_batch_writer(tmp_path, BitcoinSchema, fetched_at=START // 1000)


def test_where_all_rows_are_refused_the_block_fails(tmp_path):
    with pytest.raises(DataError, match="all 2 rows are refused, the first one because the time"):
        written(tmp_path / "prices", frame([-1, 4_070_908_800_000]))
    assert snapshots.current(tmp_path / "prices") is None
    (kept,) = (tmp_path / "rejects" / "rows").iterdir()
    assert len(kept.read_text().splitlines()) == 2


def test_refused_rows_of_all_pieces_lie_in_the_workspace(tmp_path):
    root = tmp_path / "prices"
    pieces = [frame([START, -1]), frame([-2, START + 1]), frame([START + 2, START + 3])]
    writer = warned(root, *pieces, match="2 of 6 rows")
    assert [(row["line"], row["text"]) for row in refused(writer)] == [
        (2, "1969-12-31T23:59:59.999Z,2.0,,,"),
        (3, "1969-12-31T23:59:59.998Z,1.0,,,"),
    ]
    assert writer.rejects.parent == tmp_path / "rejects" / "rows"
    assert sorted(read(root)) == [START, START + 1, START + 2, START + 3]
    # The same rows in one piece are the same batch; with another refused row it is another.
    again = warned(root, pd.concat(pieces), match="2 of 6 rows")
    assert again.snapshot.id == writer.snapshot.id and again.rejects == writer.rejects
    other = warned(root, pieces[0], frame([-9, START + 1]), pieces[2], match="2 of 6 rows")
    assert other.rejects != writer.rejects and counts(other) == (6, 0, 4, 0, 2)


def test_nan_in_an_optional_column_is_a_null(tmp_path):
    rows = table([START, START + 1]).append_column("market_cap", pa.array([NAN, 3.0]))
    stored = pq.read_table(written(tmp_path, rows).snapshot.folder)
    assert stored["market_cap"].to_pylist() == [None, 3.0]


# Prices of one time, in the order of the rows → accepted, duplicate, superseded; the last counts.
SAME_TIME = [
    ([1.0, 1.0], (1, 1, 0)),
    ([1.0, 2.0], (1, 0, 1)),
    ([2.0, 1.0], (1, 0, 1)),
    ([1.0, 2.0, 3.0], (1, 0, 2)),
    ([1.0, 2.0, 1.0], (1, 1, 1)),
    ([1.0, 2.0, 2.0], (1, 1, 1)),
    # One float32, and so one price.
    ([1.0, 1.0 + 1e-12], (1, 1, 0)),
]


@pytest.mark.parametrize(("prices", "outcome"), SAME_TIME)
@pytest.mark.parametrize("whole", [True, False])
def test_of_rows_of_one_time_the_last_counts(tmp_path, prices, outcome, whole):
    rows = frame([START] * len(prices), prices)
    pieces = [rows] if whole else [rows[n : n + 1] for n in range(len(rows))]
    if outcome[2]:
        writer = warned(tmp_path, *pieces, match=f"{outcome[2]} rows have the time of a later row")
    else:
        writer = written(tmp_path, *pieces)
    assert counts(writer) == (len(prices), *outcome, 0)
    last = float(np.float32(prices[-1]))
    assert read(tmp_path) == {START: last}
    assert snapshots.trace(writer.snapshot, START).line == len(prices)
    # `prepare_bitcoin_df` keeps the same rows.
    with pytest.warns(UserWarning, match="with the time of a later row"):
        prepared = prepare_bitcoin_df(rows)["price_usd"].astype("float32")
    assert prepared.tolist() == [last]


def test_between_batches_the_ranking_decides_not_the_order(tmp_path):
    better = warned(tmp_path, frame([START] * 2, (1.0, 2.0)), granularity_ms=5, match="1 rows")
    worse = warned(tmp_path, frame([START] * 3, (3.0, 4.0, 4.0)), granularity_ms=9, match="1 rows")
    assert counts(better) == (2, 1, 0, 1, 0) and counts(worse) == (3, 0, 2, 1, 0)
    assert read(tmp_path) == {START: 2.0}


def without_superseded(snapshot):
    """Make the snapshot as versions without superseded rows have written it."""
    path = snapshot.ledger
    pq.write_table(pq.read_table(path).drop_columns(["superseded"]), path)
    manifest = snapshot.root / "manifests" / f"{snapshot.manifest.sequence:08d}.json"
    record = json.loads(manifest.read_text())
    for tally in record["batches"].values():
        del tally["superseded"]
    content = path.read_bytes()
    record["ledger"] |= {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    record["hash"] = canonical_hash(record)
    manifest.write_text(json.dumps(record))


def test_an_older_ledger_verifies_grows_and_rolls_back(tmp_path):
    old = written(tmp_path, frame([START, START + 1])).snapshot
    without_superseded(old)
    (tally,) = snapshots.read_ledger(snapshots.current(tmp_path)).values()
    assert "superseded" not in tally
    assert maintenance.verify(tmp_path).problems == ()
    new = warned(tmp_path, frame([START + 2] * 2), match="1 rows").snapshot
    found = sorted(t["superseded"] for t in snapshots.read_ledger(new).values())
    assert found == [0, 1]
    republish(tmp_path, snapshots.required(tmp_path, snapshot=old.id), reason="test")
    assert read(tmp_path) == {START: 1.0, START + 1: 2.0}
    again = warned(tmp_path, frame([START + 2] * 2), match="1 rows")
    assert again.snapshot.manifest.digest == new.manifest.digest
    assert maintenance.verify(tmp_path).problems == ()


KILLED = """
import sys, time
import pandas as pd
from bitstorm.utils import BitcoinSchema, make_batch_writer
with make_batch_writer(sys.argv[1], BitcoinSchema) as writer:
    writer.write(pd.DataFrame({"timestamp": [1609459200000], "price": [1.0]}))
    print("written", flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_temporary_files_of_killed_writers_are_deleted(tmp_path, monkeypatch):
    spools = tmp_path / "spools"
    spools.mkdir()
    monkeypatch.setenv("TMPDIR", str(spools))
    monkeypatch.setattr(tempfile, "tempdir", str(spools))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    (dead,) = spools.iterdir()
    of_an_older_version = spools / "bitstorm-writer-abc"
    of_an_older_version.mkdir()
    foreign = spools / "bitstorm-other"
    foreign.mkdir()

    def age(*folders: Path) -> None:
        for folder in folders:
            os.utime(folder, (time.time() - 100,) * 2)

    with make_batch_writer(tmp_path / "living", BitcoinSchema) as living:
        living.write(frame([START, START + 1]))
        assert dead.exists()  # Younger than a minute.
        age(*spools.iterdir())
        written(tmp_path / "other", frame([START, START + 1]))
        assert not dead.exists() and not of_an_older_version.exists()
    assert read(tmp_path / "living") == {START: 1.0, START + 1: 2.0}
    assert list(spools.iterdir()) == [foreign]


def test_a_good_block_warns_of_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written(tmp_path, *TIMES.values())
