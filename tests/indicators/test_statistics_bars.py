"""Bars and summaries against a loop over the observations, and their plans."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pandas as pd
import pytest

from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from bitstorm.indicators.statistics import WEEK_MS, to_summaries, with_complete

pytestmark = pytest.mark.slow

START = 1_609_459_200_000  # 2021-01-01T00:00:00Z, a Friday


def frame_of(spark, observations):
    return spark.createDataFrame(observations, "timestamp bigint, price float").repartition(3)


def collected(bars) -> pd.DataFrame:
    return bars.orderBy("timestamp").toPandas()


def next_midnight(timestamp: int, *, monday: bool) -> int:
    """The first midnight, or Monday's, at the time or after it, by the calendar."""
    moment = datetime.fromtimestamp(timestamp / 1000, UTC)
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    while day < moment or (monday and day.weekday() != 0):
        day += timedelta(days=1)
    return round(day.timestamp() * 1000)


def by_loop(observations, label_of, period) -> pd.DataFrame:
    """`to_summaries`, one bar after the other."""
    bars: dict[int, list[float]] = {}
    for timestamp, price in sorted(observations):
        bars.setdefault(label_of(timestamp), []).append(price)
    rows = []
    for label, prices in sorted(bars.items()):
        before = bars.get(label - period)
        moves = [math.log(b / a) for a, b in pairwise(prices)]
        rows.append(
            (label, prices[0], max(prices), min(prices), prices[-1], len(prices),
             math.nan if before is None else math.log(prices[-1] / before[-1]),
             math.sqrt(math.fsum(m * m for m in moves)) if moves else math.nan)
        )  # fmt: skip
    columns = ["timestamp", "open", "high", "low", "close", "count", "log_return",
               "realised_volatility"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def irregular(seed: int, *, mean_ms: int) -> list[tuple[int, float]]:
    """200 observations at random times, some on a label, with holes of many periods."""
    chance = random.Random(seed)
    time, price, found = START, 30_000.0, {}
    for _ in range(200):
        time += round(chance.choice([1, 0.2, 0.5, 1, 1, 20]) * mean_ms * chance.random()) + 1
        if chance.random() < 0.1:
            time = -(-time // DAY_MS) * DAY_MS
        price = float(round(price * math.exp(chance.gauss(0, 0.01))))
        found[time] = price
    chance.shuffle(rows := list(found.items()))
    return rows


@pytest.mark.parametrize(
    ("period", "label_of"),
    [
        (7 * MINUTE_MS, lambda t: -(-t // (7 * MINUTE_MS)) * 7 * MINUTE_MS),
        (DAY_MS, lambda t: next_midnight(t, monday=False)),
        (WEEK_MS, lambda t: next_midnight(t, monday=True)),
    ],
    ids=["7m", "1d", "1w"],
)
def test_bars_equal_a_loop_over_irregular_observations(spark_session, period, label_of):
    observations = irregular(period % 97, mean_ms=period // 3)
    prices = frame_of(spark_session, observations)
    found = collected(to_summaries(prices, period_ms=period))
    expected = by_loop(observations, label_of, period)
    pd.testing.assert_frame_equal(found, expected, rtol=1e-12, atol=1e-15)
    exact = ["timestamp", "open", "high", "low", "close", "count"]
    pd.testing.assert_frame_equal(found[exact], expected[exact], rtol=0, atol=0)
    assert found["log_return"].isna().sum() > 1 and found["count"].max() > 2


def test_a_bar_holds_its_label_and_nothing_later(spark_session):
    rows = [(START - HOUR_MS, 9.0), (START, 1.0), (START + 1, 2.0), (START + HOUR_MS, 3.0)]
    found = collected(to_summaries(frame_of(spark_session, rows), period_ms=HOUR_MS))
    assert found["timestamp"].tolist() == [START - HOUR_MS, START, START + HOUR_MS]
    assert found[["open", "high", "low", "close"]].values.tolist() == [
        [9.0] * 4,
        [1.0] * 4,
        [2.0, 3.0, 2.0, 3.0],
    ]


def test_no_bar_changes_when_later_observations_come(spark_session):
    observations = sorted(irregular(5, mean_ms=HOUR_MS))
    before = collected(to_summaries(frame_of(spark_session, observations[:120]), period_ms=HOUR_MS))
    after = collected(to_summaries(frame_of(spark_session, observations), period_ms=HOUR_MS))
    complete = before[before["timestamp"] <= observations[119][0]]
    pd.testing.assert_frame_equal(after.head(len(complete)), complete)


def test_weeks_end_on_monday_midnight_and_others_from_the_epoch(spark_session):
    monday = START + 3 * DAY_MS
    prices = frame_of(spark_session, [(monday, 1.0), (monday + 1, 2.0)])

    def labels(period_ms):
        return collected(to_summaries(prices, period_ms=period_ms))["timestamp"].tolist()

    assert datetime.fromtimestamp(monday / 1000, UTC).strftime("%A %H:%M") == "Monday 00:00"
    assert labels(WEEK_MS) == [monday, monday + WEEK_MS]
    five = 5 * DAY_MS
    assert labels(five) == [-(-monday // five) * five]


def test_a_summary_by_hand_with_a_hole_and_a_lone_observation(spark_session):
    day = START + DAY_MS
    rows = [(day - 2, 100.0), (day - 1, 110.0), (day, 99.0), (day + 5, 198.0)]
    rows += [(day + 3 * DAY_MS, 50.0)]
    found = collected(to_summaries(frame_of(spark_session, rows), period_ms=DAY_MS))
    assert found["count"].tolist() == [3, 1, 1]
    nan = math.nan
    assert found["log_return"].tolist() == pytest.approx([nan, math.log(2), nan], nan_ok=True)
    realised = math.sqrt(math.log(1.1) ** 2 + math.log(0.9) ** 2)
    assert found["realised_volatility"].tolist() == pytest.approx([realised, nan, nan], nan_ok=True)


def test_a_constant_price_has_zero_returns_and_volatility(spark_session):
    rows = [(START + n * HOUR_MS, 0.1) for n in range(1, 49)]
    found = collected(to_summaries(frame_of(spark_session, rows), period_ms=DAY_MS))
    assert found["log_return"].tolist()[1:] == [0.0]
    assert found["realised_volatility"].tolist() == [0.0, 0.0]


def test_only_a_bar_without_a_later_observation_is_incomplete(spark_session):
    rows = [(START, 1.0), (START + HOUR_MS, 2.0), (START + HOUR_MS + 1, 3.0)]
    bars = to_summaries(frame_of(spark_session, rows), period_ms=HOUR_MS)
    assert collected(with_complete(bars, last_ms=rows[-1][0]))["complete"].tolist() == [
        True,
        True,
        False,
    ]
    two = with_complete(bars.where("close < 3"), last_ms=rows[1][0])
    assert collected(two)["complete"].tolist() == [True, True]


def test_no_step_brings_all_rows_into_one_partition(spark_session):
    rows = [(START + n * MINUTE_MS, 1.0) for n in range(100)]
    bars = to_summaries(frame_of(spark_session, rows), period_ms=HOUR_MS)
    bars.collect()
    plan = bars._jdf.queryExecution().executedPlan().toString()
    assert "hashpartitioning(label" in plan and "SinglePartition" not in plan
