"""Of several observations of one time, one stands, whatever the order of arrival."""

from __future__ import annotations

import random

import pytest

from bitstorm.ingest import deduplicate
from bitstorm.ingest.deduplicate import (
    Provenance,
    to_ranking,
    with_lineage,
    with_new_rank,
    with_place,
)

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
    (1, 15.0, "a", 7, None, None),
    (1, 16.0, "a", 5, None, None),
    (1, 17.0, "b", 1, None, None),
]
SOURCES = [Provenance(batch, gran, fetched) for _, _, batch, _, gran, fetched in RANKED]


@pytest.mark.parametrize("few", [64, 0], ids=["by_map", "by_join"])
def test_finer_then_newer_then_smaller_hash_then_last_line_wins(spark_session, monkeypatch, few):
    monkeypatch.setattr(deduplicate, "_FEW", few)
    for seed in range(3):
        chance = random.Random(seed)
        shuffled = [(*row, "1970-01") for row in chance.sample(RANKED, len(RANKED))]
        frame = spark_session.createDataFrame(shuffled, SCHEMA).repartition(3)
        ranking = to_ranking(chance.sample(SOURCES, len(SOURCES)))
        found = with_place(deduplicate.with_rank(frame, ranking)).orderBy("place").collect()
        assert [row["price"] for row in found] == [row[1] for row in RANKED]
        assert [row["place"] for row in found] == list(range(1, len(RANKED) + 1))


def test_different_times_do_not_compete(spark_session):
    rows = [(t, float(t), "a", t, None, None, "1970-01") for t in range(1, 50)]
    frame = spark_session.createDataFrame(rows, SCHEMA)
    placed = with_place(deduplicate.with_rank(frame, to_ranking([Provenance("a", None, None)])))
    assert {row["place"] for row in placed.collect()} == {1}


@pytest.mark.parametrize("few", [64, 0], ids=["by_map", "by_join"])
def test_a_rank_leads_back_to_its_source_also_in_another_ranking(spark_session, monkeypatch, few):
    monkeypatch.setattr(deduplicate, "_FEW", few)
    frame = spark_session.createDataFrame([(*row, "1970-01") for row in RANKED], SCHEMA)
    own = to_ranking(SOURCES)
    wider = to_ranking([*SOURCES, Provenance("0", 1, 2), Provenance("z", None, None)])
    there = with_new_rank(deduplicate.with_rank(frame, own), own, wider)
    back = with_lineage(there, wider).select(frame.columns)
    assert back.schema["granularity_ms"].dataType == frame.schema["granularity_ms"].dataType
    assert sorted(back.collect(), key=str) == sorted(frame.collect(), key=str)
