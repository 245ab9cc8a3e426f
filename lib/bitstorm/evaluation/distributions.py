"""The distribution of returns beside the normal and Student's t, and their autocorrelation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# So many of the ordered values give the same fit as all, and a quick one.
_FITTED = 5_000
# Fewer different values have no shape.
_LEAST = 8
# The normal quantile of a 95 % band.
_95_PERCENT = 1.96


def fits(values: np.ndarray) -> Mapping[str, Any]:
    """The `normal` and the `Student-t` that fit values float64 (n,) without NaN, as distributions
    of scipy (`pdf`, `ppf`); empty where fewer than 8 of the values differ.

    The normal has the mean and the sample standard deviation of all values. Student's t has the
    greatest likelihood for at most 5,000 of them, evenly spaced in their order.
    """
    from scipy import stats

    if len(np.unique(values)) < _LEAST:
        return {}
    mean, deviation = float(values.mean()), float(values.std(ddof=1))
    ordered = np.sort(values)[spread(len(values), _FITTED)]
    # The optimiser works on values around one.
    freedom, place, scale = stats.t.fit((ordered - mean) / deviation)
    return {
        "normal": stats.norm(mean, deviation),
        "Student-t": stats.t(freedom, mean + deviation * place, deviation * scale),
    }


def spread(n: int, most: int) -> np.ndarray:
    """At most `most` of the indexes below n, evenly spaced, the first and the last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).round().astype(np.int64))


def autocorrelation(values: np.ndarray, lags: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The autocorrelation at each lag (steps, from 1 on), and the half-width of the band that holds
    it with 95 % where there is none; both float64 (lags,), NaN without two pairs.

    `values` float64 (n,) are on a regular grid, NaN where unknown; a pair has both. The band allows
    for a variance that changes over time (Lo and MacKinlay, "Stock market prices do not follow
    random walks", 1988), so clusters of volatility do not look like dependence.
    """
    known = np.isfinite(values)
    centred = np.where(known, values - values[known].mean() if known.any() else 0.0, 0.0)
    squares = centred**2
    variance = squares.sum() / max(known.sum(), 1)
    found = np.full((2, len(lags)), np.nan)
    for place, lag in enumerate(lags):
        pairs = int(known[lag:] @ known[:-lag].astype(np.int64)) if lag < len(values) else 0
        if pairs > 1 and variance > 0:
            found[0, place] = centred[lag:] @ centred[:-lag] / (pairs * variance)
            noise = np.sqrt(squares[lag:] @ squares[:-lag])
            found[1, place] = _95_PERCENT * noise / (pairs * variance)
    return found[0], found[1]
