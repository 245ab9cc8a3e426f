"""Blocks of a series: who owns a row, and who sees it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitstorm.indicators.windows import Blocks, in_blocks

pytestmark = pytest.mark.slow


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
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


@pytest.mark.parametrize("options", [{"size": 0}, {"before": -1}, {"after": -1}])
def test_no_way_to_cut_a_series_is_refused(options):
    with pytest.raises(ValueError, match="expected size >= 1"):
        Blocks(**options)
