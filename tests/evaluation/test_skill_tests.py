"""The tests of skill, against loops from their formulas, an independent library, and laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitstorm.evaluation import skill_tests

TESTS = {
    "accuracy": (skill_tests.e_accuracy, (0.05, 0.1, 0.2, 0.3, 0.45)),
    "information": (skill_tests.e_information, (0.1, 0.25, 0.5, 0.75, 1.0)),
}


def market(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Standardised outcomes with fat tails, and forecasts; some forecasts are 0."""
    random = np.random.default_rng(seed)
    z = np.clip(random.standard_t(3, n), -5, 5)
    g = np.clip(0.2 * random.standard_t(3, n) * (random.random(n) < 0.9), -5, 5)
    return z, g


def e_by_hand(test: str, z: np.ndarray, g: np.ndarray) -> list[float]:
    """The e-value after each outcome, by products."""
    wealth = dict.fromkeys(TESTS[test][1], 1.0)
    found = []
    for r, f in zip(z.tolist(), g.tolist(), strict=True):
        for bet in wealth:
            if test == "accuracy":
                most = 0.9 / (10 * abs(f) + f**2) if f else math.inf
                wealth[bet] *= 1 + min(bet, most) * (r**2 - (r - f) ** 2)
            else:
                most = 0.9 / (5 * abs(f)) if f else math.inf
                wealth[bet] *= 1 + min(bet, most) * r * f
        found.append(sum(wealth.values()) / len(wealth))
    return found


@pytest.mark.parametrize("test", TESTS)
def test_an_e_value_is_the_mean_of_the_bettors_wealth(test):
    z, g = market(1)
    log_e, evidence = TESTS[test][0](z, g)
    expected = e_by_hand(test, z, g)
    np.testing.assert_allclose(np.exp(log_e), expected, rtol=1e-10)
    assert evidence.log_e == pytest.approx(math.log(expected[-1]), abs=1e-10)
    assert evidence.largest == pytest.approx(math.log(max(1.0, *expected)), abs=1e-10)


@pytest.mark.parametrize("test", TESTS)
def test_an_e_value_does_not_grow_without_skill(test):
    # Signs are fair coins, so every bet of information is fair; a bet of accuracy loses g².
    random = np.random.default_rng(4)
    ends, highest = [], []
    for _ in range(2_000):
        z = np.clip(random.standard_t(4, 50), -5, 5)
        g = np.clip(0.3 * random.standard_t(4, 50), -5, 5)
        log_e, evidence = TESTS[test][0](z, g)
        ends.append(math.exp(log_e[-1]))
        highest.append(evidence.largest)
    error = np.std(ends) / math.sqrt(len(ends))
    assert np.mean(ends) <= 1 + 3 * error
    if test == "information":
        assert np.mean(ends) >= 1 - 3 * error
    assert np.mean(np.array(highest) >= math.log(20)) <= 0.05


@pytest.mark.parametrize("test", TESTS)
def test_no_outcome_ruins_a_bettor(test):
    worst = np.array([5.0, -5.0, 5.0, -5.0]), np.array([-5.0, 5.0, -0.1, 1e-300])
    log_e, _ = TESTS[test][0](*worst)
    assert np.isfinite(log_e).all()
    assert np.diff(log_e, prepend=0.0).min() >= math.log(0.1) - 1e-12


def test_volatility_is_known_before_the_outcome():
    returns = np.random.default_rng(2).standard_t(4, 80) * 0.01
    returns[[0, 30, 31, 50]] = np.nan
    for horizon in (1, 5):
        expected = []
        for t in range(80):
            known = [r for r in returns[: max(t - horizon + 1, 0)].tolist() if not math.isnan(r)]
            weights = [0.97**age for age in range(len(known))][::-1]
            squares = sum(w * r**2 for w, r in zip(weights, known, strict=True))
            enough = len(known) >= 24
            expected.append(math.sqrt(horizon * squares / sum(weights)) if enough else math.nan)
        found = skill_tests.known_volatility(returns, horizon=horizon)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.isnan(skill_tests.known_volatility(np.zeros(50))).all()


def test_volatility_forgets_what_is_long_past():
    returns = np.random.default_rng(7).standard_t(4, 3_000) * 0.01
    whole, short = (skill_tests.known_volatility(returns[start:])[-100:] for start in (0, 1_600))
    np.testing.assert_allclose(short, whole, rtol=1e-14)


def gains(seed: int, *, horizon: int, n: int = 300) -> np.ndarray:
    """A moving sum of `horizon` shocks: the overlap of h-step errors."""
    shocks = np.random.default_rng(seed).standard_t(5, n + horizon - 1) + 0.1
    return np.convolve(shocks, np.ones(horizon), mode="valid")


@pytest.mark.parametrize("horizon", [1, 2, 6, 24])
def test_diebold_mariano_by_pairs_of_overlapping_forecasts(horizon):
    values = gains(3, horizon=horizon)
    n, mean = len(values), sum(values.tolist()) / len(values)
    pairs = [(i, j) for i in range(n) for j in range(n) if abs(i - j) < horizon]
    variance = sum((values[i] - mean) * (values[j] - mean) for i, j in pairs) / n
    assert variance > 0
    corrected = math.sqrt((n + 1 - 2 * horizon + horizon * (horizon - 1) / n) / n)
    found = skill_tests.diebold_mariano(values, horizon=horizon)
    assert found.t == pytest.approx(corrected * mean / math.sqrt(variance / n), rel=1e-10)


@pytest.mark.slow
def test_diebold_mariano_as_statsmodels_has_it():
    from statsmodels.tsa.stattools import diebold_mariano_test

    random = np.random.default_rng(6)
    actual = random.standard_t(4, 500)
    forecast = 0.3 * actual + random.normal(0, 1, 500)
    expected = diebold_mariano_test(
        actual, np.zeros(500), forecast, lags=0, harvey_adj=True, horizon=1
    )
    saved = skill_tests.accuracy_gains(actual, forecast)
    found = skill_tests.diebold_mariano(saved, horizon=1)
    assert found.t == pytest.approx(expected.statistic, rel=1e-10)
    assert 2 * min(found.p, 1 - found.p) == pytest.approx(expected.pvalue, rel=1e-9)


def test_bartlett_weights_where_the_variance_is_not_positive():
    values = np.array([1.0, -1.0] * 20) + np.linspace(0, 0.1, 40)
    mean = values.mean()
    own = ((values - mean) ** 2).mean()
    next_to = ((values[1:] - mean) * (values[:-1] - mean)).sum() / 40
    assert own + 2 * next_to <= 0
    expected = math.sqrt((own + next_to) / 40)
    assert skill_tests.standard_error(values, horizon=2) == pytest.approx(expected)
    assert skill_tests.diebold_mariano(np.zeros(40), horizon=1).t == 0.0


@given(hnp.arrays(float, st.integers(1, 12), elements=st.floats(-1e3, 1e3)), st.integers(1, 20))
def test_a_standard_error_is_never_negative_nor_not_a_number(values, horizon):
    found = skill_tests.standard_error(values, horizon=horizon)
    assert 0 <= found < math.inf


def trading_by_hand(outcomes: list[float], forecasts: list[float], horizon: int) -> list[float]:
    """Gain and units traded by step, from the position of every step."""
    signs = [(f > 0) - (f < 0) for f in forecasts]
    n = len(signs)
    held = [sum(signs[max(t - horizon + 1, 0) : t + 1]) / horizon for t in range(n + horizon - 1)]
    for t in range(n, n + horizon - 1):
        held[t] = sum(signs[t - horizon + 1 :]) / horizon
    traded = sum(abs(b - a) for a, b in zip([0.0, *held], [*held, 0.0], strict=True))
    gain = sum(s * math.expm1(r) / horizon for s, r in zip(signs, outcomes, strict=True))
    return [gain / n, traded / n, 1e4 * gain / traded]


@pytest.mark.parametrize("horizon", [1, 3])
def test_the_break_even_cost_from_every_position(horizon):
    random = np.random.default_rng(8)
    outcomes, forecasts = random.normal(0.001, 0.01, 60), random.normal(0, 1, 60)
    forecasts[[5, 6]] = 0.0
    found = skill_tests.trade_on_signs(outcomes, forecasts, horizon=horizon)
    assert found is not None
    expected = trading_by_hand(outcomes.tolist(), forecasts.tolist(), horizon)
    assert [found.gain, found.turnover, found.break_even] == pytest.approx(expected, rel=1e-9)
    single = np.sign(forecasts) * np.expm1(outcomes) / horizon
    noise = 1.645e4 * skill_tests.standard_error(single, horizon=horizon) / found.turnover
    assert [found.lower, found.upper] == pytest.approx(
        [found.break_even - noise, found.break_even + noise]
    )


def test_one_trade_in_and_one_out():
    # Bought once for 1 % in each of four steps, and sold: 4 % for two units traded.
    outcomes = np.log(np.full(4, 1.01))
    found = skill_tests.trade_on_signs(outcomes, np.ones(4), horizon=1)
    assert found is not None
    assert (found.turnover, found.break_even) == pytest.approx((0.5, 200.0))
    assert skill_tests.trade_on_signs(outcomes, np.zeros(4), horizon=1) is None


def test_r_squared_against_the_forecast_zero():
    outcomes = np.array([1.0, -2.0, 3.0])
    assert skill_tests.r_squared(outcomes, outcomes / 2) == pytest.approx(0.75)
    assert skill_tests.r_squared(outcomes, -outcomes) == pytest.approx(-3.0)
    assert skill_tests.r_squared(np.zeros(3), outcomes) == 0.0


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1e-6, 0.01, 3.0, 1e5]))
def test_a_unit_changes_nothing(seed, unit):
    random = np.random.default_rng(seed)
    returns, forecasts = random.standard_t(4, 100), random.normal(0, 0.1, 100)

    def both(scale: float) -> np.ndarray:
        volatility = skill_tests.known_volatility(scale * returns)[24:]
        values = (scale * values[24:] for values in (returns, forecasts))
        return np.stack([skill_tests.standardised(one, volatility) for one in values])

    np.testing.assert_allclose(both(unit), both(1.0), rtol=1e-9)
