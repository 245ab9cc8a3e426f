"""What is said of a forecast's worth, against hand calculation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bitstorm.evaluation import comparison

prices = st.floats(1e-3, 1e6)


def test_errors_are_those_of_a_hand_calculation():
    # Forecasts of 110, 90 and 100 from 100; the price went to 100, 100 and 120.
    found = comparison.errors(
        forecast=np.array([110.0, 90.0, 100.0]),
        actual=np.array([100.0, 100.0, 120.0]),
        origin=np.array([100.0, 100.0, 100.0]),
    )
    assert found.rmse_usd == pytest.approx(math.sqrt((100 + 100 + 400) / 3))
    assert found.mae_usd == pytest.approx((10 + 10 + 20) / 3)
    logs = [math.log(1.1), math.log(0.9), math.log(1.2)]
    assert found.rmse_log_return == pytest.approx(math.sqrt(sum(x * x for x in logs) / 3))
    assert found.mae_log_return == pytest.approx(sum(abs(x) for x in logs) / 3)


def test_half_the_error_is_a_skill_of_three_quarters():
    actual = np.exp(np.array([0.02, -0.02, 0.04, -0.04]))
    half = np.exp(np.array([0.01, -0.01, 0.02, -0.02]))
    found = comparison.compare(forecast=half, actual=actual, origin=np.ones(4))
    assert found["model"]["skill"] == pytest.approx(0.75)


def test_persistence_has_skill_zero_and_is_not_called_better():
    random = np.random.default_rng(1)
    origin = 100 * np.exp(np.cumsum(random.normal(0, 0.01, 200)))
    actual = origin * np.exp(random.normal(0, 0.01, 200))
    found = comparison.compare(forecast=origin, actual=actual, origin=origin)
    assert found["model"]["skill"] == 0.0
    assert found["model"]["skill_usd"] == 0.0


def test_on_a_constant_price_only_persistence_has_skill_zero():
    still = np.full(50, 7.0)
    same = comparison.compare(forecast=still, actual=still, origin=still)
    wrong = comparison.compare(forecast=still * 1.1, actual=still, origin=still)
    assert same["model"]["skill"] == 0.0
    assert wrong["model"]["skill"] == -math.inf


@given(
    hnp.arrays(float, 5, elements=prices),
    hnp.arrays(float, 5, elements=prices),
    hnp.arrays(float, 5, elements=prices),
)
def test_no_forecast_has_a_skill_above_one(forecast, actual, origin):
    found = comparison.compare(forecast=forecast, actual=actual, origin=origin)
    assert found["model"]["skill"] <= 1
    assert found["model"]["skill_usd"] <= 1
    assert found["model"]["rmse_usd"] >= found["model"]["mae_usd"] * (1 - 1e-12)


def test_half_widths_are_quantiles_of_past_errors():
    # 0 to 10: half of them are at most 5, nine tenths at most 9.
    signs = np.where(np.arange(11) % 2, 1, -1)
    found = comparison.half_widths(signs * np.arange(11.0) / 100, (0.5, 0.9))
    assert found == pytest.approx([0.05, 0.09])


def test_coverage_counts_outcomes_on_the_bounds_as_inside():
    actual = np.array([1.0, 2.0, 3.0, 4.0])
    assert comparison.coverage(actual=actual, lower=actual, upper=actual) == 1.0
    assert comparison.coverage(
        actual=actual, lower=np.full(4, 2.0), upper=np.full(4, 3.5)
    ) == pytest.approx(0.5)


@given(hnp.arrays(float, st.integers(50, 200), elements=st.floats(-0.1, 0.1), unique=True))
def test_half_widths_hold_their_level_of_their_own_errors(residuals):
    (width,) = comparison.half_widths(residuals, (0.8,))
    held = np.mean(np.abs(residuals) <= width)
    assert held == pytest.approx(0.8, abs=3 / len(residuals))
