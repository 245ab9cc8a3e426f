"""Irregular observations to the regular grid, against a brute-force loop."""

from __future__ import annotations

import random

import pytest

from bitstorm.transform.blocks import SIZE
from bitstorm.transform.resample import thinned, to_grid, with_segment

pytestmark = pytest.mark.slow

STEP = 3_600_000
START = 1_600_000_000_000 // STEP * STEP


def brute_force(observations: list[tuple[int, float]], step: int, max_gap: int):
    """(label, price, imputed, segment, position) by looking at every bucket in turn."""
    observations = sorted(observations)
    first = -(-observations[0][0] // step) * step
    # The newest bucket counts only when something stands at its label: else it is not complete.
    last = observations[-1][0] // step * step
    rows, segment, position, missing, price = [], 0, -1, 0, None
    waiting: list[tuple[int, float]] = []
    for label in range(first, last + step, step):
        inside = [p for t, p in observations if label - step < t <= label]
        if not inside:
            missing += 1
            waiting.append((label, price))
            continue
        if missing > max_gap:
            segment, position = segment + 1, -1
        else:
            for hole, carried in waiting:
                position += 1
                rows.append((hole, carried, True, segment, position))
        waiting, missing, price = [], 0, inside[-1]
        position += 1
        rows.append((label, price, False, segment, position))
    return rows


def gridded(spark, observations, *, step=STEP, max_gap=6, size=SIZE):
    frame = spark.createDataFrame(observations, "timestamp bigint, price float").repartition(3)
    grid = to_grid(frame, step_ms=step, max_gap=max_gap, size=size)
    rows = with_segment(grid, step_ms=step, size=size).orderBy("timestamp").collect()
    return [tuple(row) for row in rows]


def test_the_grid_equals_a_loop_over_every_bucket(spark_session):
    for seed in range(5):
        chance = random.Random(seed)
        time, observations = START, []
        for n in range(120):
            time += chance.choice([1, 200_000, STEP // 2, STEP, STEP, 2 * STEP, 7 * STEP, 9 * STEP])
            observations.append((time + chance.choice([0, 0, 1, -1]), float(n + 1)))
        observations = list({t: (t, p) for t, p in observations}.values())
        max_gap = chance.choice([0, 1, 6])
        expected = brute_force(observations, STEP, max_gap)
        for size in (1, 5, 64, SIZE):
            found = gridded(spark_session, observations, max_gap=max_gap, size=size)
            assert found == expected


def test_a_point_holds_nothing_later_than_its_label(spark_session):
    rows = gridded(spark_session, [(START, 1.0), (START + 1, 2.0), (START + STEP, 3.0)])
    assert [(t - START, p) for t, p, *_ in rows] == [(0, 1.0), (STEP, 3.0)]


def test_an_unfinished_bucket_is_not_there_until_it_is_complete(spark_session):
    known = [(START, 1.0), (START + 1, 2.0), (START + STEP - 1, 3.0)]
    assert [t - START for t, *_ in gridded(spark_session, known)] == [0]
    rows = gridded(spark_session, [*known, (START + STEP + 1, 4.0)])
    assert [(t - START, p) for t, p, *_ in rows] == [(0, 1.0), (STEP, 3.0)]


def test_a_hole_of_max_gap_is_carried_and_one_more_cuts(spark_session):
    carried = gridded(spark_session, [(START, 1.0), (START + 7 * STEP, 2.0)])
    assert [row[2] for row in carried] == [False, *[True] * 6, False]
    assert {row[3] for row in carried} == {0}
    cut = gridded(spark_session, [(START, 1.0), (START + 8 * STEP, 2.0)])
    assert [(row[0] - START, row[3], row[4]) for row in cut] == [(0, 0, 0), (8 * STEP, 1, 0)]


def test_open_high_low_and_count_are_of_the_buckets_own_observations(spark_session):
    observations = [(START - 5, 3.0), (START - 3, 1.0), (START, 2.0), (START + 2 * STEP, 7.0)]
    frame = spark_session.createDataFrame(observations, "timestamp bigint, price float")
    rows = to_grid(frame, step_ms=STEP, max_gap=6, ohlc=True).orderBy("timestamp").collect()
    assert [tuple(row) for row in rows] == [
        (START, 2.0, False, 3.0, 3.0, 1.0, 3),
        (START + STEP, 2.0, True, 2.0, 2.0, 2.0, 0),
        (START + 2 * STEP, 7.0, False, 7.0, 7.0, 7.0, 1),
    ]


@pytest.mark.parametrize("size", [1, 7, SIZE])
def test_open_high_low_close_and_count_equal_a_loop_over_every_bucket(spark_session, size):
    chance = random.Random(9)
    time, observations = START, []
    for _ in range(150):
        time += chance.choice([1, STEP // 7, STEP // 3, STEP, 3 * STEP, 9 * STEP])
        observations.append((time, float(chance.randrange(1, 1_000))))
    # The newest bucket is complete.
    observations.append((-(-time // STEP) * STEP + STEP, 5.0))
    expected = []
    for label, close, imputed, *_ in brute_force(observations, STEP, 6):
        inside = [p for t, p in observations if label - STEP < t <= label] or [close]
        count = 0 if imputed else len(inside)
        expected.append((label, close, imputed, inside[0], max(inside), min(inside), count))
    frame = spark_session.createDataFrame(observations, "timestamp bigint, price float")
    grid = to_grid(frame.repartition(3), step_ms=STEP, max_gap=6, ohlc=True, size=size)
    assert [tuple(row) for row in grid.orderBy("timestamp").collect()] == expected
    assert any(row[2] for row in expected) and any(row[6] > 2 for row in expected)


def test_thinning_keeps_the_newest_point_and_every_nth_before_it(spark_session):
    rows = [(START + n * STEP,) for n in range(10)]
    frame = spark_session.createDataFrame(rows, "timestamp bigint")
    kept = thinned(frame, step_ms=STEP, every=4, last_ms=START + 9 * STEP).collect()
    assert [(row[0] - START) // STEP for row in kept] == [1, 5, 9]
