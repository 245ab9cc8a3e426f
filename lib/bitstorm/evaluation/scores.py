"""Scores of intervals and of whole distributions, and coverage beside the noise that it has.

Pinball loss, Winkler score and CRPS are proper: their mean is smallest for the true distribution
(Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", 2007). They have
the unit of the outcome; a NaN in the outcome or the forecast gives NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from bitstorm.evaluation.intervals import outcomes


def pinball(actual: np.ndarray, quantiles: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The loss of quantiles (…, q) at `probabilities` (q,), float64 (…, q); `actual` is (…)."""
    over = actual[..., None] - quantiles
    return np.maximum(probabilities * over, (probabilities - 1) * over)


def winkler(
    actual: np.ndarray, lower: np.ndarray, upper: np.ndarray, level: float | np.ndarray
) -> np.ndarray:
    """The width of an interval, and for an outcome outside 2 / (1 - level) times its distance from
    the interval. All arrays broadcast."""
    outside = np.maximum(lower - actual, 0.0) + np.maximum(actual - upper, 0.0)
    return upper - lower + 2 / (1 - np.asarray(level)) * outside


def crps_of_quantiles(
    actual: np.ndarray, quantiles: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    """The CRPS of quantiles (…, q) whose `probabilities` are the middles of q equal shares, (k -
    1/2) / q, float64 (…): twice their mean pinball loss, which is the integral by midpoints."""
    return 2 * pinball(actual, quantiles, probabilities).mean(axis=-1)


def crps_of_samples(actual: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """The CRPS of the distribution behind these samples (…, m), float64 (…), estimated without
    bias: the mean of |sample - actual| less half that of |sample - sample| over all pairs of two
    samples (Ferro, 2014)."""
    m = samples.shape[-1]
    weights = (2 * np.arange(1, m + 1) - m - 1) / (m * (m - 1))
    spread = np.sort(samples, axis=-1) @ weights
    return np.abs(samples - actual[..., None]).mean(axis=-1) - spread


def pit(actual: np.ndarray, quantiles: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The forecast probability of a smaller outcome, float64 (…); uniform for a true forecast.

    Between two of the ascending `quantiles` (…, q) it is linear; beyond the outermost one it is the
    middle of the remaining probability.
    """
    last = len(probabilities) - 1
    place = (quantiles < actual[..., None]).sum(axis=-1)
    below, above = np.clip(place - 1, 0, last), np.minimum(place, last)
    low, high = (
        np.take_along_axis(quantiles, at[..., None], axis=-1)[..., 0] for at in (below, above)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (actual - low) / (high - low)
        found = probabilities[below] + share * (probabilities[above] - probabilities[below])
    found = np.where(place == 0, probabilities[0] / 2, found)
    found = np.where(place > last, (1 + probabilities[-1]) / 2, found)
    return np.where(np.isfinite(actual + quantiles.sum(axis=-1)), found, np.nan)


def held(actual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """1 where the interval holds the outcome, its bounds included, 0 where not, NaN where one of
    them is missing."""
    known = np.isfinite(lower) & np.isfinite(upper) & np.isfinite(actual)
    return np.where(known, (lower <= actual) & (actual <= upper), np.nan)


@dataclass(frozen=True)
class Coverage:
    """Shares of outcomes inside their intervals: `overall` (L,), `steps` (H, L), `terciles` of the
    volatility (3, L), `cells` (3, H, L); NaN where there is no outcome."""

    overall: np.ndarray
    steps: np.ndarray
    terciles: np.ndarray
    cells: np.ndarray

    def misses(self, levels: Sequence[float]) -> dict[str, np.ndarray]:
        """The distance of the coverage from `levels`: overall, and of the worst step, tercile and
        cell, each (L,)."""
        return {
            name: np.fmax.reduce(np.abs(share - levels).reshape(-1, len(levels)))
            for name, share in vars(self).items()
        }


def coverage(inside: np.ndarray, tercile: np.ndarray) -> Coverage:
    """The table of `inside` float64 (n, H, L), as from `held`; `tercile` int (n,), -1 for none."""
    known = np.isfinite(inside)
    hits = np.where(known, inside, 0.0)
    groups = (tercile == np.arange(3)[:, None]).astype(float)
    hits_of, count_of = (np.tensordot(groups, part, 1) for part in (hits, known.astype(float)))
    with np.errstate(invalid="ignore"):
        return Coverage(
            hits.sum(axis=(0, 1)) / known.sum(axis=(0, 1)),
            hits.sum(axis=0) / known.sum(axis=0),
            hits_of.sum(axis=1) / count_of.sum(axis=1),
            hits_of / count_of,
        )


def oracle_misses(
    tercile: np.ndarray,
    *,
    steps: Sequence[int],
    levels: Sequence[float],
    draws: int = 200,
    seed: int = 1,
) -> dict[str, np.ndarray]:
    """The misses that chance alone gives a forecaster who knows the volatility of every hour.

    Each draw has independent normal returns for as many hours, in the given terciles; the outcomes
    of several steps overlap. For each name of `Coverage.misses`: the median and the 95th percentile
    of the draws, float64 (2, L).
    """
    n, chance = len(tercile), np.random.default_rng(seed)
    width = np.array([NormalDist().inv_cdf((1 + level) / 2) for level in levels])
    deviation = np.sqrt(np.asarray(steps))[:, None]
    found: dict[str, list[np.ndarray]] = {}
    for _ in range(draws):
        # The oracle divides by the known volatility: only standard normal shocks are left.
        drawn = outcomes(chance.standard_normal(n + max(steps)), steps)[:n, :, None]
        inside = (np.abs(drawn) <= width * deviation).astype(float)
        for name, miss in coverage(inside, tercile).misses(levels).items():
            found.setdefault(name, []).append(miss)
    return {name: np.quantile(misses, [0.5, 0.95], axis=0) for name, misses in found.items()}
