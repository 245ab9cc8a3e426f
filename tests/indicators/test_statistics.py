"""Statistics of returns and drawdowns against pandas and the formulas written out."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from bitstorm.core.errors import DataError
from bitstorm.core.time import HOUR_MS
from bitstorm.indicators.statistics import autocorrelations, statistics

pytestmark = pytest.mark.slow

START = 1_609_459_200_000
SCHEMA = "timestamp bigint, price float, imputed boolean, log_return double, drawdown double"


def points_of(prices, *, hours=None, imputed=(), max_gap=6) -> pd.DataFrame:
    """Points with the returns and drawdowns that IndicatorSchema promises: cut at large holes."""
    hours = np.arange(len(prices)) if hours is None else np.asarray(hours)
    price = pd.Series(np.asarray(prices, dtype="float32").astype("float64"))
    segment = pd.Series(np.diff(hours, prepend=hours[0]) > max_gap).cumsum()
    return pd.DataFrame(
        {
            "timestamp": START + hours * HOUR_MS,
            "price": price,
            "imputed": np.isin(np.arange(len(prices)), imputed),
            "log_return": np.log(price).groupby(segment).diff(),
            "drawdown": price / price.groupby(segment).cummax() - 1,
        }
    )


def computed(spark, points: pd.DataFrame, lags=(1, 3)) -> dict:
    rows = [
        tuple(None if isinstance(v, float) and math.isnan(v) else v for v in row)
        for row in points.itertuples(index=False, name=None)
    ]
    frame = spark.createDataFrame(rows, SCHEMA).repartition(3)
    found = statistics(frame, step_ms=HOUR_MS, lags=lags).collect()
    assert len(found) == 1
    return found[0].asDict(recursive=True)


def reference(points: pd.DataFrame, lags=(1, 3)) -> dict:
    """By pandas, and where its definition is another one by the formula."""
    r = points["log_return"].dropna()
    n, m = len(r), (r - r.mean())
    by_time = points.set_index("timestamp")["log_return"]
    whole = by_time.reindex(range(points["timestamp"].min(), points["timestamp"].max() + 1,
                                  HOUR_MS))  # fmt: skip
    trough = points.loc[points["drawdown"].idxmin(), "timestamp"]
    tops = points[(points["drawdown"] == 0) & (points["timestamp"] <= trough)]
    return {
        "count": len(points),
        "imputed": int(points["imputed"].sum()),
        "returns": n,
        "first_ms": points["timestamp"].min(),
        "last_ms": points["timestamp"].max(),
        "mean": r.mean(),
        "sd": r.std(),
        "annualised_volatility": r.std() * math.sqrt(365 * 24),
        "skewness": (m**3).mean() / (m**2).mean() ** 1.5,
        "excess_kurtosis": (m**4).mean() / (m**2).mean() ** 2 - 3,
        "minimum": r.min(),
        "maximum": r.max(),
        "positive_share": (r > 0).mean(),
        "largest_drawdown": points["drawdown"].min(),
        "trough_ms": trough,
        "peak_ms": tops["timestamp"].max(),
        "autocorrelation": [
            {
                "lag": lag,
                "pairs": int((whole.notna() & whole.shift(lag).notna()).sum()),
                "of_return": whole.corr(whole.shift(lag)),
                "of_absolute": whole.abs().corr(whole.abs().shift(lag)),
            }
            for lag in lags
        ],
    }


def assert_equal(found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys()
    lagged = zip(found.pop("autocorrelation"), expected.pop("autocorrelation"), strict=True)
    for ours, theirs in lagged:
        assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    assert found == pytest.approx(expected, rel=1e-9)


def walk(seed: int, count: int) -> np.ndarray:
    moves = np.random.default_rng(seed).standard_t(4, count) * 0.01
    return 30_000 * np.exp(np.cumsum(moves))


def test_irregular_points_equal_pandas_and_the_formulas(spark_session):
    hours = np.flatnonzero(np.random.default_rng(3).random(700) > 0.1)
    hours = np.concatenate([hours[:300], hours[300:] + 400])
    points = points_of(walk(3, len(hours)), hours=hours, imputed=[5, 6, 200])
    # Points of a grid have a return only where the one before is one step back.
    points.loc[points["timestamp"].diff() != HOUR_MS, "log_return"] = np.nan
    lags = (24, 1, 168)
    found = computed(spark_session, points, lags)
    assert [one["lag"] for one in found["autocorrelation"]] == [24, 1, 168]
    assert_equal(found, reference(points, lags))


def test_moments_are_of_the_population_unlike_those_of_pandas(spark_session):
    points = points_of(walk(8, 40))
    found, r = computed(spark_session, points), points["log_return"].dropna()
    n = len(r)
    assert r.skew() == pytest.approx(found["skewness"] * math.sqrt(n * (n - 1)) / (n - 2))
    corrected = (n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * found["excess_kurtosis"] + 6)
    assert r.kurt() == pytest.approx(corrected)


def test_values_by_hand(spark_session):
    # Two of size ln 2 up, one down, in turn with rests.
    found = computed(spark_session, points_of([100, 200, 200, 100, 200]), lags=(1, 2, 4))
    up = math.log(2)
    assert found["mean"] == pytest.approx(up / 4)
    assert found["sd"] == pytest.approx(up * math.sqrt((3 - 1 / 4) / 3))
    assert (found["minimum"], found["maximum"]) == pytest.approx((-up, up))
    assert found["positive_share"] == 0.5
    assert found["largest_drawdown"] == -0.5
    assert [(found[name] - START) // HOUR_MS for name in ("peak_ms", "trough_ms")] == [2, 3]
    half = pytest.approx(-0.5)
    # Lag 1 pairs (1, 0), (0, -1), (-1, 1); lag 2 pairs (1, -1), (0, 1); lag 4 has none.
    assert found["autocorrelation"] == [
        {"lag": 1, "pairs": 3, "of_return": half, "of_absolute": half},
        {"lag": 2, "pairs": 2, "of_return": pytest.approx(-1), "of_absolute": None},
        {"lag": 4, "pairs": 0, "of_return": None, "of_absolute": None},
    ]  # fmt: skip


def test_of_equal_drawdowns_the_first_from_its_last_peak_counts(spark_session):
    prices = [4.0, 8.0, 8.0, 6.0, 4.0, 8.0, 4.0, 16.0, 15.0]
    found = computed(spark_session, points_of(prices))
    assert found["largest_drawdown"] == -0.5
    assert [(found[name] - START) // HOUR_MS for name in ("peak_ms", "trough_ms")] == [2, 4]


def test_a_drawdown_begins_anew_after_a_cut(spark_session):
    prices, hours = [100.0, 90.0, 10.0, 8.0, 9.0], [0, 1, 50, 51, 52]
    found = computed(spark_session, points_of(prices, hours=hours))
    assert found["largest_drawdown"] == pytest.approx(-0.2)
    assert [(found[name] - START) // HOUR_MS for name in ("peak_ms", "trough_ms")] == [50, 51]
    assert found["returns"] == 3


def test_a_constant_price_has_no_shape_and_no_correlation(spark_session):
    found = computed(spark_session, points_of([5.25] * 40), lags=(1,))
    assert (found["mean"], found["sd"], found["annualised_volatility"]) == (0, 0, 0)
    assert (found["minimum"], found["maximum"], found["positive_share"]) == (0, 0, 0)
    assert found["skewness"] is None and found["excess_kurtosis"] is None
    assert (found["largest_drawdown"], found["peak_ms"], found["trough_ms"]) == (0, None, None)
    nothing = {"lag": 1, "pairs": 38, "of_return": None, "of_absolute": None}
    assert found["autocorrelation"] == [nothing]


def test_one_point_has_a_time_and_nothing_else(spark_session):
    found = computed(spark_session, points_of([7.0]), lags=(1,))
    nothing = {"lag": 1, "pairs": 0, "of_return": None, "of_absolute": None}
    assert {name: value for name, value in found.items() if value is not None} == {
        "count": 1,
        "imputed": 0,
        "returns": 0,
        "first_ms": START,
        "last_ms": START,
        "largest_drawdown": 0.0,
        "autocorrelation": [nothing],
    }


def test_imputed_points_count_with_their_returns_of_zero(spark_session):
    some = points_of([10.0, 10.0, 20.0, 20.0, 10.0], imputed=[1, 3])
    found = computed(spark_session, some)
    assert (found["imputed"], found["returns"], found["positive_share"]) == (2, 4, 0.25)
    assert found["sd"] == pytest.approx(math.log(2) * math.sqrt(2 / 3))
    every = computed(spark_session, points_of([3.0] * 9, imputed=range(9)))
    assert (every["count"], every["imputed"], every["returns"], every["sd"]) == (9, 9, 8, 0.0)


def test_no_points_at_all_are_counted_as_none(spark_session):
    found = computed(spark_session, points_of([7.0]).head(0), lags=(1,))
    assert (found["count"], found["imputed"], found["first_ms"], found["mean"]) == (
        0,
        0,
        None,
        None,
    )
    assert found["autocorrelation"][0]["pairs"] == 0


def test_digits_are_kept_at_a_mean_a_million_times_the_spread(spark_session):
    points = points_of(walk(1, 500))
    noise = np.random.default_rng(1).normal(0, 1e-3, 500)
    points["log_return"] = 1_000.0 + noise
    found = computed(spark_session, points, lags=(1,))
    exact = points["log_return"].to_numpy() - 1_000.0
    assert found["sd"] == pytest.approx(exact.std(ddof=1), rel=1e-8)
    m = exact - exact.mean()
    assert found["excess_kurtosis"] == pytest.approx((m**4).mean() / m.var() ** 2 - 3, rel=1e-7)
    assert found["autocorrelation"][0]["of_return"] == pytest.approx(
        np.corrcoef(exact[:-1], exact[1:])[0, 1], rel=1e-7
    )


@pytest.mark.parametrize("lags", [[], [0], [-1], [1, 24, 1]])
def test_lags_that_make_no_sense_are_refused(spark_session, lags):
    frame = spark_session.createDataFrame([], SCHEMA)
    with pytest.raises(DataError, match="steps from 1 on"):
        statistics(frame, step_ms=HOUR_MS, lags=lags)


def test_pairs_are_found_without_a_single_partition(spark_session):
    spark_session.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")
    rows = [(START + n * HOUR_MS, 1.0, False, float(n), 0.0) for n in range(50)]
    frame = spark_session.createDataFrame(rows, SCHEMA).repartition(3)
    pairs = autocorrelations(frame, step_ms=HOUR_MS, lags=[1, 2])
    pairs.collect()
    plan = pairs._jdf.queryExecution().executedPlan().toString()
    assert "hashpartitioning(timestamp" in plan
    assert "SinglePartition" not in plan and "Window" not in plan
