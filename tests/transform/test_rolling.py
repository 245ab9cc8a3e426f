"""Moving average and volatility against windows one at a time, in long double."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitstorm.transform.blocks import SIZE
from bitstorm.transform.rolling import rolling

pytestmark = pytest.mark.slow

STEP = 60_000
TOLERANCE = 1e-12


def brute_force(price: np.ndarray, run: np.ndarray, widths) -> dict[str, np.ndarray]:
    """Each window on its own; `run` numbers the stretches without a cut."""
    exact = price.astype(np.longdouble)
    change = np.full(len(price), np.nan, dtype=np.longdouble)
    change[1:] = np.where(run[1:] == run[:-1], (exact[1:] - exact[:-1]) / exact[:-1], np.nan)
    found = {}
    for width in widths:
        average = np.full(len(price), np.nan)
        spread = np.full(len(price), np.nan)
        for end in range(width - 1, len(price)):
            if run[end] == run[end - width + 1]:
                average[end] = exact[end - width + 1 : end + 1].mean()
            if width > 1 and end >= width and run[end] == run[end - width]:
                window = change[end - width + 1 : end + 1]
                spread[end] = np.sqrt(((window - window.mean()) ** 2).sum() / (width - 1))
        found[f"ma_{width}"], found[f"volatility_{width}"] = average, spread
    return found


def computed(spark, stamps, price, widths, **options) -> pd.DataFrame:
    rows = [(int(t), float(p)) for t, p in zip(stamps, price, strict=True)]
    frame = spark.createDataFrame(rows, "timestamp bigint, price float").repartition(3)
    return rolling(frame, windows=widths, **options).orderBy("timestamp").toPandas()


def assert_exact(found: pd.DataFrame, expected: dict[str, np.ndarray]) -> None:
    for name, theirs in expected.items():
        ours = found[name].to_numpy(dtype=float)
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), err_msg=f"nulls of {name}")
        floor = 1e-6 if name.startswith("volatility") else 1e-9
        allowed = TOLERANCE * np.maximum(np.abs(theirs), floor)
        worst = np.nanmax(np.abs(ours - theirs) / allowed, initial=0.0)
        assert worst <= 1, f"{name} is {worst:.3g} times as far off as it may be"


def stamps_of(steps) -> np.ndarray:
    return 1_356_998_400_000 + STEP * np.cumsum(steps)


CHANCE = np.random.default_rng(5)
WALK = 20_000 * np.exp(np.cumsum(CHANCE.normal(0, 5e-4, 3_000)))
JUMP = np.where(np.arange(3_000) < 1_500, WALK / 100, WALK)
SERIES = {
    "a walk": WALK,
    "from 0.05 to 120,000": np.geomspace(0.05, 120_000, 3_000)
    * np.exp(CHANCE.normal(0, 1e-3, 3_000)),
    "steady growth from 0.05 to 120,000": np.geomspace(0.05, 120_000, 3_000),
    "a jump by a factor of 100": JUMP,
    "there and back": np.where(np.arange(3_000) // 500 % 2, WALK * 100, WALK),
    "quiet after wild": np.concatenate([WALK[:1_000] * np.exp(CHANCE.normal(0, 0.2, 1_000)),
                                        20_000 + np.arange(2_000) % 7 * 0.01]),
    "climbing by its last digit": (np.float32(20_000).view(np.int32)
                                   + np.arange(3_000, dtype=np.int32)).view(np.float32),
    "equal steps of 5 %": 20 * 1.05 ** np.abs(np.arange(3_000) % 200 - 100),
    "one price 10^18 times the others": np.where(np.arange(3_000) == 100, WALK * 1e18, WALK),
    "billions": WALK * 1e5,
    "a billionth": WALK * 1e-14,
}  # fmt: skip


@pytest.mark.parametrize("name", SERIES)
def test_no_digit_is_lost_on(spark_session, name):
    price = SERIES[name].astype("float32")
    widths = (7, 24, 168)
    expected = brute_force(price, np.zeros(len(price)), widths)
    for size in (SIZE, 700) if name == "a walk" else (700,):
        stamps = stamps_of(np.ones(len(price), dtype=int))
        assert_exact(
            computed(spark_session, stamps, price, widths, step_ms=STEP, size=size), expected
        )


def test_a_constant_stretch_has_no_volatility_at_all(spark_session):
    price = np.concatenate([WALK[:400], np.full(300, WALK[400]), WALK[400:700]]).astype("float32")
    found = computed(
        spark_session, stamps_of(np.ones(1_000, dtype=int)), price, (7, 168), step_ms=STEP, size=256
    )
    assert set(found["volatility_7"][410:700]) == {0.0}
    assert set(found["volatility_168"][570:700]) == {0.0}


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_blocks_of_any_size_give_what_one_block_gives(spark_session, data):
    steps = data.draw(st.lists(st.sampled_from([1, 1, 1, 1, 1, 2, 9, 70]), min_size=1, max_size=60))
    changes = st.one_of(st.floats(-0.06, 0.06), st.sampled_from([0.0, 0.0, 99.0, -0.99]))
    drawn = data.draw(st.lists(changes, min_size=len(steps), max_size=len(steps)))
    price = (300 * np.cumprod(1 + np.array(drawn))).astype("float32")
    widths = sorted(data.draw(st.sets(st.integers(1, 30), min_size=1, max_size=3)))
    size = data.draw(st.sampled_from([1, 2, 7, 64]))
    stamps = stamps_of(steps)
    run = np.cumsum(np.array(steps) > 1)
    expected = brute_force(price, run, widths)
    assert_exact(computed(spark_session, stamps, price, widths, step_ms=STEP, size=size), expected)
    # Without a grid windows count rows: nothing is cut.
    whole = brute_force(price, np.zeros(len(price)), widths)
    assert_exact(computed(spark_session, stamps, price, widths, size=size), whole)


def test_both_real_files_keep_every_digit(spark_session, real_data):
    hours = pd.read_csv(real_data / "coinbase_btcusd_hourly_2017-07-01_2018-12-31.csv.gz")
    price = hours["close"].to_numpy(dtype="float32")
    stamps = hours["timestamp_s"].to_numpy() * 1000
    expected = brute_force(price, np.zeros(len(price)), (7, 24, 168))
    found = computed(spark_session, stamps, price, (7, 24, 168), step_ms=3_600_000, size=1_000)
    assert_exact(found, expected)
    days = pd.read_csv(real_data / "coingecko_bitcoin_usd_daily_2013-04-28_2023-06-03.csv.gz")
    price = days["price_usd"].to_numpy(dtype="float32")
    stamps = np.arange(len(price))
    expected = brute_force(price, np.zeros(len(price)), (7, 24, 168))
    assert_exact(computed(spark_session, stamps, price, (7, 24, 168), size=500), expected)


@pytest.mark.parametrize("step_ms", [STEP, None])
def test_no_stage_of_the_plan_has_a_single_task_but_a_scan_over_summaries(spark_session, step_ms):
    frame = spark_session.range(1000).selectExpr(
        "id * 60000 as timestamp", "float(id + 1) as price"
    )
    plan = rolling(frame, windows=(7, 24), step_ms=step_ms)._jdf.queryExecution().executedPlan()
    text = plan.toString()
    assert len(re.findall(r"Exchange SinglePartition", text)) == (0 if step_ms else 1)
    if step_ms is None:
        # That one comes after the count of rows a piece, 64 at most.
        below = text[text.index("Exchange SinglePartition") :]
        assert re.match(r"[^\n]*\n[^\n]*HashAggregate\(keys=\[piece", below)


def test_windows_below_one_are_refused(spark_session):
    frame = spark_session.createDataFrame([(0, 1.0)], "timestamp bigint, price float")
    for windows in ((), (0, 7)):
        with pytest.raises(ValueError, match="widths from 1 on"):
            rolling(frame, windows=windows)
