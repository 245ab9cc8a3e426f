"""What Spark looks at again on a grid."""

from __future__ import annotations

import pytest

from bitstorm.transform.resample import thinned, with_segment

pytestmark = pytest.mark.slow

STEP = 3_600_000
START = 1_600_000_000_000 // STEP * STEP


@pytest.mark.parametrize("size", [1, 5, 64])
def test_a_segment_begins_at_each_hole_and_counts_its_points(spark_session, size):
    steps = [0, 1, 2, 9, 10, 200, 201, 202]
    frame = spark_session.createDataFrame([(START + n * STEP,) for n in steps], "timestamp bigint")
    rows = (
        with_segment(frame.repartition(3), step_ms=STEP, size=size).orderBy("timestamp").collect()
    )
    assert [tuple(row)[1:] for row in rows] == [
        (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2),
    ]  # fmt: skip


def test_thinning_keeps_the_newest_point_and_every_nth_before_it(spark_session):
    rows = [(START + n * STEP,) for n in range(10)]
    frame = spark_session.createDataFrame(rows, "timestamp bigint")
    kept = thinned(frame, step_ms=STEP, every=4, last_ms=START + 9 * STEP).collect()
    assert [(row[0] - START) // STEP for row in kept] == [1, 5, 9]
