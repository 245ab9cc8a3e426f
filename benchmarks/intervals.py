"""Intervals for steps 1 … 24 on the second half of a series of hours, beside a GARCH(1,1) with t
shocks, fitted every four weeks, whose paths are simulated.

`results` are seconds; those of the variances and the intervals are for a year of hours. Ratios,
ours over theirs, smaller is better: the CRPS, and the Winkler score of the worst step at each
level. The notes have the coverage in percent: at each level, and at 90 % of each step, of each
tercile of the volatility of 168 hours, and of each step in each tercile; how far it misses, beside
the miss that chance alone gives a forecaster who knows the volatility; and the worst misses at 90 %
on simulated markets.

The hours are those of Coinbase where the file is there, else a simulated market.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness import Outcome, interleaved, medians
from benchmarks.volatility import hours
from bitstorm.evaluation import garch_paths, intervals, scores
from bitstorm.evaluation.intervals import DENSE_LEVELS, LEVELS
from bitstorm.evaluation.scores import Coverage
from bitstorm.evaluation.volatility import mean_difference
from bitstorm.evaluation.volatility_features import step_variances

ROWS = 13_165
YEAR = 8_760
STEPS = range(1, 25)
PATHS = 1_000
_90 = LEVELS.index(0.9)
MARKETS = 3
_VOLATILITIES, _MEAN_STAY = (0.004, 0.008, 0.018), 400
_SHOCKS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "three regimes, t(4)": lambda chance, n: chance.standard_t(4, n) / np.sqrt(2),
    "three regimes, skewed": lambda chance, n: np.sqrt(2) - chance.gamma(2, 1 / np.sqrt(2), n),
}


def run(rows: int = ROWS) -> Outcome:
    """The newest `rows` hours; all intervals are strictly causal."""
    returns, first_ms, source = hours(rows)
    tested = slice(len(returns) // 2, len(returns) - STEPS[-1])
    actual = intervals.outcomes(returns, STEPS)[tested]
    variance = step_variances(returns, first_ms=first_ms)
    half, dense = (
        _calibrated(returns, variance, levels)[tested] for levels in (LEVELS, DENSE_LEVELS)
    )
    tercile = intervals.terciles(returns)[tested]
    quantiles = intervals.bounds(np.zeros(actual.shape), dense)
    crps = scores.crps_of_quantiles(actual, quantiles, intervals.probabilities(DENSE_LEVELS))
    began = time.perf_counter()
    places = np.arange(tested.start, tested.stop)
    crps_garch, lower, upper = garch_paths.simulated(
        returns, actual, places, steps=STEPS[-1], levels=LEVELS, paths=PATHS
    )
    seconds = {"garch_t": time.perf_counter() - began, **_seconds(returns[-YEAR:], first_ms)}
    outcome, levels = actual[..., None], np.array(LEVELS)
    winkler = scores.winkler(outcome, -half, half, levels).mean(axis=0)
    worst = winkler / scores.winkler(outcome, lower, upper, levels).mean(axis=0)
    theirs = float(crps_garch.mean())
    gain = mean_difference(crps.mean(axis=1) / theirs, crps_garch.mean(axis=1) / theirs)
    ratios = {"crps": 1 + gain.mean} | {
        f"winkler_{level:.0%}_worst_step": float(ratio)
        for level, ratio in zip(LEVELS, worst.max(axis=0), strict=True)
    }
    table = scores.coverage(scores.held(outcome, -half, half), tercile)
    chance = scores.oracle_misses(tercile, steps=STEPS, levels=LEVELS)
    notes: dict[str, Any] = {
        "series": f"{source}; {len(actual):,} hours of the second half",
        "CRPS less GARCH-t's": f"{gain.mean:+.2%} [{gain.lower:+.2%}, {gain.upper:+.2%}]",
        "coverage, %": _shares(table),
        "of GARCH-t": _shares(scores.coverage(scores.held(outcome, lower, upper), tercile)),
        "miss at 90 %, and by chance": {
            name: f"{100 * miss[_90]:.1f}; median {100 * chance[name][0, _90]:.1f}, "
            f"95th percentile {100 * chance[name][1, _90]:.1f}"
            for name, miss in table.misses(LEVELS).items()
        },
        "simulated, worst miss at 90 %": {name: _worst_misses(name, rows) for name in _SHOCKS},
    }
    return Outcome("intervals", len(returns), seconds, ratios, notes)


def _calibrated(returns: np.ndarray, variance: np.ndarray, levels: tuple[float, ...]) -> np.ndarray:
    centre = np.zeros(variance.shape)
    return intervals.calibrate(returns, centre, variance, steps=STEPS, levels=levels)


def _seconds(returns: np.ndarray, first_ms: int) -> dict[str, float]:
    variance = step_variances(returns, first_ms=first_ms)

    def variances(_: int) -> None:
        step_variances(returns, first_ms=first_ms)

    def calibration(_: int) -> None:
        _calibrated(returns, variance, LEVELS)

    return medians(interleaved({"variances": variances, "intervals": calibration}))


def _shares(table: Coverage) -> dict[str, str]:
    def text(share: np.ndarray) -> str:
        return ", ".join(f"{100 * value:.1f}" for value in share)

    def span(share: np.ndarray) -> str:
        return f"{100 * share.min():.1f} … {100 * share.max():.1f}"

    return {
        "at " + ", ".join(f"{level:.0%}" for level in LEVELS): text(table.overall),
        "steps, at 90 %": span(table.steps[:, _90]),
        "terciles, at 90 %": text(table.terciles[:, _90]),
        "cells, at 90 %": span(table.cells[:, :, _90]),
    }


def _worst_misses(shocks: str, rows: int) -> str:
    worst: dict[str, float] = {}
    for seed in range(MARKETS):
        chance = np.random.default_rng(seed)
        begins = np.where(chance.random(rows) < 1 / _MEAN_STAY, np.arange(rows), 0)
        regime = chance.integers(len(_VOLATILITIES), size=rows)[np.maximum.accumulate(begins)]
        returns = np.array(_VOLATILITIES)[regime] * _SHOCKS[shocks](chance, rows)
        half = _calibrated(returns, step_variances(returns, first_ms=0), LEVELS)[rows // 2 :]
        outcome = intervals.outcomes(returns, STEPS)[rows // 2 :, :, None]
        regimes = intervals.terciles(returns)[rows // 2 :]
        table = scores.coverage(scores.held(outcome, -half, half), regimes)
        for name, miss in table.misses(LEVELS).items():
            worst[name] = max(worst.get(name, 0.0), 100 * float(miss[_90]))
    return ", ".join(f"{name} {miss:.1f}" for name, miss in worst.items())
