"""Simulated GARCH paths hold on their own market, and depend on the past alone."""

from __future__ import annotations

import numpy as np
import pytest

from bitstorm.evaluation import garch_paths, intervals
from bitstorm.evaluation.volatility import forecast_variance

LEVELS = (0.5, 0.9)


def market(n: int) -> np.ndarray:
    """GARCH(1,1) with t(5) shocks."""
    random = np.random.default_rng(5)
    shocks = random.standard_t(5, n) * np.sqrt(3 / 5)
    returns, variance = np.empty(n), 2e-5
    for t, shock in enumerate(shocks):
        returns[t] = np.sqrt(variance) * shock
        variance = 1e-6 + 0.1 * returns[t] ** 2 + 0.85 * variance
    return returns


def simulated(returns: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, ...]:
    actual = intervals.outcomes(returns, (1, 2, 3))[places]
    return garch_paths.simulated(returns, actual, places, steps=3, levels=LEVELS, paths=200)


def test_intervals_hold_their_level_on_their_own_market():
    returns = market(4_000)
    places = np.arange(1_500, 3_990)
    crps, lower, upper = simulated(returns, places)
    actual = intervals.outcomes(returns, (1, 2, 3))[places][..., None]
    held = ((lower <= actual) & (actual <= upper)).mean(axis=(0, 1))
    assert held == pytest.approx(LEVELS, abs=0.025)
    # A normal variable's CRPS is 0.23 deviations at best, 0.56 on average; longer steps move more.
    assert 0.2 < crps[:, 0].mean() / returns.std() < 0.6
    assert (np.diff(crps.mean(axis=0)) > 0).all()


@pytest.mark.slow
def test_paths_have_the_variance_that_garch_forecasts():
    returns = market(3_000)
    places = np.arange(2_700, 2_850)
    parts = list(garch_paths._paths(returns, places, steps=24, paths=1_000, step_ms=3_600_000))
    assert [(rows.start, rows.stop) for rows, _ in parts] == [(0, 64), (64, 128), (128, 150)]
    paths = np.concatenate([found for _, found in parts])
    for step in (1, 24):
        expected = forecast_variance("garch_t", returns, first_ms=0, horizon=step)[places]
        ratio = paths[:, step - 1].var(axis=-1) / expected
        assert ratio.mean() == pytest.approx(1, abs=0.03)
        assert ratio.std() < 0.25


def test_no_interval_changes_with_the_future():
    returns = market(1_600)
    places = np.array([200, 700, 900, 1_100])
    _, lower, upper = simulated(returns, places)
    assert np.isnan(lower[0]).all() and np.isfinite(lower[1:]).all()
    changed = returns.copy()
    changed[1_101:] *= 5
    _, others, _ = simulated(changed, places)
    np.testing.assert_array_equal(lower, others)
    assert (upper[1:, :, 1] > upper[1:, :, 0]).all() and (lower[1:] < upper[1:]).all()
