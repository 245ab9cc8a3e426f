"""Of several observations of one time, one stands, whatever the order of arrival."""

from __future__ import annotations

import random

import pytest

from bitstorm.transform.merge import with_place

pytestmark = pytest.mark.slow

SCHEMA = (
    "timestamp bigint, price double, batch string, line bigint, granularity_ms bigint, "
    "fetched_at bigint, month string"
)
HOUR, DAY = 3_600_000, 86_400_000

# Best first, as the contract ranks them.
RANKED = [
    (1, 10.0, "b", 9, HOUR, 500),
    (1, 11.0, "a", 1, HOUR, 400),
    (1, 12.0, "a", 2, HOUR, None),
    (1, 13.0, "a", 1, DAY, 900),
    (1, 14.0, "c", 1, None, 999),
    (1, 15.0, "a", 5, None, None),
    (1, 16.0, "a", 7, None, None),
    (1, 17.0, "b", 1, None, None),
]


def test_finer_then_later_fetched_then_smaller_hash_then_earlier_line_wins(spark_session):
    for seed in range(3):
        shuffled = [(*row, "1970-01") for row in random.Random(seed).sample(RANKED, len(RANKED))]
        frame = spark_session.createDataFrame(shuffled, SCHEMA).repartition(3)
        found = with_place(frame).orderBy("place").collect()
        assert [row["price"] for row in found] == [row[1] for row in RANKED]
        assert [row["place"] for row in found] == list(range(1, len(RANKED) + 1))


def test_different_times_do_not_compete(spark_session):
    rows = [(t, float(t), "a", t, None, None, "1970-01") for t in range(1, 50)]
    frame = spark_session.createDataFrame(rows, SCHEMA)
    assert {row["place"] for row in with_place(frame).collect()} == {1}
