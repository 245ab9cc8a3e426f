"""The simulated paths beside the intervals are those of a GARCH."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import intervals
from bitstorm.evaluation.intervals import outcomes
from bitstorm.evaluation.volatility import forecast_variance


@pytest.mark.slow
def test_paths_have_the_variance_that_garch_forecasts():
    random = np.random.default_rng(1)
    n, tested = 3_000, slice(2_700, 2_850)
    returns, variance = np.full(n, np.nan), 1e-4
    for t in range(1, n):
        returns[t] = np.sqrt(variance * 4 / 6) * random.standard_t(6)
        variance = 4e-6 + 0.1 * returns[t] ** 2 + 0.86 * variance
    parts = list(intervals._paths(returns, tested))
    assert [(rows.start, rows.stop) for rows, _ in parts] == [(0, 64), (64, 128), (128, 150)]
    paths = np.concatenate([found for _, found in parts])
    for step in (1, 24):
        expected = forecast_variance("garch_t", returns, first_ms=0, horizon=step)[tested]
        ratio = paths[:, step - 1].var(axis=-1) / expected
        assert ratio.mean() == pytest.approx(1, abs=0.03)
        assert ratio.std() < 0.25
    few = slice(2_700, 2_720)
    actual = outcomes(returns, intervals.STEPS)[few]
    crps, lower, upper = intervals._garch(returns, actual, few)
    assert crps.shape == (20, 24) and (crps > 0).all()
    # The bounds move outwards with the level.
    assert (np.diff(lower, axis=-1) < 0).all() and (np.diff(upper, axis=-1) > 0).all()
