"""The network as a forecast of the variance: its parts in time, and that it knows no future."""

from __future__ import annotations

import numpy as np
import pytest

from bitstorm.evaluation import volatility
from bitstorm.evaluation import volatility_features as history
from bitstorm.model import volatility_network
from bitstorm.model.volatility_network import Options, split


def market(n: int) -> np.ndarray:
    """Returns whose log variance follows AR(1); the first is unknown."""
    random = np.random.default_rng(3)
    level = np.zeros(n)
    for t in range(1, n):
        level[t] = 0.98 * level[t - 1] + 0.2 * random.normal()
    returns = 0.005 * np.exp(level / 2) * random.standard_t(6, n)
    returns[0] = np.nan
    return returns


def test_a_gap_lies_between_the_parts():
    rows = np.concatenate([np.arange(100, 200), np.arange(230, 330)])
    training, validation = split(rows, gap=15, share=0.25)
    np.testing.assert_array_equal(validation, np.arange(280, 330))
    np.testing.assert_array_equal(training, [*range(100, 200), *range(230, 265)])


@pytest.mark.parametrize("rows", [0, 1, 20])
def test_a_past_that_is_too_short_is_refused(rows):
    with pytest.raises(ValueError, match=f"{rows} windows have a known target; expected enough"):
        split(np.arange(rows), gap=30, share=0.2)


@pytest.mark.slow
def test_a_forecast_knows_the_past_and_no_future():
    n, start, now = 3_200, 2_400, 2_900
    returns = market(n)
    options = Options(look_back=6, units=4, epochs=3, batch_size=128, every=400)
    found = volatility_network.forecast_variance(returns, first_ms=0, start=start, options=options)
    assert np.isnan(found[:start]).all()
    assert np.isfinite(found[start:]).all()
    # Both trainings lie before `now`.
    other = np.r_[returns[: now + 1], 5 * returns[: n - now - 1]]
    again = volatility_network.forecast_variance(other, first_ms=0, start=start, options=options)
    np.testing.assert_array_equal(found[: now + 1], again[: now + 1])
    assert not np.array_equal(found[now + 1 :], again[now + 1 :])
    # It has learnt: better than the mean of the past, which knows of no clusters.
    actual = history.future_variance(returns, horizon=24)
    rows = np.arange(start, n - 24)
    constant = np.full(len(rows), actual[: start - 24][np.isfinite(actual[: start - 24])].mean())
    ours = volatility.qlike(forecast=found[rows], actual=actual[rows]).mean()
    assert ours < 0.8 * volatility.qlike(forecast=constant, actual=actual[rows]).mean()
