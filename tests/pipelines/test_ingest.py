"""Ingest through real batches: every row accounted for, and every peer's reader agrees."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from petastorm import make_batch_reader, make_reader

from bitstorm.core.errors import WorkspaceBound
from bitstorm.core.sidecar import Origin
from bitstorm.ingest import validate
from bitstorm.ingest.deduplicate import to_ranking
from bitstorm.pipelines.imports import ImportOptions, import_file
from bitstorm.pipelines.ingest import ingest
from bitstorm.store import snapshots
from bitstorm.store.landing import stage_batches, survey
from bitstorm.utils import load_petastorm_batches_to_df
from landed import HOUR, collected, context_of, drop

pytestmark = pytest.mark.slow

START = 1_609_459_200_000  # 2021-01-01T00:00:00Z


def rejected(context):
    lines = []
    for path in sorted((context.workspace.rejects / "rows").glob("*.jsonl")):
        lines += [json.loads(text) for text in path.read_text().splitlines()]
    return lines


def stored(context) -> pd.DataFrame:
    folder = snapshots.required(context.workspace.prices).folder
    return pq.read_table(folder).to_pandas().sort_values("timestamp", ignore_index=True)


def test_bad_rows_are_kept_with_their_reason_and_good_ones_go_on(spark_session, tmp_path):
    context = context_of(tmp_path)
    landing = context.workspace.landing
    bad = {
        4: ("1609466400,", "price_present"),
        5: ("1609466400,-1", "price_positive"),
        6: ("1609466400,0", "price_positive"),
        7: ("1609466400,NaN", "price_finite"),
        8: ("1609466400,inf", "price_finite"),
        9: ("1609466400,1e60", "price_in_range"),
        10: ("1609466400,100d", "price_readable"),
        11: ("1609466400,dear", "price_readable"),
        12: ("soon,5", "timestamp_readable"),
        13: ("12:30,5", "timestamp_readable"),
        15: ("2100-01-01T00:00:00Z,5", "not_in_future"),
        17: ('1609466400,"5', "price_readable"),
    }
    good = {2: "1609459200,29000", 3: "1609462800,29100.5", 16: "1609459200,29999"}
    lines = ["timestamp,price"] + [
        good.get(n) or (bad[n][0] if n in bad else "") for n in range(2, 18)
    ]
    drop(landing, "mixed, [1].csv", "\n".join(lines))
    drop(landing, "strange.csv", "timestamp,price,colour\n1,2,3\n")
    drop(landing, "twice.csv", "timestamp,price,price\n1,2,3\n")
    drop(landing, "priceless.csv", "timestamp,market_cap\n1,2\n")
    drop(landing, "turned.csv.gz", "market_cap,price_usd,timestamp\n1e12,29200,1609466400\n")

    result = ingest(context)
    assert (result.batches, len(result.refused_batches)) == (2, 3)
    assert (result.read, result.accepted, result.refused) == (16, 3, 12)
    assert (result.duplicate, result.superseded) == (0, 1)
    assert sorted(r.rule for r in result.refused_batches) == [
        "columns_known",
        "columns_present",
        "columns_unique",
    ]
    assert {(r["file"], r["line"]): (r["text"], r["rule"]) for r in rejected(context)} == {
        ("mixed, [1].csv", line): told for line, told in bad.items()
    }
    assert all(r["reason"] for r in rejected(context))
    expected = pd.DataFrame(
        {
            "timestamp": [START, START + HOUR, START + 2 * HOUR],
            "price": np.array([29999, 29100.5, 29200], dtype="float32"),
            "market_cap": [np.nan, np.nan, 1e12],
        }
    )
    pd.testing.assert_frame_equal(stored(context)[list(expected)], expected)

    again = ingest(context)
    assert again.idle and again.snapshot == result.snapshot


ODD_LINES = {
    "crlf.csv": b"\xef\xbb\xbftimestamp,price\r\n1609459200,1\r\n\r\n1609462800,2\r\n",
    "cr.csv": b"price,timestamp\r1,1609459200\r  \r2,1609462800",
    "unended.csv": b'timestamp,price\n1609459200,"1"\n1609462800,2',
    "odd.csv": b"timestamp,price\n1609459200,1\x0b2\n1,\x1c2\n\x0c\n1,\xff\xfe\n"
    + b"9" * 300
    + b",\0\n",
    "separators.csv": "timestamp,price\n1609459200,1\u2028\n1609459200,\u00e9\x85\n".encode(),
    "packed.csv.gz": b"timestamp,price\n1609459200,1\n\n1609459200,x\n",
    "header.csv": b"timestamp,price\n",
}


def test_a_line_ends_only_at_a_line_break_and_keeps_its_number(spark_session, tmp_path):
    context = context_of(tmp_path)
    for name, content in ODD_LINES.items():
        drop(context.workspace.landing, name, content)
    ready = survey(
        context.workspace.landing, known={}, settle_seconds=0, now_ms=START + 10**12
    ).ready
    ranking = to_ranking(map(validate.provenance, ready))

    with stage_batches(ready, tmp_path / "staging") as folder:
        lines = validate.checked_lines(spark_session, context, ready, folder, ranking=ranking)
        rows = lines.orderBy("rank", "line").collect()
    names = dict(enumerate(b.name for source in ranking for b in ready if b.sha256 == source.batch))
    texts: dict[str, list[tuple[int, str]]] = {}
    for row in rows:
        texts.setdefault(names[row["rank"]], []).append((row["line"], row["text"]))
    assert texts == {
        "crlf.csv": [(2, "1609459200,1"), (4, "1609462800,2")],
        "cr.csv": [(2, "1,1609459200"), (4, "2,1609462800")],
        "unended.csv": [(2, '1609459200,"1"'), (3, "1609462800,2")],
        "odd.csv": [
            (2, "1609459200,1\x0b2"),
            (3, "1,\x1c2"),
            (4, "\x0c"),
            (5, "1,\ufffd\ufffd"),
            (6, "9" * 300 + ",\0"),
        ],
        "separators.csv": [(2, "1609459200,1\u2028"), (3, "1609459200,\u00e9\x85")],
        "packed.csv.gz": [(2, "1609459200,1"), (4, "1609459200,x")],
    }


def test_line_numbers_are_exact_in_a_file_of_many_chunks(spark_session, tmp_path):
    spark_session.conf.set("spark.sql.files.maxPartitionBytes", "4096")
    spark_session.conf.set("spark.sql.files.openCostInBytes", "0")
    context = context_of(tmp_path)
    lines = [f"{START // 1000 + 60 * n},{'oops' if n % 997 == 0 else n + 1}" for n in range(5000)]
    drop(context.workspace.landing, "long.csv", "timestamp,price\n" + "\n".join(lines) + "\n")
    result = ingest(context)
    bad = [n for n in range(5000) if n % 997 == 0]
    assert (result.read, result.refused) == (5000, len(bad))
    assert [(r["line"], r["text"]) for r in rejected(context)] == [(n + 2, lines[n]) for n in bad]


def test_every_order_of_arrival_ends_in_the_same_rows(spark_session, tmp_path):
    def batch(name, rows, **stated):
        text = "timestamp,price\n" + "".join(f"{t},{p}\n" for t, p in rows)
        return lambda landing: collected(landing, name, text, **stated)

    day, hour = 24 * HOUR, HOUR
    batches = [
        batch("daily.csv", [(START, 100), (START + day, 101)], granularity_ms=day),
        batch("hourly.csv", [(START, 200), (START + hour, 201)], granularity_ms=hour),
        batch("late.csv", [(START + hour, 301)], granularity_ms=hour, fetched_at=1_800_000_000_000),
    ]
    expected = {START: 200.0, START + hour: 301.0, START + day: 101.0}
    for number, order in enumerate([(0, 1, 2), (2, 1, 0), (1, 0, 2)]):
        context = context_of(tmp_path / str(number))
        replaced = 0
        for place in order:
            batches[place](context.workspace.landing)
            replaced += ingest(context).replaced
        frame = stored(context)
        assert dict(zip(frame["timestamp"], frame["price"], strict=True)) == expected
    # The order 1, 0, 2: only the late batch takes a stored row's place.
    assert replaced == 1


def test_every_reader_opens_the_snapshot_and_gets_the_same_rows(spark_session, tmp_path):
    context = context_of(tmp_path)
    rows = [(START + n * 12 * HOUR, 29_000 + n / 3, 1e12 + n if n % 3 else "") for n in range(200)]
    text = "timestamp,price,market_cap\n" + "".join(f"{t},{p},{c}\n" for t, p, c in rows)
    drop(context.workspace.landing, "rows.csv", text)
    result = ingest(context)
    folder = snapshots.required(context.workspace.prices).folder
    expected = pd.DataFrame(
        {
            "timestamp": np.array([t for t, _, _ in rows], dtype="int64"),
            "price": np.array([p for _, p, _ in rows], dtype="float32"),
            "market_cap": [c if c else np.nan for _, _, c in rows],
            "volume_24h": np.full(200, np.nan),
            "price_change_24h": np.full(200, np.nan, dtype="float32"),
            "month": [str(np.datetime64(t, "ms").astype("datetime64[M]")) for t, _, _ in rows],
        }
    )

    def same(frame: pd.DataFrame) -> None:
        frame = frame[list(expected)].sort_values("timestamp", ignore_index=True)
        pd.testing.assert_frame_equal(frame, expected, check_exact=True)

    same(load_petastorm_batches_to_df(str(folder)))
    table = ds.dataset(folder, partitioning="hive", format="parquet").to_table()
    assert table.schema.field("timestamp").type == pa.int64()
    assert table.schema.field("price").type == pa.float32()
    assert table.schema.field("market_cap").type == pa.float64()
    assert table.schema.field("price_change_24h").type == pa.float32()
    same(table.to_pandas().astype({"month": object}))
    same(pd.read_parquet(folder).astype({"month": object}))
    plain = spark_session.read.parquet(str(folder))
    kinds = dict(plain.dtypes)
    assert (kinds["timestamp"], kinds["price"], kinds["market_cap"]) == (
        "bigint",
        "float",
        "double",
    )
    same(plain.toPandas().astype({"month": str}))

    url = folder.as_uri()
    with make_reader(url, num_epochs=1, reader_pool_type="dummy") as reader:
        same(pd.DataFrame([row._asdict() for row in reader]).astype(expected.dtypes.to_dict()))
    with make_batch_reader(url, num_epochs=1, reader_pool_type="dummy") as reader:
        same(pd.concat([pd.DataFrame(b._asdict()) for b in reader]).astype({"month": str}))

    summary = pq.read_metadata(folder / "_metadata")
    assert summary.num_rows == result.rows == 200
    listed = {summary.row_group(g).column(0).file_path for g in range(summary.num_row_groups)}
    assert listed == {f.path for f in snapshots.required(context.workspace.prices).manifest.files}
    assert (folder / "_common_metadata").exists()


def test_a_workspace_takes_prices_of_one_origin_only(spark_session, tmp_path):
    context = context_of(tmp_path)
    landing = context.workspace.landing
    collected(landing, "a.csv", f"timestamp,price\n{START},1\n")
    ingest(context)
    assert context.workspace.bound_to() == Origin("simulated:7", "bitcoin", "usd")
    collected(landing, "b.csv", f"timestamp,price\n{START + HOUR},2\n", source="coingecko")
    result = ingest(context)
    assert [r.rule for r in result.refused_batches] == ["origin"]
    assert result.rows == 1
    with pytest.raises(WorkspaceBound, match="simulated:7"):
        context.workspace.check(Origin("coingecko", "bitcoin", "usd"))


def test_a_batch_without_a_good_row_makes_no_data_set(spark_session, tmp_path):
    context = context_of(tmp_path)
    drop(context.workspace.landing, "bad.csv", "timestamp,price\nnever,1\n\n")
    result = ingest(context)
    assert (result.read, result.refused, result.snapshot) == (1, 1, None)
    assert snapshots.current(context.workspace.prices) is None
    assert [r["line"] for r in rejected(context)] == [2]


def test_the_13_165_real_hours_are_all_accounted_for(spark_session, tmp_path, real_data):
    context = context_of(tmp_path, "source.mode=csv")
    path = real_data / "coinbase_btcusd_hourly_2017-07-01_2018-12-31.csv.gz"
    wanted = ImportOptions(path, "timestamp_s", "close", "s", stamp="open", bar="1h")
    assert import_file(context, wanted).rows == 13_165
    result = ingest(context)
    assert (result.read, result.accepted, result.duplicate, result.refused) == (13165, 13165, 0, 0)
    source = pd.read_csv(path)
    frame = stored(context)
    assert (frame["timestamp"] == source["timestamp_s"] * 1000 + HOUR).all()
    assert (frame["price"] == source["close"].astype("float32")).all()
