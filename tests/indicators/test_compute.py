"""Prices to IndicatorSchema in Spark: against pandas and TA-Lib, and whatever the blocks."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import talib

from bitstorm.core.schema import indicator_table
from bitstorm.indicators.compute import Span, from_prices, observed_after_ms, span_of
from bitstorm.indicators.kernel import Grid
from indicators.compared import assert_equal

pytestmark = pytest.mark.slow

HOUR = 3_600_000
WINDOWS = [7, 24, 168]
GRID = Grid(HOUR, 6)


def reference(price: pd.Series, windows: list[int]) -> pd.DataFrame:
    """One uncut stretch, by pandas and TA-Lib."""
    p = price.astype("float64")
    change = p.pct_change(fill_method=None)
    out = {"log_return": np.log(p / p.shift())}
    for w in windows:
        out[f"ma_{w}"] = p.rolling(w).mean()
        # Deviations in one window at a time: pandas' running update loses digits here.
        out[f"volatility_{w}"] = change.rolling(w).apply(lambda x: x.std(ddof=1), raw=True)
        out[f"ema_{w}"] = p.ewm(span=w, adjust=False, min_periods=w).mean()
    fast = p.ewm(span=12, adjust=False, min_periods=12).mean()
    slow = p.ewm(span=26, adjust=False, min_periods=26).mean()
    out["macd"] = fast - slow
    out["macd_signal"] = out["macd"].ewm(span=9, adjust=False, min_periods=9).mean()
    out["rsi_14"] = pd.Series(talib.RSI(p.to_numpy(), 14), index=p.index)
    middle, spread = p.rolling(20).mean(), p.rolling(20).apply(np.std, raw=True)
    out["bollinger_upper_20"] = middle + 2 * spread
    out["bollinger_lower_20"] = middle - 2 * spread
    out["drawdown"] = p / p.cummax() - 1
    out["trend"] = np.sign(out[f"ma_{windows[0]}"] - out[f"ma_{windows[-1]}"])
    return pd.DataFrame(out)


def computed(spark, observations: pd.DataFrame, *, windows: list[int], **options) -> pd.DataFrame:
    frame = spark.createDataFrame(
        list(observations.itertuples(index=False, name=None)), "timestamp bigint, price float"
    )
    times = observations["timestamp"]
    span = options.pop("span", None) or span_of(int(times.min()), int(times.max()), grid=GRID)
    found = from_prices(frame.repartition(3), grid=GRID, windows=windows, span=span, **options)
    return found.orderBy("timestamp").toPandas()


def test_indicators_on_real_hours_equal_pandas_and_talib(spark_session, real_data):
    source = pd.read_csv(real_data / "coinbase_btcusd_hourly_2017-07-01_2018-12-31.csv.gz")
    observations = pd.DataFrame(
        {"timestamp": source["timestamp_s"] * 1000 + HOUR, "price": source["close"]}
    )
    found = computed(spark_session, observations, windows=WINDOWS)
    assert list(found.columns) == indicator_table(WINDOWS).names
    assert len(found) == 13_165
    assert (found["timestamp"].to_numpy() == observations["timestamp"].to_numpy()).all()
    assert not found["imputed"].any()
    price = pd.Series(source["close"].to_numpy(dtype="float32"))
    assert_equal(found, reference(price, WINDOWS))
    # TA-Lib begins its means with simple ones, of which nothing is left after some hundred points.
    exact = price.to_numpy(dtype="float64")
    macd, signal, _ = talib.MACD(exact, 12, 26, 9)
    settled = {"ema_7": talib.EMA(exact, 7), "ema_24": talib.EMA(exact, 24)}
    late = pd.DataFrame({**settled, "macd": macd, "macd_signal": signal})[500:]
    assert_equal(found[500:], late)
    later = pd.DataFrame({"ema_168": talib.EMA(exact, 168)})[3_000:]
    assert_equal(found[3_000:], later)


def holed(count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hours with a small hole, cuts, and one that spans several small blocks; and what comes of
    them, run by run."""
    chance = np.random.default_rng(11)
    price = (30_000 * np.exp(np.cumsum(chance.normal(0, 0.01, count)))).astype("float32")
    price[count // 2 : count // 2 + 900] = price[count // 2]
    stamps = np.arange(count) * HOUR + 1_600_000_000_000 // HOUR * HOUR
    begins = [0, 400, count // 3, count - 700, count]
    for begin, hours in zip(begins[1:-1], (40, 30, 3_000), strict=True):
        stamps[begin:] += hours * HOUR
    kept = np.ones(count, dtype=bool)
    kept[100:104] = False
    carried = pd.Series(price).where(kept).ffill()
    runs = pairwise(begins)
    expected = pd.concat([reference(carried[a:b], [3, 30]) for a, b in runs], ignore_index=True)
    expected["timestamp"], expected["imputed"] = stamps, ~kept
    return pd.DataFrame({"timestamp": stamps, "price": price})[kept], expected


@pytest.mark.parametrize("size", [1_024, 4_096, 61_440])
def test_cuts_and_holes_come_out_the_same_in_blocks_of_any_size(spark_session, size):
    observations, expected = holed(9_000)
    found = computed(spark_session, observations, windows=[3, 30], size=size)
    assert_equal(found, expected)


def test_the_end_of_a_series_is_what_the_whole_series_ends_with(spark_session):
    observations, expected = holed(14_000)
    # In the last run, which has begun long before.
    first = int(observations["timestamp"].iloc[-500]) // HOUR
    last_ms = int(observations["timestamp"].iloc[-1])
    run = expected["timestamp"] > int(observations["timestamp"].iloc[-701])
    early = run & (expected["timestamp"] < first * HOUR)
    highest = float(
        observations.set_index("timestamp")["price"][expected["timestamp"][early]].max()
    )
    span = Span(first, last_ms // HOUR, last_ms, highest)
    needed = observations["timestamp"] > observed_after_ms(span, grid=GRID, windows=[3, 30])
    found = computed(spark_session, observations[needed], windows=[3, 30], span=span)
    assert_equal(found, expected[-500:])


def test_values_by_hand(spark_session):
    prices = [100.0, 110.0, 99.0, 99.0]
    observations = pd.DataFrame(
        {"timestamp": [1_600_002_000_000 + n * HOUR for n in range(4)], "price": prices}
    )
    found = computed(spark_session, observations, windows=[2, 3])
    assert found["log_return"].tolist()[1:] == pytest.approx(
        [math.log(1.1), math.log(0.9), 0.0], rel=1e-14
    )
    assert found["ma_2"].tolist()[1:] == [105.0, 104.5, 99.0]
    # changes +0.1 and -0.1: mean 0, sample variance 0.02
    assert found["volatility_2"].tolist()[2] == pytest.approx(math.sqrt(0.02), rel=1e-14)
    # span 2: a = 2/3; 100, 106.666…, 101.555…
    assert found["ema_2"].tolist()[1:3] == pytest.approx([320 / 3, 914 / 9], rel=1e-14)
    assert found["drawdown"].tolist() == pytest.approx([0.0, 0.0, -0.1, -0.1], rel=1e-14)
    # ma_2 less ma_3: 104.5 - 103, 99 - 102.666…
    assert found["trend"].tolist()[2:] == [1, -1]
    assert found["trend"].isna().tolist() == [True, True, False, False]
    assert found["volatility_3"].isna().tolist() == [True, True, True, False]
    assert found["month"].tolist() == ["2020-09"] * 4


def single_task_rows(plan) -> list[int]:
    """Of a plan that has run: how many rows each exchange into a single partition was given."""
    name = plan.getClass().getSimpleName()
    if name == "AdaptiveSparkPlanExec":
        return single_task_rows(plan.executedPlan())
    if name.endswith("QueryStageExec"):
        return single_task_rows(plan.plan())
    below = [plan.children().apply(n) for n in range(plan.children().size())]
    found = [rows for child in below for rows in single_task_rows(child)]
    if name == "ShuffleExchangeExec" and plan.outputPartitioning().numPartitions() == 1:
        found.append(plan.metrics().apply("shuffleRecordsWritten").value())
    return found


def test_of_a_long_series_one_task_sees_a_row_a_block(spark_session):
    frame = spark_session.range(150_000).selectExpr("id * 60000 timestamp", "float(id + 1) price")
    grid = Grid(60_000, 6)
    span = span_of(0, 149_999 * 60_000, grid=grid)
    made = from_prices(frame, grid=grid, windows=[7, 24], span=span)
    assert len(made.collect()) == 150_000
    ran = made._jdf.queryExecution().executedPlan()
    assert "isFinalPlan=true" in ran.toString()
    # Three blocks, and the one that the scan starts from.
    assert [rows for rows in single_task_rows(ran) if rows] == [4]
    # The observations are put into blocks once, for the scan and for the kernel.
    assert "ReusedExchange" in ran.toString()


def test_a_short_series_is_not_shuffled(spark_session):
    frame = spark_session.range(9_000).selectExpr("id * 60000 timestamp", "float(id + 1) price")
    grid = Grid(60_000, 6)
    span = span_of(0, 8_999 * 60_000, grid=grid)
    made = from_prices(frame.repartition(2), grid=grid, windows=WINDOWS, span=span)
    text = made._jdf.queryExecution().executedPlan().toString()
    assert len(re.findall(r"Exchange", text)) == 1  # this test's own
    assert text.count("FlatMapGroupsInArrow") == 1
