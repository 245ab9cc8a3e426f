"""Forecasts of the realised variance against statsmodels, arch and hand calculation."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitstorm.evaluation import volatility
from bitstorm.evaluation import volatility_features as history

DAY_MS = 24 * history.HOUR_MS


def market(n: int, seed: int = 1) -> np.ndarray:
    """GARCH(1,1) with t shocks; the first return is unknown."""
    random = np.random.default_rng(seed)
    shocks = random.standard_t(5, n) * math.sqrt(3 / 5)
    returns, variance = np.empty(n), 1e-4
    for t in range(n):
        returns[t] = math.sqrt(variance) * shocks[t]
        variance = 2e-6 + 0.1 * returns[t] ** 2 + 0.88 * variance
    returns[0] = np.nan
    return returns


def sums_ahead(returns: np.ndarray, horizon: int) -> np.ndarray:
    n = len(returns)
    return np.array(
        [
            np.sum(returns[t + 1 : t + 1 + horizon] ** 2) if t + horizon < n else np.nan
            for t in range(n)
        ]
    )


def test_qlike_by_hand():
    found = volatility.qlike(forecast=np.array([1.0, 2.0, 0.5]), actual=np.array([1.0, 1.0, 1.0]))
    expected = [0.0, 0.5 + math.log(2) - 1, 2 - math.log(2) - 1]
    np.testing.assert_allclose(found, expected, atol=1e-15)
    assert np.isfinite(volatility.qlike(forecast=np.ones(1), actual=np.zeros(1))).all()


@given(
    hnp.arrays(float, 5, elements=st.floats(1e-9, 1e3)),
    hnp.arrays(float, 5, elements=st.floats(1e-9, 1e3)),
)
def test_qlike_is_zero_only_for_the_outcome_itself(forecast, actual):
    found = volatility.qlike(forecast=forecast, actual=actual)
    assert np.all(found >= -1e-15)
    far = np.abs(np.log(forecast / actual)) > 1e-6
    assert np.all(found[far] > 0)
    assert np.all(volatility.qlike(forecast=actual, actual=actual) == 0)


def test_persistence_and_ewma_by_hand():
    returns = np.array([np.nan, 0.1, -0.2, 0.3, np.nan])
    last = volatility.forecast_variance("persistence", returns, first_ms=0, horizon=2)
    nan = np.nan
    # Half of a window is enough: its mean stands for the rest.
    np.testing.assert_allclose(last, [nan, 0.02, 0.05, 0.13, 0.18])
    squares = [0.01, 0.04, 0.09]
    level, expected = squares[0], [nan]
    for square in squares:
        level = 0.97 * level + 0.03 * square
        expected.append(2 * level)
    ewma = volatility.forecast_variance("ewma", returns, first_ms=0, horizon=2)
    np.testing.assert_allclose(ewma, [*expected, expected[-1]])


@pytest.mark.parametrize("name", ["har", "log_har"])
def test_har_is_the_least_squares_of_statsmodels(name):
    api = pytest.importorskip("statsmodels.api")
    returns = market(1_400)
    found = volatility.forecast_variance(name, returns, first_ms=0, every=400)
    y = sums_ahead(returns, 24)
    X = np.column_stack([history.realised_variance(returns, w) for w in (6, 24, 168)])
    if name == "log_har":
        X, y = np.log(X), np.log(y)
    complete = np.flatnonzero(np.isfinite(X).all(axis=1))
    origin = complete[499] + 24
    assert np.isnan(found[:origin]).all()
    second = origin + 400
    rows = complete[complete <= second - 24]
    theirs = api.OLS(y[rows], api.add_constant(X[rows])).fit()
    served = slice(second, second + 400)
    expected, fitted = theirs.predict(api.add_constant(X[served])), theirs.fittedvalues
    if name == "log_har":
        smearing = np.mean(np.exp(theirs.resid))
        expected, fitted = np.exp(expected) * smearing, np.exp(fitted) * smearing
    else:
        # A floor keeps the level positive.
        expected, fitted = (np.maximum(values, y[rows].min()) for values in (expected, fitted))
    # No forecast lies further than a factor 2 outside the range of the past.
    expected = np.clip(expected, fitted.min() / 2, fitted.max() * 2)
    np.testing.assert_allclose(found[served], expected, rtol=1e-8)


def test_garch_t_is_the_analytic_forecast_of_arch():
    from arch import arch_model

    returns = market(1_500)
    found = volatility.forecast_variance("garch_t", returns, first_ms=0, every=700)
    origin = 500
    assert np.isnan(found[:origin]).all()
    second = origin + 700
    scale = np.nanstd(returns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = arch_model(returns[1:] / scale, mean="Zero", dist="t", rescale=False)
        fit = model.fit(disp="off", last_obs=second)
        ahead = fit.forecast(horizon=24, start=second - 1, align="origin").variance
    expected = ahead.to_numpy().sum(axis=1) * scale**2
    np.testing.assert_allclose(found[second:], expected, rtol=2e-3)


def test_recipe_a_is_the_geometric_mean_of_its_three():
    returns = market(1_700)
    found = volatility.forecast_variance("recipe_a", returns, first_ms=0)
    parts = [
        volatility.forecast_variance(part, returns, first_ms=0)
        for part in ("log_ridge", "qlike_ridge", "garch_t")
    ]
    expected = np.cbrt(parts[0] * parts[1] * parts[2])
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    # 360 hours of a half month, 500 rows, 24 hours ahead.
    assert np.flatnonzero(np.isfinite(found))[0] == 360 + 499 + 24


@pytest.mark.parametrize("now", [5, 1_250])
@pytest.mark.parametrize("name", volatility.NAMES)
def test_no_forecast_changes_with_the_future(name, now):
    returns = market(1_400)
    returns[600:640] = np.nan
    other = np.r_[returns[: now + 1], 7 * returns[:100:-1]]
    for future in (returns[: now + 1], other):
        before = volatility.forecast_variance(name, returns, first_ms=0, every=200)
        after = volatility.forecast_variance(name, future, first_ms=0, every=200)
        np.testing.assert_array_equal(before[: now + 1], after[: now + 1])
    assert np.isfinite(before[1_250])


@pytest.mark.parametrize("name", volatility.NAMES)
def test_twice_the_returns_have_four_times_the_variance(name):
    returns = market(1_100)
    found = volatility.forecast_variance(name, returns, first_ms=0)
    twice = volatility.forecast_variance(name, 2 * returns, first_ms=0)
    np.testing.assert_allclose(twice, 4 * found, rtol=1e-6)


@pytest.mark.parametrize("name", volatility.NAMES)
def test_a_still_price_has_a_positive_variance(name):
    found = volatility.forecast_variance(name, np.zeros(1_000), first_ms=0)
    assert np.all(found[900:] > 0)


@pytest.mark.parametrize("name", volatility.NAMES)
def test_days_have_forecasts_of_their_own_windows(name):
    returns = 5 * market(700)
    found = volatility.forecast_variance(name, returns, first_ms=0, step_ms=DAY_MS, horizon=7)
    assert np.isfinite(found[-100:]).all()
    rows = np.isfinite(found)
    assert (
        0.5
        < np.mean(sums_ahead(returns, 7)[rows & (np.arange(700) < 690)]) / np.mean(found[rows])
        < 2
    )


def test_the_interval_of_a_difference_holds_its_law():
    # Losses with AR(1) noise: the deviation of their mean is 1 / (1 - 0.8) / sqrt(n).
    n, random = 4_000, np.random.default_rng(2)
    noise = random.normal(size=n)
    for t in range(1, n):
        noise[t] += 0.8 * noise[t - 1]
    other = random.exponential(size=n)
    found = volatility.mean_difference(other + 0.5 + noise, other)
    assert found.mean == pytest.approx(0.5 + noise.mean())
    assert found.lower < found.mean < found.upper
    law = 2 * 1.96 * 5 / math.sqrt(n)
    assert 0.7 * law < found.upper - found.lower < 1.3 * law
    assert volatility.mean_difference(other, other) == volatility.MeanDifference(0.0, 0.0, 0.0)


def test_the_table_compares_models_where_all_forecast():
    actual = np.array([np.nan, 1.0, 1.0, 1.0, 1.0])
    forecasts = {
        "log_har": np.array([1.0, 2.0, 2.0, 2.0, 2.0]),
        "ours": np.array([1.0, np.nan, 1.0, 1.0, 1.0]),
    }
    best, other = volatility.scores(forecasts, actual)
    loss = 0.5 + math.log(2) - 1
    assert (best.model, best.count, best.qlike) == ("ours", 3, 0.0)
    assert other.qlike == pytest.approx(loss)
    assert other.against == {}
    assert best.against["log_har"].mean == pytest.approx(-loss)


@pytest.mark.slow
def test_recipe_a_beats_log_har_on_real_hours(real_data):
    import pandas as pd

    table = pd.read_csv(real_data / "coinbase_btcusd_hourly_2017-07-01_2018-12-31.csv.gz")
    returns = np.diff(np.log(table["close"].to_numpy()), prepend=np.nan)
    # The close of an hour is known at its end.
    first_ms = int(table["timestamp_s"].iloc[0]) * 1000 + history.HOUR_MS
    half = len(returns) // 2
    forecasts = {
        name: volatility.forecast_variance(name, returns, first_ms=first_ms)[half:]
        for name in ("log_har", "garch_t", "recipe_a")
    }
    actual = history.future_variance(returns, horizon=24)[half:]
    scores = {score.model: score for score in volatility.scores(forecasts, actual)}
    assert scores["recipe_a"].count == len(returns) - half - 24
    # Of the differences to both baselines the whole interval is below zero.
    for difference in scores["recipe_a"].against.values():
        assert difference.upper < 0
    assert scores["recipe_a"].qlike < 0.65
