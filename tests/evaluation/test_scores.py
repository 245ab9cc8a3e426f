"""Scores equal those of scoringrules and scikit-learn, coverage that of a count by hand."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import scoringrules
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_pinball_loss

from bitstorm.evaluation import intervals, scores

SHARES = (np.arange(100) + 0.5) / 100
seeds = st.integers(0, 2**32 - 1)


def forecasts(seed: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Outcomes (20, 3), and ascending values (20, 3, columns)."""
    random = np.random.default_rng(seed)
    values = np.sort(random.standard_t(4, (20, 3, columns)), axis=-1)
    return 2 * random.normal(size=(20, 3)), values


@given(seeds)
def test_pinball_loss_is_that_of_scikit_learn(seed):
    actual, quantiles = forecasts(seed, 5)
    shares = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    found = scores.pinball(actual, quantiles, shares)
    for column, share in enumerate(shares):
        expected = mean_pinball_loss(actual, quantiles[..., column], alpha=share)
        assert found[..., column].mean() == pytest.approx(expected, rel=1e-9)
        own = scoringrules.quantile_score(actual, quantiles[..., column], share)
        np.testing.assert_allclose(found[..., column], own, rtol=1e-9, atol=1e-12)


@given(seeds, st.floats(0.01, 0.99))
def test_winkler_score_is_that_of_scoringrules(seed, level):
    actual, bounds = forecasts(seed, 2)
    lower, upper = bounds[..., 0], bounds[..., 1]
    found = scores.winkler(actual, lower, upper, level)
    expected = scoringrules.interval_score(actual, lower, upper, 1 - level)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@given(seeds)
def test_crps_is_that_of_scoringrules(seed):
    actual, values = forecasts(seed, 100)
    found = scores.crps_of_quantiles(actual, values, SHARES)
    expected = scoringrules.crps_quantile(actual, values, SHARES)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    shuffled = np.random.default_rng(seed).permuted(values, axis=-1)
    found = scores.crps_of_samples(actual, shuffled)
    expected = scoringrules.crps_ensemble(actual, values, estimator="fair")
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_crps_by_hand():
    # Samples 0 and 2, outcome 3: the mean distance is 2, and so is that of the samples.
    assert scores.crps_of_samples(np.array(3.0), np.array([2.0, 0.0])) == pytest.approx(1.0)


def test_the_crps_does_not_depend_on_the_number_of_samples():
    chance = np.random.default_rng(2)
    actual = chance.standard_normal(40_000)
    true = 1 / np.sqrt(np.pi)  # of the standard normal distribution, on average
    for samples in (2, 5):
        drawn = chance.standard_normal((40_000, samples))
        assert scores.crps_of_samples(actual, drawn).mean() == pytest.approx(true, rel=0.02)
    # 0 below and 1 above the outcome, at 1/4 and 3/4: losses 3/40 and 7/40.
    found = scores.crps_of_quantiles(np.array(0.3), np.array([0.0, 1.0]), np.array([0.25, 0.75]))
    assert found == pytest.approx(2 * (0.3 * 0.25 + 0.7 * 0.25) / 2)


def test_a_hundred_quantiles_are_near_the_whole_distribution():
    quantiles = np.array([NormalDist().inv_cdf(share) for share in SHARES])
    actual = np.linspace(-2, 2, 9)
    found = scores.crps_of_quantiles(actual, np.tile(quantiles, (9, 1)), SHARES)
    np.testing.assert_allclose(found, scoringrules.crps_normal(actual, 0, 1), rtol=2e-3)


@given(seeds)
def test_pit_is_linear_between_the_quantiles(seed):
    actual, quantiles = forecasts(seed, 10)
    shares = (np.arange(10) + 0.5) / 10
    found = scores.pit(actual, quantiles, shares)
    expected = [
        [np.interp(y, q, shares, left=0.025, right=0.975) for y, q in zip(*row, strict=True)]
        for row in zip(actual, quantiles, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_pit_of_a_true_forecast_is_uniform():
    quantiles = np.array([NormalDist().inv_cdf(share) for share in SHARES])
    actual = np.random.default_rng(2).normal(size=20_000)
    found = scores.pit(actual, np.broadcast_to(quantiles, (20_000, 100)), SHARES)
    counts, _ = np.histogram(found, bins=20, range=(0, 1))
    # Four standard deviations of a binomial count.
    assert np.abs(counts - 1_000).max() < 4 * math.sqrt(1_000 * 0.95)


def test_a_missing_outcome_has_no_score():
    actual, quantiles = np.array([np.nan, 1.0, 1.0]), np.array([[0.0, 2.0], [0, np.nan], [0, 2.0]])
    shares = np.array([0.25, 0.75])
    for found in (
        scores.pit(actual, quantiles, shares),
        scores.crps_of_quantiles(actual, quantiles, shares),
        scores.winkler(actual, quantiles[:, 0], quantiles[:, 1], 0.5),
        scores.held(actual, quantiles[:, 0], quantiles[:, 1]),
    ):
        assert np.isnan(found).tolist() == [True, True, False]


def test_bounds_belong_to_the_interval():
    found = scores.held(np.array([1.0, 2.0, 3.0, 3.1]), np.full(4, 1.0), np.full(4, 3.0))
    assert found.tolist() == [1, 1, 1, 0]


def test_coverage_is_that_of_a_count_by_hand():
    random = np.random.default_rng(3)
    inside = (random.random((60, 4, 2)) < 0.7).astype(float)
    inside[random.random(inside.shape) < 0.2] = np.nan
    tercile = random.integers(-1, 2, 60)
    table = scores.coverage(inside, tercile)

    def share(rows: list[int], steps: list[int], level: int) -> float:
        known = [x for t in rows for h in steps if not math.isnan(x := inside[t, h, level])]
        return sum(known) / len(known) if known else math.nan

    every, steps = list(range(60)), list(range(4))
    of = [[t for t in every if tercile[t] == group] for group in range(3)]
    for k in (0, 1):
        assert table.overall[k] == pytest.approx(share(every, steps, k))
        for h in steps:
            assert table.steps[h, k] == pytest.approx(share(every, [h], k))
        for group, rows in enumerate(of):
            assert table.terciles[group, k] == pytest.approx(share(rows, steps, k), nan_ok=True)
            for h in steps:
                expected = pytest.approx(share(rows, [h], k), nan_ok=True)
                assert table.cells[group, h, k] == expected
    # No hour is in the third tercile, so it is not the worst.
    misses = table.misses([0.7, 0.8])
    for k, level in enumerate((0.7, 0.8)):
        worst = max(abs(table.cells[g, h, k] - level) for g in (0, 1) for h in steps)
        assert misses["cells"][k] == pytest.approx(worst)
        assert misses["overall"][k] == pytest.approx(abs(table.overall[k] - level))


def test_an_oracle_misses_by_the_noise_of_counting():
    n, level = 2_000, 0.9
    tercile = np.arange(n) % 4 - 1
    found = scores.oracle_misses(tercile, steps=[1], levels=[level], draws=400)
    # The share of n independent hits is nearly normal: so is the quarter of them in a tercile.
    deviation = math.sqrt(level * (1 - level) / n)
    normal = NormalDist()
    expected = [deviation * normal.inv_cdf(p) for p in (0.75, 0.975)]
    np.testing.assert_allclose(found["overall"][:, 0], expected, rtol=0.12)
    np.testing.assert_array_equal(found["overall"], found["steps"])
    worst = [2 * deviation * normal.inv_cdf((1 + p ** (1 / 3)) / 2) for p in (0.5, 0.95)]
    np.testing.assert_allclose(found["terciles"][:, 0], worst, rtol=0.12)


def test_overlapping_outcomes_make_the_noise_greater():
    tercile = np.zeros(2_000, np.int8)
    one, day = (
        scores.oracle_misses(tercile, steps=[step], levels=intervals.LEVELS, draws=100)
        for step in (1, 24)
    )
    assert (day["overall"] > 2 * one["overall"]).all()
    again = scores.oracle_misses(tercile, steps=[24], levels=intervals.LEVELS, draws=100)
    np.testing.assert_array_equal(again["overall"], day["overall"])
