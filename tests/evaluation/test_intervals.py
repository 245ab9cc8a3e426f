"""The half-widths are those of plain loops, never change with the future, and keep their level."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitstorm.evaluation import intervals, scores
from bitstorm.evaluation.intervals import Rules, calibrate, terciles

STEPS, LEVELS = (1, 3, 6), (0.5, 0.9)
SHORT = Rules(scores=60, least=10, week=14, months=70, rate=0.05)


def inputs(n: int, *, seed: int = 1) -> dict[str, np.ndarray]:
    """Returns of changing volatility with holes, forecasts that are not zero, and variances."""
    random = np.random.default_rng(seed)
    volatility = 0.01 * np.exp(0.5 * np.cumsum(random.normal(0, 0.2, n)))
    returns = volatility * random.standard_t(4, n)
    returns[[0, n // 2, n // 2 + 1]] = np.nan
    variance = np.outer(volatility**2, STEPS) * random.uniform(0.5, 2, (n, len(STEPS)))
    variance[n // 3] = np.nan
    return {
        "returns": returns,
        "centre": 0.1 * volatility[:, None] * random.normal(size=(n, len(STEPS))),
        "variance": variance,
    }


def calibrated(values: dict[str, np.ndarray], rows: slice = slice(None)) -> np.ndarray:
    part = [array[rows] for array in values.values()]
    return calibrate(*part, steps=STEPS, levels=LEVELS, rules=SHORT)


def terciles_by_loops(returns: list[float], rules: Rules) -> list[int]:
    variances: list[float] = []
    for t in range(len(returns)):
        week = [r for r in returns[max(0, t - rules.week + 1) : t + 1] if not math.isnan(r)]
        enough = len(week) >= rules.week / 7
        variances.append(sum(r * r for r in week) / len(week) if enough else math.nan)
    found = []
    for t, variance in enumerate(variances):
        months = variances[max(0, t - rules.months + 1) : t + 1]
        months = [v for v in months if not math.isnan(v)]
        rank = sum(v < variance for v in months)
        found.append(-1 if math.isnan(variance) else 3 * rank // len(months))
    return found


def quantile_by_hand(values: list[float], level: float) -> float:
    """The k-th smallest of m values is the quantile k / (m + 1); between them linear."""
    values = sorted(values)
    place = min(max(level * (len(values) + 1), 1), len(values))
    below = math.floor(place)
    above = min(below + 1, len(values))
    return values[below - 1] + (place - below) * (values[above - 1] - values[below - 1])


def half_widths_by_loops(
    returns: list[float], centre: list[list[float]], variance: list[list[float]], *, rules: Rules
) -> list[list[list[float]]]:
    n, tercile = len(returns), terciles_by_loops(returns, rules)
    factor: dict[tuple[int, int, int], float] = {}
    quantile: dict[tuple[int, int], float] = {}
    multiple: list[dict[tuple[int, int], float]] = []
    renewed, found = 0, []

    def score(origin: int, h: int) -> float:
        if origin < 0:
            return math.nan
        move = sum(returns[origin + 1 : origin + 1 + STEPS[h]])
        return abs(move - centre[origin][h]) / math.sqrt(variance[origin][h])

    for t in range(n):
        for h, step in enumerate(STEPS):
            known = score(t - step, h)
            for k, level in enumerate(LEVELS):
                before = multiple[t - step][h, k] if t >= step else math.nan
                if not math.isnan(known + before):
                    key = tercile[t - step], h, k
                    change = rules.rate / math.sqrt(step) * ((known > before) - (1 - level))
                    factor[key] = factor.get(key, 0.0) + change
        window = min(t + 1, rules.scores)
        if t + 1 - renewed >= window / 25:
            renewed = t + 1
            for h, step in enumerate(STEPS):
                past = [score(s - step, h) for s in range(t + 1 - window, t + 1)]
                past = [value for value in past if not math.isnan(value)]
                for k, level in enumerate(LEVELS):
                    enough = len(past) >= rules.least
                    quantile[h, k] = quantile_by_hand(past, level) if enough else math.nan
        c = {(h, k): factor.get((tercile[t], h, k), 0.0) for h, k in quantile}
        multiple.append({key: q * math.exp(c[key]) for key, q in quantile.items()})
        found.append(
            [
                [m * math.sqrt(variance[t][h]) for m in sorted(multiple[t][h, k] for k in (0, 1))]
                for h in range(len(STEPS))
            ]
        )
    return found


def test_half_widths_are_those_of_plain_loops():
    values = inputs(300)
    found = calibrated(values)
    lists = [array.tolist() for array in values.values()]
    tercile = terciles(values["returns"], rules=SHORT).tolist()
    assert tercile == terciles_by_loops(lists[0], SHORT)
    assert {*tercile} == {-1, 0, 1, 2}
    expected = half_widths_by_loops(*lists, rules=SHORT)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert np.isfinite(found[101:]).all()


@pytest.mark.parametrize("change", ["cut off", "other"])
def test_no_value_changes_with_the_future(change):
    values, now = inputs(300), 230
    other, whole = values, calibrated(values)
    if change == "cut off":
        other = {name: a[: now + 1] for name, a in values.items()}
    else:
        other = {name: np.r_[a[: now + 1], 7 * a[:now:-1]] for name, a in values.items()}
        assert not np.array_equal(calibrated(other), whole, equal_nan=True)
    seen = slice(now + 1)
    np.testing.assert_array_equal(calibrated(other)[seen], whole[seen])
    regimes, known = (terciles(one["returns"], rules=SHORT) for one in (other, values))
    np.testing.assert_array_equal(regimes[seen], known[seen])


def test_widths_have_the_unit_of_the_returns_and_no_side():
    values = inputs(300)
    whole = calibrated(values)
    scale = {"returns": -4.0, "centre": -4.0, "variance": 16.0}
    found = calibrated({name: scale[name] * array for name, array in values.items()})
    np.testing.assert_array_equal(found, 4 * whole)


def test_an_interval_holds_those_of_lower_levels():
    values = inputs(400, seed=3)
    levels = intervals.DENSE_LEVELS
    found = calibrate(*values.values(), steps=STEPS, levels=levels, rules=SHORT)
    known = np.isfinite(found).all(axis=(1, 2))
    assert known.sum() > 250
    assert (np.diff(found[known], axis=2) >= 0).all()


def test_too_few_outcomes_give_no_interval():
    values = inputs(300)
    known = np.isfinite(calibrated(values)).all(axis=2)
    # The first return is missing: step h has 10 outcomes at index 9 + h, at the earliest.
    for column, step in enumerate(STEPS):
        assert not known[: 9 + step, column].any()
        assert known[9 + step : 100, column].all()
    assert not known[100].any()
    # Shorter than the longest step.
    assert np.isnan(calibrated(values, slice(5))).all()


def test_an_interval_learns_that_its_variance_became_too_small():
    random = np.random.default_rng(4)
    n, turn = 6_000, 3_000
    returns = np.where(np.arange(n) < turn, 1.0, 3.0) * random.normal(0, 0.01, n)
    centre, variance = np.zeros((n, 1)), np.full((n, 1), 1e-4)
    half = calibrate(returns, centre, variance, steps=[1], levels=[0.9])[:, 0, 0]
    inside = np.abs(np.append(returns[1:], np.nan)) <= half
    assert inside[turn : turn + 30].mean() < 0.75
    assert inside[turn + 200 : turn + 1_200].mean() == pytest.approx(0.9, abs=0.02)
    assert half[turn + 200 :].mean() / half[1_000:turn].mean() == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize("shocks", ["t(4)", "skewed"])
def test_coverage_holds_in_every_regime_of_a_simulated_market(shocks):
    random = np.random.default_rng(6)
    n, steps = 12_000, (1, 6, 24)
    begins = np.maximum.accumulate(np.where(random.random(n) < 1 / 300, np.arange(n), 0))
    volatility = np.array([0.004, 0.008, 0.016])[random.integers(3, size=n)[begins]]
    skewed = 1 - random.gamma(1, 1, n)
    drawn = skewed if shocks == "skewed" else random.standard_t(4, n) / math.sqrt(2)
    returns, variance = volatility * drawn, np.full(n, 1e-4)
    for t in range(1, n):
        variance[t] = 0.95 * variance[t - 1] + 0.05 * returns[t] ** 2
    centre, forecast = np.zeros((n, 3)), np.outer(variance, steps)
    half = calibrate(returns, centre, forecast, steps=steps)[n // 2 :]
    outcome = intervals.outcomes(returns, steps)[n // 2 :, :, None]
    table = scores.coverage(scores.held(outcome, -half, half), terciles(returns)[n // 2 :])
    misses = table.misses(intervals.LEVELS)
    allowed = {"overall": 0.02, "steps": 0.04, "terciles": 0.04, "cells": 0.06}
    assert [name for name, most in allowed.items() if misses[name].max() > most] == [], misses


def test_outcomes_are_sums_of_the_returns_ahead():
    found = intervals.outcomes(np.array([np.nan, 1.0, 2.0, np.nan, 4.0, 5.0]), (1, 2, 9))
    nan = np.nan
    expected = [[1, 3, nan], [2, nan, nan], [nan, nan, nan], [4, 9, nan], [5, nan, nan], [nan] * 3]
    np.testing.assert_array_equal(found, expected)


def test_bounds_are_the_quantiles_at_their_probabilities():
    shares = intervals.probabilities(intervals.DENSE_LEVELS)
    np.testing.assert_allclose(shares, (np.arange(100) + 0.5) / 100, rtol=1e-14)
    found = intervals.bounds(np.array([10.0, 20.0]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert found.tolist() == [[8, 9, 11, 12], [16, 17, 23, 24]]
    np.testing.assert_allclose(intervals.probabilities((0.5, 0.9)), [0.05, 0.25, 0.75, 0.95])
