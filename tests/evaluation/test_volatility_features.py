"""Features of the variance against pandas, and forecasts that know no future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bitstorm.evaluation import volatility_features as volatility
from bitstorm.evaluation.regression import qlike_ridge

DAY_MS = 24 * volatility.HOUR_MS
# Short windows for short series.
HOURS = (1, 3, 6, 24, 48)


def market(n: int, seed: int = 1) -> np.ndarray:
    """Returns with volatility in clusters; the first is unknown."""
    random = np.random.default_rng(seed)
    log_variance = np.zeros(n)
    for t in range(1, n):
        log_variance[t] = 0.97 * log_variance[t - 1] + 0.25 * random.normal()
    returns = 0.006 * np.exp(log_variance / 2) * random.standard_t(5, n)
    returns[0] = np.nan
    return returns


def with_holes(n: int) -> np.ndarray:
    returns = market(n)
    returns[150:153] = returns[200:240] = np.nan
    return returns


def test_windows_in_steps_follow_the_grid():
    hours = volatility.VARIANCE_HOURS
    assert volatility.steps_of(hours, step_ms=volatility.HOUR_MS) == hours
    assert volatility.steps_of(hours, step_ms=DAY_MS) == (1, 3, 7, 30)
    minutes = volatility.steps_of((1, 24), step_ms=60_000)
    assert minutes == (60, 1440)
    assert volatility.steps_of((1,), step_ms=DAY_MS) == (1,)


def rolled(values: pd.Series, steps: int) -> pd.Series:
    return values.rolling(steps, min_periods=(steps + 1) // 2).mean()


def test_features_are_those_of_pandas():
    returns = with_holes(400)
    r = pd.Series(returns)
    longest = rolled(r**2, 48)
    floor = np.maximum(0.01 * longest, 1e-12)
    expected = [np.log(np.maximum(rolled(r**2, w), floor)) for w in HOURS]
    # No window is longer than the longest variance.
    for w in (1, 6, 24):
        past = rolled(r, w) * np.sqrt(w) / np.sqrt(longest)
        expected += [past, past.clip(upper=0)]
    expected.append(rolled(r.clip(upper=0) ** 2, 24) / rolled(r**2, 24))
    hour = pd.date_range("2024-01-01 05:00", periods=400, freq="h", tz="UTC")
    day = 2 * np.pi * hour.hour / 24
    # 1970-01-01 was a Thursday.
    week = 2 * np.pi * (((hour.dayofweek - 3) % 7) * 24 + hour.hour) / 168
    for angle in (day, 2 * day, week, 2 * week, 3 * week):
        expected += [np.sin(angle), np.cos(angle)]
    found = volatility.features(returns, first_ms=int(hour[0].timestamp() * 1000), hours=HOURS)
    np.testing.assert_allclose(found, np.column_stack(expected), rtol=1e-7, atol=1e-9)


def test_a_still_price_has_finite_features():
    found = volatility.features(np.zeros(100), first_ms=0, hours=HOURS)
    assert np.isfinite(found[84:]).all()


def test_a_daily_grid_has_no_waves_of_the_day():
    found = volatility.features(market(300), first_ms=0, step_ms=DAY_MS)
    # Variances over 1, 3, 7, 30 days; returns and semivariance over 1, 7; three waves of the week.
    assert found.shape == (300, 4 + 2 * 2 + 2 + 2 * 3)


def test_future_variances_are_sums_by_hand():
    returns = np.array([0.1, 0.2, np.nan, 0.3, -0.1])
    nan = np.nan
    expected = [[0.04, nan], [nan, nan], [0.09, 0.10], [0.01, nan], [nan, nan]]
    np.testing.assert_allclose(volatility.future_variances(returns, horizon=2), expected)


def test_each_step_has_the_forecast_of_its_own_fit():
    returns, every = market(1_500), 300
    found = volatility.step_variances(returns, first_ms=0, hours=HOURS, horizon=6, every=every)
    X = volatility.features(returns, first_ms=0, hours=HOURS)
    complete = np.flatnonzero(np.isfinite(X).all(axis=1))
    origin = complete[volatility.FIRST_ROWS - 1] + 6
    assert np.isnan(found[:origin]).all()
    assert np.isfinite(found[origin:]).all()
    # The second fit: its last target ends at its own origin.
    second = origin + every
    rows = complete[complete <= second - 6]
    for step in (1, 6):
        ahead = [returns[t + 1 : t + 1 + step] for t in rows]
        target = np.array([[(np.sum(part**2) + np.sum(part) ** 2) / 2] for part in ahead])
        fit = qlike_ridge(X[rows], target, penalty=volatility.penalty(6), tolerance=1e-9)
        served = fit.predict(X[second : second + every])[:, 0]
        inside = fit.predict(X[rows])
        expected = np.clip(served, inside.min() / 2, inside.max() * 2)
        np.testing.assert_allclose(found[second : second + every, step - 1], expected, rtol=0.02)


@pytest.mark.parametrize("change", ["cut off", "other"])
def test_no_value_changes_with_the_future(change):
    returns = with_holes(1_500)
    now = 1_233
    if change == "cut off":
        other = returns[: now + 1]
    else:
        other = np.r_[returns[: now + 1], 9 * returns[:now:-1]]
    for result in (
        lambda r: volatility.features(r, first_ms=0, hours=HOURS),
        lambda r: volatility.step_variances(r, first_ms=0, hours=HOURS, horizon=6, every=100),
    ):
        np.testing.assert_array_equal(result(returns)[: now + 1], result(other)[: now + 1])


def test_the_forecast_of_each_step_is_unbiased_and_ordered():
    # Log variances with a known law: the mean of the outcome equals the mean forecast.
    returns = market(8_000, seed=5)
    found = volatility.step_variances(returns, first_ms=0, hours=HOURS)
    actual = volatility.future_variances(returns, horizon=24)
    rows = np.isfinite(found[:, 0] + actual[:, -1])
    ratio = actual[rows].mean(axis=0) / found[rows].mean(axis=0)
    assert np.all((ratio > 0.85) & (ratio < 1.2))
    assert np.all(np.diff(found[rows].mean(axis=0)) > 0)
