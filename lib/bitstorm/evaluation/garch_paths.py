"""Intervals from simulated paths of a GARCH(1,1) with t shocks: a benchmark for other intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bitstorm.evaluation import intervals, scores
from bitstorm.evaluation.volatility import garch_parameters
from bitstorm.evaluation.volatility_features import HOUR_MS, refits

PATHS = 500
# Origins whose paths are simulated at a time.
_PART = 64


def simulated(
    returns: np.ndarray,
    actual: np.ndarray,
    places: np.ndarray,
    *,
    steps: int,
    levels: Sequence[float],
    paths: int = PATHS,
    step_ms: int = HOUR_MS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The CRPS (n, H), and the lower and upper bounds (n, H, L) of the intervals of `levels`.

    `returns` float64 (m,) are log returns of one step, `places` int (n,) the ascending indexes of
    the origins, `actual` float64 (n, H) the log returns from each to steps 1…H. The model is fitted
    every four weeks on all that is past; NaN before the first fit.
    """
    crps = np.full(actual.shape, np.nan)
    bounds = np.full((*actual.shape, 2 * len(levels)), np.nan)
    drawn = _paths(returns, places, steps=steps, paths=paths, step_ms=step_ms)
    for rows, moves in drawn:
        crps[rows] = scores.crps_of_samples(actual[rows], moves)
        found = np.quantile(moves, intervals.probabilities(levels), axis=-1)
        bounds[rows] = np.moveaxis(found, 0, -1)
    return crps, bounds[..., : len(levels)][..., ::-1], bounds[..., len(levels) :]


def _paths(
    returns: np.ndarray, places: np.ndarray, *, steps: int, paths: int, step_ms: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Parts of `places`, with the simulated log returns from there to each step (k, H, paths)."""
    from scipy.signal import lfilter

    chance = np.random.default_rng(1)
    known = np.isfinite(returns)
    squares = np.where(known, returns, 0.0) ** 2
    start = None
    for past, served in refits(known, horizon=0, step_ms=step_ms):
        begin, end = np.searchsorted(places, [served.start, served.stop])
        if begin == end:
            continue
        start = omega, alpha, beta, freedom = garch_parameters(returns[past], start=start)
        ahead = lfilter([1.0], [1.0, -beta], omega + alpha * squares)
        scale = np.sqrt((freedom - 2) / freedom)
        for first in range(begin, end, _PART):
            rows = slice(first, min(first + _PART, end))
            variance = np.repeat(ahead[places[rows], None], paths, axis=1)
            moves = np.empty((len(variance), steps, paths))
            for column in range(steps):
                shock = scale * chance.standard_t(freedom, variance.shape)
                moves[:, column] = np.sqrt(variance) * shock
                variance = omega + alpha * moves[:, column] ** 2 + beta * variance
            yield rows, moves.cumsum(axis=1)
