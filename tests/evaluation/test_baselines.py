"""The price baselines, each against pandas, statsmodels or scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from statsmodels.tsa.ar_model import AutoReg, ar_select_order

from bitstorm.evaluation.baselines import BASELINES, PENALTY, baselines, examples, variance_ahead

STEPS = 24
FIT_UNTIL = 999
ORIGINS = np.array([999, 1000, 1177, 1599])


def market(*, holes: bool = False, seed: int = 5) -> np.ndarray:
    """1,600 returns of 0.6 %, with fat tails; the third one before has a part in each."""
    random = np.random.default_rng(seed)
    shocks = 0.006 * random.standard_t(4, 1_600)
    returns = shocks.copy()
    for t in range(3, len(returns)):
        returns[t] += 0.3 * returns[t - 3]
    returns[0] = np.nan
    if holes:
        returns[[200, 201, 202, 640, 1_100, 1_150]] = np.nan
    return returns


def forecast(name: str, returns: np.ndarray, *, steps: int = STEPS, **options: int) -> np.ndarray:
    one = baselines(**options)[name]
    return one(returns, fit_until=FIT_UNTIL, origins=ORIGINS, steps=steps)


def prices(returns: np.ndarray) -> pd.Series:
    """Prices from 7,000 USD; each cut begins at another price."""
    logs = pd.Series(returns).fillna(0.7).cumsum()
    return 7_000 * np.exp(logs)


def pieces(returns: np.ndarray) -> np.ndarray:
    """The number of the piece between two cuts that each price belongs to."""
    return np.cumsum(np.isnan(returns))


def test_the_names_say_the_season():
    assert [*BASELINES] == [
        "persistence",
        "drift",
        "seasonal_naive_24",
        "seasonal_naive_168",
        "moving_average",
        "ema",
        "ar",
        "ridge",
    ]
    assert {"seasonal_naive_1", "seasonal_naive_7"} < {*baselines(day=1, week=7)}


def test_persistence_and_drift():
    returns = market(holes=True)
    assert np.array_equal(forecast("persistence", returns), np.zeros((4, STEPS)))
    mean = pd.Series(returns[: FIT_UNTIL + 1]).mean()
    expected = [[mean * step for step in range(1, STEPS + 1)]] * 4
    assert forecast("drift", returns) == pytest.approx(np.array(expected), rel=1e-12)


@pytest.mark.parametrize("season", [1, 7, 24, 168])
def test_seasonal_naive_repeats_the_last_season(season):
    returns = market(holes=True)
    found = forecast(f"seasonal_naive_{season}", returns, day=season, week=168)
    for row, t in enumerate(ORIGINS):
        total, expected = 0.0, []
        for step in range(STEPS):
            total += np.nan_to_num(returns[t + 1 - season + step % season])
            expected.append(total)
        assert found[row] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("name", ["moving_average", "ema"])
def test_means_of_prices_are_those_of_pandas(name, holes):
    returns = market(holes=holes)
    price = prices(returns)
    groups = price.groupby(pieces(returns))
    if name == "moving_average":
        level = groups.transform(lambda piece: piece.rolling(24, min_periods=1).mean())
    else:
        level = groups.transform(lambda piece: piece.ewm(span=24).mean())
    expected = np.log(level / price).to_numpy()[ORIGINS]
    found = forecast(name, returns)
    assert found == pytest.approx(np.tile(expected[:, None], STEPS), rel=1e-9, abs=1e-14)


def test_autoregression_is_that_of_statsmodels():
    returns = np.nan_to_num(market())
    known = returns[: FIT_UNTIL + 1]
    chosen = ar_select_order(known, maxlag=48, ic="bic").ar_lags
    assert chosen == [1, 2, 3]
    fitted = AutoReg(known, lags=3).fit()
    expected = [
        np.cumsum(AutoReg(returns[: t + 1], lags=3).predict(fitted.params, t + 1, t + STEPS))
        for t in ORIGINS
    ]
    assert forecast("ar", returns) == pytest.approx(np.array(expected), rel=1e-9)


def test_autoregression_with_holes_is_least_squares():
    returns = market(holes=True)
    known = pd.Series(returns[: FIT_UNTIL + 1])
    lags = pd.DataFrame({lag: known.fillna(0.0).shift(lag) for lag in (1, 2, 3)})
    fitted = sm.OLS(known, sm.add_constant(lags), missing="drop").fit().params
    filled = pd.Series(returns).fillna(0.0)
    expected = [
        fitted["const"] + sum(fitted[lag] * filled[t + 1 - lag] for lag in (1, 2, 3))
        for t in ORIGINS
    ]
    assert forecast("ar", returns, steps=1)[:, 0] == pytest.approx(expected, rel=1e-9)


def test_autoregression_of_noise_is_the_drift():
    noise = np.random.default_rng(3).normal(0.0, 0.01, 1_600)
    assert forecast("ar", noise) == pytest.approx(forecast("drift", noise))


@pytest.mark.parametrize("holes", [False, True])
def test_ridge_is_that_of_scikit_learn(holes):
    returns = market(holes=holes)
    series = pd.Series(returns)
    lags = pd.DataFrame({lag: series.shift(lag) for lag in range(48)}).fillna(0.0)
    target = pd.DataFrame(
        {step: series.rolling(step).sum().shift(-step) for step in range(1, STEPS + 1)}
    )
    whole = [t for t in range(48, FIT_UNTIL + 1 - STEPS) if target.loc[t].notna().all()]
    fitted = Ridge(alpha=PENALTY, fit_intercept=False).fit(
        lags.loc[whole], target.loc[whole], sample_weight=1 / squares_ahead(returns)[whole]
    )
    found = forecast("ridge", returns)
    assert found == pytest.approx(fitted.predict(lags.loc[ORIGINS]), rel=1e-8, abs=1e-12)


def squares_ahead(returns: np.ndarray) -> np.ndarray:
    """Weights of 0.97^age, over the known returns, that sum to 1."""
    total, weights, found = 0.0, 0.0, []
    for value in returns:
        if not np.isnan(value):
            total, weights = 0.97 * total + 0.03 * value**2, 0.97 * weights + 0.03
        found.append(total / weights if weights else np.nan)
    return np.array(found)


def test_the_variance_ahead_is_a_recursion():
    returns = market(holes=True)
    assert variance_ahead(returns) == pytest.approx(squares_ahead(returns), rel=1e-12, nan_ok=True)


def test_a_price_that_stands_still_gets_a_limited_weight():
    returns = market()
    returns[300:900] = 0.0
    weight = examples(returns, STEPS)[2]
    assert weight.max() == pytest.approx(100 / np.nanmean(returns**2), rel=1e-9)


@pytest.mark.parametrize("name", BASELINES)
@given(seed=st.integers(0, 99), at=st.integers(999, 1_598), value=st.floats(-0.5, 0.5))
@settings(max_examples=5)
def test_later_returns_change_no_forecast(name, seed, at, value):
    returns = market(holes=True, seed=seed)
    changed = returns.copy()
    changed[at + 1 :] = value
    before, after = (forecast(name, series) for series in (returns, changed))
    known = at >= ORIGINS
    assert np.array_equal(before[known], after[known])


@pytest.mark.parametrize("name", BASELINES)
def test_returns_after_the_fit_part_change_no_fit(name):
    # What is changed is too old for the last origin's own window, and not in the fit part.
    returns = market()
    changed = returns.copy()
    changed[1_000:1_100] *= -3.0
    before, after = (forecast(name, series)[-1] for series in (returns, changed))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("name", ["drift", "seasonal_naive_24", "ar", "ridge"])
@given(seed=st.integers(0, 99), power=st.integers(-6, 6))
@settings(max_examples=5)
def test_forecasts_have_the_unit_of_the_returns(name, seed, power):
    returns = market(holes=True, seed=seed)
    assert forecast(name, returns * 2.0**power) == pytest.approx(
        forecast(name, returns) * 2.0**power, rel=1e-7, abs=1e-12 * 2.0**power
    )


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    "returns",
    [np.full(1_600, np.nan), np.zeros(1_600), np.r_[np.full(1_580, np.nan), np.full(20, 0.01)]],
    ids=["nothing known", "a still price", "20 returns"],
)
def test_every_forecast_is_a_number(name, returns):
    found = forecast(name, returns)
    assert found.shape == (4, STEPS)
    assert found.dtype == np.float64
    assert np.isfinite(found).all()
