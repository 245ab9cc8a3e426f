"""Indicators against pandas, TA-Lib and calculations by hand, nulls and cuts included."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bitstorm.schema import indicator_table
from bitstorm.transform.indicators import from_prices
from bitstorm.transform.recurrence import TILE

pytestmark = pytest.mark.slow

HOUR = 3_600_000
WINDOWS = [7, 24, 168]
FLOOR = {"log_return": 1e-6, "volatility": 1e-6}


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


def computed(
    spark, observations: pd.DataFrame, *, step: int, windows: list[int], **cut: int
) -> pd.DataFrame:
    frame = spark.createDataFrame(
        list(observations.itertuples(index=False, name=None)), "timestamp bigint, price float"
    )
    found = from_prices(frame.repartition(3), step_ms=step, max_gap=6, windows=windows, **cut)
    return found.orderBy("timestamp").toPandas()


def assert_equal(
    found: pd.DataFrame, expected: pd.DataFrame, tolerance: float = 1e-9, *, digits: int = 4
) -> None:
    for name in expected.columns:
        ours = found[name].astype("float64").to_numpy()
        theirs = expected[name].astype("float64").to_numpy()
        np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs), err_msg=f"nulls of {name}")
        floor = next((f for start, f in FLOOR.items() if name.startswith(start)), 1e-9)
        allowed = tolerance * np.maximum(np.abs(theirs), floor)
        if name.startswith("macd") and digits:
            # A reference in double knows the difference of two averages to their last digits.
            last_digit = np.spacing(found["price"].astype("float64"))
            allowed = np.maximum(allowed, digits * last_digit)
        apart = (np.abs(ours - theirs) - allowed)[~np.isnan(theirs)]
        worst = np.max(np.asarray(apart), initial=-np.inf)
        assert worst <= 0, f"{name} is off by {worst:.3g} more than allowed"


def test_indicators_on_real_hours_equal_pandas_and_talib(spark_session, real_data):
    source = pd.read_csv(real_data / "coinbase_btcusd_hourly_2017-07-01_2018-12-31.csv.gz")
    observations = pd.DataFrame(
        {"timestamp": source["timestamp_s"] * 1000 + HOUR, "price": source["close"]}
    )
    found = computed(spark_session, observations, step=HOUR, windows=WINDOWS)
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
    assert_equal(found[500:], late, digits=8)
    later = pd.DataFrame({"ema_168": talib.EMA(exact, 168)})[3_000:]
    assert_equal(found[3_000:], later)


def test_everything_restarts_after_a_cut_and_carries_through_a_small_hole(spark_session):
    chance = np.random.default_rng(11)
    price = (30_000 * np.exp(np.cumsum(chance.normal(0, 0.01, 900)))).astype("float32")
    stamps = np.arange(900) * HOUR + 1_600_000_000_000 // HOUR * HOUR
    stamps[400:] += 40 * HOUR
    kept = np.ones(900, dtype=bool)
    kept[100:104] = False
    observations = pd.DataFrame({"timestamp": stamps, "price": price})[kept]
    found = computed(spark_session, observations, step=HOUR, windows=[3, 30])
    carried = pd.Series(price).where(kept).ffill()
    expected = pd.concat([reference(carried[:400], [3, 30]), reference(carried[400:], [3, 30])])
    assert list(np.flatnonzero(found["imputed"])) == [100, 101, 102, 103]
    assert (found["timestamp"].to_numpy() == stamps).all()
    assert_equal(found, expected)


def plain_macd(price: np.ndarray) -> dict[str, np.ndarray]:
    """MACD and its signal by the recursion with 40 digits."""
    macd, signal = np.full(len(price), np.nan), np.full(len(price), np.nan)
    with localcontext() as context:
        context.prec = 40
        fast = slow = smooth = Decimal(0)
        for n, value in enumerate(map(Decimal, price.astype(np.float64).tolist())):
            fast = (11 * fast + 2 * value) / 13 if n else value
            slow = (25 * slow + 2 * value) / 27 if n else value
            smooth = (4 * smooth + fast - slow) / 5 if n > 25 else fast - slow
            if n >= 25:
                macd[n] = fast - slow
            if n >= 33:
                signal[n] = smooth
    return {"macd": macd, "macd_signal": signal}


def test_small_blocks_give_what_one_block_gives(spark_session):
    chance = np.random.default_rng(12)
    price = 30_000 * np.exp(np.cumsum(chance.normal(0, 0.01, 4_000)))
    price[1_800:3_000] = price[1_800]  # nothing moves for longer than a tile
    stamps = np.arange(4_000) * HOUR + 1_600_000_000_000 // HOUR * HOUR
    stamps[700:] += 30 * HOUR
    stamps[3_500:] += 3_000 * HOUR  # a hole of several blocks
    observations = pd.DataFrame({"timestamp": stamps, "price": price.astype("float32")})
    options = {"step": HOUR, "windows": [3, 24, 1_100]}  # the widest is wider than a block
    whole = computed(spark_session, observations, **options, size=8_192, tile=2_048)
    parts = computed(spark_session, observations, **options, size=1_024, tile=1_024)
    assert_equal(parts, whole.drop(columns="month"), tolerance=1e-12, digits=0)
    runs = list(pairwise((0, 700, 3_500, 4_000)))
    prices = pd.Series(price.astype("float32"))
    expected = pd.concat([reference(prices[a:b], [3, 24, 1_100]) for a, b in runs])
    plain = [plain_macd(prices[a:b].to_numpy()) for a, b in runs]
    for name in plain[0]:
        expected[name] = np.concatenate([part[name] for part in plain])
    assert_equal(computed(spark_session, observations, **options), expected, digits=0)


def crossing(count: int) -> np.ndarray:
    """Prices after which, time and again, MACD is the next to 0 that a float32 can make it."""
    chance = np.random.default_rng(17)
    out, fast, slow = np.empty(count, np.float32), 0.0, 0.0
    out[0] = 20_000
    for n in range(1, count):
        last = float(out[n - 1])
        moved = last * chance.normal(0, 1e-3)
        to_zero = (11 / 13 * fast - 25 / 27 * slow) / (25 / 27 - 11 / 13)
        if n % 5 == 0 and abs(to_zero) < 0.02 * last:
            moved = to_zero
        out[n] = last + moved
        step = float(out[n]) - last
        fast, slow = 11 / 13 * (fast + step), 25 / 27 * (slow + step)
    return out


def test_macd_is_right_to_the_last_digit_where_it_crosses_zero(spark_session):
    price = crossing(20_000)
    stamps = (np.arange(len(price)) + 1_600_000_000_000 // HOUR) * HOUR
    observations = pd.DataFrame({"timestamp": stamps, "price": price})
    found = computed(spark_session, observations, step=HOUR, windows=[3], size=4_096)
    for name, expected in plain_macd(price).items():
        # So near 0 that a difference of two averages in double would be right to four digits.
        assert np.nanmin(np.abs(expected)) < {"macd": 1e-6, "macd_signal": 1e-2}[name]
        np.testing.assert_allclose(found[name].to_numpy(np.float64), expected, rtol=3e-16, atol=0)


@settings(
    max_examples=2,
    deadline=None,
    # Making a failing example smaller takes many minutes of Spark.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(30, 6_000),
    cuts=st.sampled_from([0.0, 0.003, 0.2]),
    windows=st.sets(st.integers(2, 1_500), min_size=1, max_size=3).map(sorted),
    tile=st.sampled_from([1_024, 2_048]),
    tiles=st.integers(1, 3),
)
def test_blocks_of_any_size_give_what_one_block_gives(
    spark_session, seed, count, cuts, windows, tile, tiles
):
    chance = np.random.default_rng(seed)
    # Several points in a bucket, holes that are carried and that cut, longer than a block.
    small = chance.choice([HOUR // 5, HOUR, HOUR, HOUR, HOUR, HOUR, 4 * HOUR], count)
    large = chance.choice([9 * HOUR, 150 * HOUR, 3_500 * HOUR], count)
    taken = np.where(chance.random(count) < cuts, large, small)
    moves = chance.choice([0.0, 0.01, 0.06], count) * chance.uniform(-1, 1, count)
    jumps = chance.choice([99.0, -0.99], count)
    moves = np.where(chance.random(count) < 0.01, jumps, moves)
    price = np.clip(300 * np.cumprod(1 + moves), 1e-3, 1e6).astype("float32")
    stamps = 1_600_000_000_000 + np.cumsum(taken)
    observations = pd.DataFrame({"timestamp": stamps, "price": price})
    options = {"step": HOUR, "windows": windows}
    whole = computed(spark_session, observations, **options, size=2**20, tile=4_096)
    parts = computed(spark_session, observations, **options, size=tile * tiles, tile=tile)
    assert parts["timestamp"].tolist() == whole["timestamp"].tolist()
    assert_equal(parts, whole.drop(columns="month"), tolerance=1e-12, digits=0)


def single_task_stages(plan) -> list[tuple[str, int]]:
    """Of a plan that has run: what each exchange into a single partition was given, as the operator
    under it, and how many rows that was."""
    name = plan.getClass().getSimpleName()
    if name == "AdaptiveSparkPlanExec":
        return single_task_stages(plan.executedPlan())
    if name.endswith("QueryStageExec"):
        return single_task_stages(plan.plan())
    below = [plan.children().apply(n) for n in range(plan.children().size())]
    found = [stage for child in below for stage in single_task_stages(child)]
    if name == "ShuffleExchangeExec" and plan.outputPartitioning().numPartitions() == 1:
        rows = plan.metrics().apply("shuffleRecordsWritten").value()
        found.append((below[0].toString().splitlines()[0], rows))
    return found


def single_task_of(made, *, points: int) -> tuple[str, int]:
    """The one stage of a single task: what it scans and how many rows."""
    assert len(made.collect()) == points
    ran = made._jdf.queryExecution().executedPlan()
    assert "isFinalPlan=true" in ran.toString() and "Python" not in ran.toString()
    # The newest time of each partition is a query of its own.
    (found,) = single_task_stages(ran)
    assert "SortAggregate(key=[tile#" in ran.toString() and "tile#" in found[0]
    return found


def test_the_one_stage_of_a_single_task_scans_at_most_a_row_a_tile(spark_session):
    frame = spark_session.range(150_000).selectExpr("id * 60000 timestamp", "float(id + 1) price")
    made = from_prices(frame, step_ms=60_000, max_gap=6, windows=WINDOWS)
    _, tiles = single_task_of(made, points=150_000)
    assert 150_000 // TILE - 1 <= tiles <= 150_000 // TILE <= 150_000 / 1_000


def test_of_a_series_much_sparser_than_its_grid_it_scans_few_rows(spark_session):
    hourly = "id * 61 * 60000 timestamp"  # of a grid of minutes
    frame = spark_session.range(20_000).selectExpr(hourly, "float(id + 1) price")
    made = from_prices(frame, step_ms=60_000, max_gap=6, windows=[2])
    _, tiles = single_task_of(made, points=20_000)
    assert 0 < tiles <= 20_000 / 1_000


def test_values_by_hand(spark_session):
    prices = [100.0, 110.0, 99.0, 99.0]
    observations = pd.DataFrame(
        {"timestamp": [1_600_002_000_000 + n * HOUR for n in range(4)], "price": prices}
    )
    found = computed(spark_session, observations, step=HOUR, windows=[2, 3])
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


def test_windows_that_other_indicators_have_as_well_are_like_any(spark_session):
    windows = [9, 12, 20, 26]  # of the signal, MACD, Bollinger
    drawn = np.random.default_rng(3)
    price = np.float32(100 * np.exp(np.cumsum(drawn.normal(0, 0.01, 80))))
    times = np.arange(80, dtype=np.int64) * HOUR
    observations = pd.DataFrame({"timestamp": times, "price": price.astype(float)})
    found = computed(spark_session, observations, step=HOUR, windows=windows)
    assert_equal(found, reference(pd.Series(price), windows))


def test_a_constant_price_has_no_volatility_and_no_strength_in_the_columns_of_the_schema(
    spark_session,
):
    observations = pd.DataFrame(
        {"timestamp": [1_600_002_000_000 + n * HOUR for n in range(40)], "price": [5.25] * 40}
    )
    found = computed(spark_session, observations, step=HOUR, windows=WINDOWS)
    assert list(found.columns) == indicator_table(WINDOWS).names
    assert set(found["volatility_7"].dropna()) == {0.0}
    assert set(found["drawdown"]) == {0.0}
    assert talib.RSI(np.full(40, 5.25), 14)[-1] == found["rsi_14"].iloc[-1]


@pytest.mark.parametrize("tile", [512, 2 * TILE])
def test_a_tile_in_which_macd_is_not_forgotten_or_leaves_a_doubles_range_is_refused(
    spark_session, tile
):
    frame = spark_session.createDataFrame([(0, 1.0)], "timestamp bigint, price float")
    with pytest.raises(ValueError, match=f"a tile has {tile} rows, expected 1024 to 4096"):
        from_prices(frame, step_ms=HOUR, max_gap=6, windows=[200], size=tile, tile=tile)
