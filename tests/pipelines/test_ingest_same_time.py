"""Rows of one time in one batch: the last counts, in ingest, retract and replay alike."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from bitstorm.pipelines import history
from bitstorm.pipelines.ingest import ingest
from bitstorm.pipelines.replay import replay
from bitstorm.pipelines.retract import retract
from bitstorm.store import maintenance, snapshots
from bitstorm.utils import BitcoinSchema, make_batch_writer, prepare_bitcoin_df
from landed import HOUR, collected, context_of, drop

pytestmark = pytest.mark.slow

START = 1_707_782_400_000  # 2024-02-13T00:00:00Z
SECOND = 1000
# Trades: three in each second, then some that repeat a price. → the row that counts
TRADES = [
    (0, 49699.6), (0, 49826.6), (0, 49847.4),
    (1, 49753.5), (1, 49641.7), (1, 49753.5),
    (2, 49730.3), (2, 49730.3),
    (3, 49859.7),
    (0, 49700.0),
]  # fmt: skip
LAST = {START: 49700.0, START + 1000: 49753.5, START + 2000: 49730.3, START + 3000: 49859.7}
COUNTS = {"read": 10, "accepted": 4, "duplicate": 2, "superseded": 4, "refused": 0}


def text(rows):
    lines = (f"{START + second * SECOND},{price}\n" for second, price in rows)
    return "timestamp,price\n" + "".join(lines)


def stored(context):
    frame = pd.read_parquet(snapshots.required(context.workspace.prices).folder)
    return dict(zip(frame["timestamp"], frame["price"].round(1), strict=True))


def expected(rows=LAST):
    return {stamp: np.float32(price).round(1) for stamp, price in rows.items()}


def counts(result):
    return {name: getattr(result, name) for name in COUNTS}


def test_trades_of_one_second_by_ingest_and_the_writer(spark_session, tmp_path):
    context = context_of(tmp_path / "ingest")
    drop(context.workspace.landing, "trades.csv", text(TRADES))
    assert counts(ingest(context)) == COUNTS
    assert stored(context) == expected()
    (tally,) = snapshots.read_ledger(snapshots.required(context.workspace.prices)).values()
    assert {name: tally[name] for name in COUNTS} == COUNTS
    lines = [history.trace(context, stamp).line for stamp in LAST]
    assert lines == [11, 7, 9, 10]

    frame = pd.DataFrame(TRADES, columns=["timestamp", "price"])
    frame["timestamp"] = START + frame["timestamp"] * SECOND
    with (
        pytest.warns(UserWarning, match="4 rows have the time of a later row"),
        make_batch_writer(tmp_path / "writer", BitcoinSchema) as writer,
    ):
        writer.write(frame)
    assert {name: writer.tally[name] for name in COUNTS} == COUNTS
    digest = snapshots.required(context.workspace.prices).manifest.digest
    assert writer.snapshot is not None and writer.snapshot.manifest.digest == digest
    with pytest.warns(UserWarning, match="with the time of a later row"):
        prepared = prepare_bitcoin_df(frame)
    assert dict(zip(prepared.index.asi8 // 10**6, prepared["price_usd"], strict=True)) == LAST

    # On top of stored months: a better batch wins as a whole, and a worse one loses as a whole.
    landing, fine = context.workspace.landing, text([(0, 1), (0, 2)])
    stated = {"source": "csv", "fetched_at": START + HOUR}
    collected(landing, "fine.csv", fine, granularity_ms=1, **stated)
    coarse = text([(1, 8), (1, 9), (1, 9), (4, 5), (4, 6)])
    collected(landing, "coarse.csv", coarse, granularity_ms=2 * HOUR, **stated)
    drop(landing, "again.csv", text([(3, 49859.7), (3, 1), (3, 49859.7)]))
    result = ingest(context)
    assert result.read == 10 == sum(counts(result).values()) - 10
    # One in fine, two in coarse, one in again.
    assert (result.superseded, result.refused) == (1 + 2 + 1, 0)
    assert stored(context)[START] == 2.0 and stored(context)[START + 4000] == 6.0
    assert maintenance.verify(context.workspace.prices).problems == ()

    # A retraction brings the last row of the other batch back, not its first.
    retract(context, "fine.csv", reason="test")
    assert stored(context)[START] == np.float32(49700.0)


def test_a_row_taken_back_counts_only_if_it_is_the_last(spark_session, tmp_path):
    context = context_of(tmp_path)
    # Of each second one row is early enough, and the others are refused until the replay.
    rows = [
        "1e999,2024-02-13T00:00:00Z,1", f"5,{START},2", f"6,{START + 1000},3",
        f"1e999,{START + 1000},4", f"7,{START + 2000},5", f"1e999,{START + 2000},5",
    ]  # fmt: skip
    drop(context.workspace.landing, "a.csv", "market_cap,timestamp,price\n" + "\n".join(rows))
    assert counts(ingest(context)) == COUNTS | {
        "read": 6, "accepted": 3, "duplicate": 0, "superseded": 0, "refused": 3,
    }  # fmt: skip
    kind = context_of(tmp_path, "ingest.rules.market_cap_readable=warn")
    taken = replay(kind)
    assert counts(taken) == {
        "read": 3, "accepted": 2, "duplicate": 0, "superseded": 1, "refused": 0,
    }  # fmt: skip
    assert stored(context) == {START: 2.0, START + 1000: 4.0, START + 2000: 5.0}
    assert taken.replaced == 2
    straight = context_of(tmp_path / "straight", "ingest.rules.market_cap_readable=warn")
    drop(straight.workspace.landing, "a.csv", "market_cap,timestamp,price\n" + "\n".join(rows))
    assert counts(ingest(straight)) == {
        "read": 6, "accepted": 3, "duplicate": 1, "superseded": 2, "refused": 0,
    }  # fmt: skip
    digests = [snapshots.required(c.workspace.prices).manifest.digest for c in (context, straight)]
    assert digests[0] == digests[1]


def test_rows_that_the_writer_refused_can_be_taken_back(spark_session, tmp_path):
    context = context_of(tmp_path)
    rows = pd.DataFrame({"timestamp": [START, 4_070_908_800_000, -1], "price": [1.0, 2.5, 3.0]})
    with (
        pytest.warns(UserWarning, match="2 of 3 rows are refused"),
        make_batch_writer(context.workspace.prices, BitcoinSchema) as writer,
    ):
        writer.write(rows)
    result = replay(context_of(tmp_path, "ingest.rules.not_in_future=warn"))
    assert counts(result) == COUNTS | {
        "read": 2, "accepted": 1, "duplicate": 0, "superseded": 0, "refused": 1,
    }  # fmt: skip
    assert stored(context) == {START: 1.0, 4_070_908_800_000: 2.5}
    assert history.trace(context, 4_070_908_800_000).line == 2
    assert writer.rejects is not None
    (left,) = map(json.loads, writer.rejects.read_text().splitlines())
    assert (left["line"], left["rule"]) == (3, "timestamp_in_range")
    assert ingest(context).idle
