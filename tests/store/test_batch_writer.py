"""`make_batch_writer`: rows without a JVM, published like any other."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from petastorm import make_batch_reader
from petastorm.codecs import ScalarCodec
from petastorm.unischema import Unischema, UnischemaField
from pyspark.sql.types import LongType, StringType

from bitstorm.core.errors import DataError, StoreError, UsageError
from bitstorm.store import snapshots
from bitstorm.store.batch_writer import BatchWriter
from bitstorm.store.maintenance import verify
from bitstorm.store.snapshots import Snapshot
from bitstorm.utils import BitcoinSchema, load_petastorm_batches_to_df, make_batch_writer

START = 1_609_459_200_000
DAY = 86_400_000


def prices(stamps, value=100.0):
    return pd.DataFrame({"timestamp": stamps, "price": [value] * len(stamps)})


def published(writer: BatchWriter) -> Snapshot:
    assert writer.snapshot is not None
    return writer.snapshot


def read(root):
    frame = load_petastorm_batches_to_df(str(root)).sort_values("timestamp", ignore_index=True)
    return dict(zip(frame["timestamp"], frame["price"], strict=True))


def test_pieces_in_any_order_become_one_readable_snapshot(tmp_path):
    stamps = [START + n * DAY for n in range(70)]
    random.Random(1).shuffle(stamps)
    with make_batch_writer(tmp_path / "prices", BitcoinSchema) as writer:
        for start in range(0, 70, 9):
            writer.write(prices(stamps[start : start + 9], value=float(start + 1)))
    expected = {t: float(place // 9 * 9 + 1) for place, t in enumerate(stamps)}
    assert read(tmp_path / "prices") == expected
    manifest = published(writer).manifest
    assert (manifest.sequence, manifest.rows, len(manifest.files)) == (1, 70, 3)
    url = published(writer).folder.as_uri()
    with make_batch_reader(url, reader_pool_type="dummy", num_epochs=1) as reader:
        assert sum(len(batch.timestamp) for batch in reader) == 70
    assert verify(tmp_path / "prices").problems == ()


def test_the_same_rows_in_other_pieces_write_nothing(tmp_path):
    stamps = [START + n * DAY for n in range(10)]
    with make_batch_writer(str(tmp_path), BitcoinSchema) as first:
        first.write(prices(stamps))
    with make_batch_writer(tmp_path.as_uri(), BitcoinSchema) as second:
        second.write(pa.Table.from_pandas(prices(stamps[:3])))
        second.write(prices(stamps[3:]))
    assert published(second).id == published(first).id


def test_untouched_months_are_shared_and_the_better_row_stands(tmp_path):
    january, february = [START, START + DAY], [START + 31 * DAY]
    with make_batch_writer(tmp_path, BitcoinSchema) as first:
        first.write(prices(january + february, 1.0))
    with make_batch_writer(tmp_path, BitcoinSchema, granularity_ms=1000) as second:
        second.write(prices([START + 31 * DAY, START + 32 * DAY], 2.0))
    with make_batch_writer(tmp_path, BitcoinSchema, granularity_ms=9000) as third:
        third.write(prices([START + 31 * DAY], 3.0))
    assert read(tmp_path) == {
        START: 1.0,
        START + DAY: 1.0,
        START + 31 * DAY: 2.0,
        START + 32 * DAY: 2.0,
    }
    by_month = {f.month: f for f in published(third).manifest.files}
    shared = published(third).folder / by_month["2021-01"].path
    before = published(first).folder / by_month["2021-01"].path
    assert shared.stat().st_ino == before.stat().st_ino
    (tally,) = published(third).manifest.batches.values()
    assert (tally["read"], tally["accepted"], tally["duplicate"]) == (1, 0, 1)


def test_the_digest_does_not_depend_on_the_order_of_the_batches(tmp_path):
    batches = [
        (prices([START, START + DAY], 1.0), 1000),
        (prices([START + DAY, START + 40 * DAY], 2.0), 500),
        (prices([START, START + 40 * DAY], 3.0), None),
    ]
    digests = set()
    for number, order in enumerate([(0, 1, 2), (2, 1, 0), (1, 2, 0)]):
        for place in order:
            rows, granularity = batches[place]
            root = tmp_path / str(number)
            with make_batch_writer(root, BitcoinSchema, granularity_ms=granularity) as writer:
                writer.write(rows)
        digests.add(published(writer).manifest.digest)
        assert read(root) == {START: 1.0, START + DAY: 2.0, START + 40 * DAY: 2.0}
    assert len(digests) == 1


def test_an_error_inside_the_block_publishes_nothing(tmp_path):
    def broken():
        with make_batch_writer(tmp_path, BitcoinSchema) as writer:
            writer.write(prices([START]))
            raise RuntimeError("the caller's own")

    with pytest.raises(RuntimeError, match="own"):
        broken()
    assert snapshots.current(tmp_path) is None


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (pd.DataFrame({"timestamp": [START]}), "price missing"),
        (pd.DataFrame({"timestamp": [START], "price": [1], "x": [1]}), "x unknown"),
        (pd.DataFrame({"timestamp": ["soon"], "price": [1.0]}), "timestamp is"),
        (pd.DataFrame({"timestamp": [START + 0.5], "price": [1.0]}), "timestamp is"),
    ],
)
def test_columns_that_break_the_schema_refuse_the_piece(tmp_path, rows, said):
    with make_batch_writer(tmp_path, BitcoinSchema) as writer, pytest.raises(DataError, match=said):
        writer.write(rows)
    assert snapshots.current(tmp_path) is None


def test_a_schema_of_ones_own_works_and_another_one_is_kept_out(tmp_path):
    own = Unischema(
        "Trades",
        [
            UnischemaField("timestamp", np.int64, (), ScalarCodec(LongType()), False),
            UnischemaField("venue", np.str_, (), ScalarCodec(StringType()), True),
        ],
    )
    with make_batch_writer(tmp_path, own) as writer:
        writer.write(pd.DataFrame({"timestamp": [START, START + 1], "venue": ["é", None]}))
    # Not by petastorm, which reads a null text as "None".
    frame = pd.read_parquet(published(writer).folder)
    assert frame["venue"].tolist() == ["é", None]

    def mixed():
        with make_batch_writer(tmp_path, BitcoinSchema) as other:
            other.write(prices([START]))

    with pytest.raises(StoreError, match="Trades"):
        mixed()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([UnischemaField("timestamp", np.float64, (), None, False)], "int64 field"),
        ([UnischemaField("image", np.uint8, (8, 8), None, False)], "image"),
    ],
)
def test_a_schema_that_a_data_set_cannot_hold_is_refused(tmp_path, fields, said):
    with pytest.raises(UsageError, match=said):
        make_batch_writer(tmp_path, Unischema("X", fields))


def test_a_place_that_is_not_local_is_refused(tmp_path):
    with pytest.raises(UsageError, match="local"):
        make_batch_writer("s3a://bucket/x", BitcoinSchema)
