"""Fits against known parameters, autocorrelations against statsmodels and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.evaluation.distributions import autocorrelation, fits, spread


def test_the_parameters_of_a_t_distribution_are_found_again():
    values = 0.001 + 0.004 * np.random.default_rng(1).standard_t(4, 40_000)
    found = fits(values)
    freedom, place, scale = found["Student-t"].args
    assert (freedom, place, scale) == pytest.approx((4, 0.001, 0.004), rel=0.08)
    assert found["normal"].args == pytest.approx((values.mean(), values.std(ddof=1)))
    probabilities = np.array([0.001, 0.01, 0.5, 0.99, 0.999])
    np.testing.assert_allclose(
        found["Student-t"].ppf(probabilities), np.quantile(values, probabilities), atol=0.002
    )


def test_normal_values_have_a_t_distribution_like_the_normal():
    found = fits(np.random.default_rng(2).normal(0, 0.01, 5_000))
    x = np.linspace(-0.03, 0.03, 21)
    np.testing.assert_allclose(found["Student-t"].pdf(x), found["normal"].pdf(x), rtol=0.15)


@pytest.mark.parametrize("values", [[], [0.01], [0.0] * 100, [0.0, 1.0] * 20])
def test_too_few_different_values_have_no_fit(values):
    assert fits(np.array(values)) == {}


@given(n=st.integers(1, 10_000), most=st.integers(1, 300))
def test_the_spread_indexes_reach_from_end_to_end(n, most):
    places = spread(n, most)
    assert len(places) == min(n, most)
    assert places[0] == 0 and (most == 1 or places[-1] == n - 1)
    gaps = np.diff(places)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_without_holes_it_is_the_usual_autocorrelation():
    from statsmodels.tsa.stattools import acf

    values = np.random.default_rng(3).normal(size=400).cumsum()
    found, _ = autocorrelation(values, range(1, 31))
    n = len(values)
    # The usual one divides by n, not by the number of pairs.
    np.testing.assert_allclose(
        found * (n - np.arange(1, 31)) / n, acf(values, nlags=30)[1:], rtol=1e-9
    )


def test_only_pairs_with_both_values_count():
    values = np.array([1.0, 2.0, np.nan, 4.0, 3.0, 1.0])
    z = values - 2.2
    variance = np.nanmean(z**2)
    found, band = autocorrelation(values, [1, 2, 5, 6])
    products = [z[0] * z[1], z[3] * z[4], z[4] * z[5]]
    assert found[0] == pytest.approx(np.mean(products) / variance)
    assert band[0] == pytest.approx(1.96 * np.sqrt(np.sum(np.square(products))) / (3 * variance))
    assert found[1] == pytest.approx(np.mean([z[1] * z[3], z[3] * z[5]]) / variance)
    assert np.isnan(found[2:]).all() and np.isnan(band[2:]).all()


def test_the_band_holds_without_dependence_in_clusters_too():
    random = np.random.default_rng(4)
    outside = []
    for _ in range(60):
        size = np.exp(random.normal(0, 0.3, 60).cumsum().repeat(50) / 2)
        found, band = autocorrelation(size * random.normal(size=3_000), range(1, 11))
        outside.append(np.abs(found) > band)
    assert np.mean(outside) == pytest.approx(0.05, abs=0.025)


def test_constant_and_empty_values_have_no_autocorrelation():
    for values in (np.ones(50), np.empty(0), np.full(9, np.nan)):
        assert np.isnan(autocorrelation(values, [1, 2])).all()
