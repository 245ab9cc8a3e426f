"""Blocks of a series: who owns a row, who sees it, and its number in the series."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitstorm.transform.blocks import Blocks, in_blocks, in_pieces, numbered

pytestmark = pytest.mark.slow


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    indexes=st.sets(st.integers(-50, 200), min_size=1, max_size=40),
    size=st.integers(1, 60),
    before=st.integers(0, 90),
    after=st.integers(0, 20),
)
def test_a_block_sees_its_own_rows_and_those_around_them(
    spark_session, indexes, size, before, after
):
    blocks = Blocks(size, before, after)
    frame = spark_session.createDataFrame([(i,) for i in indexes], "index bigint")
    rows = in_blocks(frame, blocks).select("block", "index", blocks.owned().alias("own")).collect()
    span = range(min(indexes) // size - 100, max(indexes) // size + 101)
    expected = {
        (n, i, n * size <= i < (n + 1) * size)
        for n in span
        for i in indexes
        if n * size - before <= i < (n + 1) * size + after
    }
    assert {tuple(row) for row in rows} == expected
    assert len(rows) == len(expected)
    assert sum(row["own"] for row in rows) == len(indexes)


@pytest.mark.parametrize("buckets", [1, 4, 64])
def test_rows_of_any_sampling_are_numbered_in_order_without_a_hole(spark_session, buckets):
    chance = random.Random(buckets)
    # A sparse year, then a dense one.
    times = chance.sample(range(10**9), 200) + chance.sample(range(10**9, 10**9 + 5_000), 2_000)
    frame = spark_session.createDataFrame([(t, -t) for t in times], "at bigint, what bigint")
    rows = numbered(frame.repartition(5), by="at", buckets=buckets).orderBy("index").collect()
    assert [tuple(row) for row in rows] == [(t, -t, n) for n, t in enumerate(sorted(times))]


def test_pieces_of_a_series_that_grows_dense_have_about_equal_rows(spark_session):
    chance = random.Random(4)
    # Ten years of days, and a day of seconds: cut at equal times, one piece would have them all.
    day = 86_400_000
    times = [n * day for n in range(3_650)] + [3_650 * day + n * 1_000 for n in range(86_400)]
    chance.shuffle(times)
    frame = spark_session.createDataFrame([(t,) for t in times], "at bigint").repartition(5)
    sizes = [row["count"] for row in in_pieces(frame, by="at").groupBy("piece").count().collect()]
    assert len(sizes) == 64 and sum(sizes) == len(times)
    assert max(sizes) < 1.1 * len(times) / 64


def test_nothing_to_number_is_no_error(spark_session):
    frame = spark_session.createDataFrame([], "at bigint")
    assert numbered(frame, by="at").collect() == []


@pytest.mark.parametrize("options", [{"size": 0}, {"before": -1}, {"after": -1}])
def test_no_way_to_cut_a_series_is_refused(options):
    with pytest.raises(ValueError, match="no way to cut"):
        Blocks(**options)
