"""Simple price forecasts, which a network has to beat.

A baseline takes `returns`, float64 (n,), the log returns of one step on the regular grid, NaN where
there is none (a hole or a cut); `returns[t]` is known at index t. It gives float64
(len(origins), steps): the cumulative log return 1…`steps` steps after each origin. It fits on
`returns[: fit_until + 1]` alone, once a call; the forecast from origin t depends on
`returns[: t + 1]` besides. A missing return is never a target of a fit; as an input it counts as 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Protocol

import numpy as np

LAGS = 48
# Decay of the variance in the weights of `ridge` (RiskMetrics, 1996, has 0.94 for days).
DECAY = 0.97
# The prior of `ridge`: all lags together explain 1 % of the variance, each the same share.
PENALTY = LAGS / 0.01
# The number of prices in the mean of `moving_average`, and the span of `ema`.
WINDOW = 24
# `ar` has at most so many lags, and so many observations for each of them.
MOST_LAGS, OBSERVATIONS_PER_LAG = 48, 20


class Baseline(Protocol):
    def __call__(
        self, returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int
    ) -> np.ndarray: ...


def persistence(
    returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int
) -> np.ndarray:
    """The price stays."""
    return np.zeros((len(origins), steps))


def drift(returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int) -> np.ndarray:
    """Every step brings the mean return of the fit part."""
    return np.tile(_mean(returns[: fit_until + 1]) * np.arange(1, steps + 1), (len(origins), 1))


def seasonal_naive(
    returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int, season: int
) -> np.ndarray:
    """The returns of the last `season` steps repeat: the same hours of the last day or week."""
    last = np.nan_to_num(past(returns, origins, season))[:, ::-1]
    return np.cumsum(last[:, np.arange(steps) % season], axis=1)


def moving_average(
    returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int, window: int
) -> np.ndarray:
    """The price goes to the mean of the last `window` prices, or of those since the last cut."""
    return _to_level(returns, origins, steps, np.ones(window))


def ema(
    returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int, span: int
) -> np.ndarray:
    """The price goes to its exponential mean since the last cut: `pandas.Series.ewm(span=span)`.
    `span` is above 1."""
    decay = 1 - 2 / (span + 1)
    # Older prices weigh less than the last digit of a double.
    remembered = math.ceil(math.log(2.0**-53) / math.log(decay))
    return _to_level(returns, origins, steps, decay ** np.arange(remembered))


def _to_level(
    returns: np.ndarray, origins: np.ndarray, steps: int, weights: np.ndarray
) -> np.ndarray:
    """The log of (mean of past prices / price); `weights` begin with the price of the origin."""
    back = np.cumsum(past(returns, origins, len(weights) - 1), axis=1)
    # NaN reaches every price before a cut: these have no known ratio to the price of the origin.
    ratios = np.column_stack([np.ones(len(origins)), np.exp(-back)])
    known = np.where(np.isnan(ratios), 0.0, weights)
    level = np.sum(known * np.nan_to_num(ratios), axis=1) / np.sum(known, axis=1)
    return np.tile(np.log(level)[:, None], (1, steps))


def past(returns: np.ndarray, at: np.ndarray, count: int) -> np.ndarray:
    """The last `count` returns known at each index, the newest first: float64 (len(at), count),
    NaN before the beginning."""
    padded = np.concatenate([np.full(count, np.nan), returns])
    return padded[np.asarray(at)[:, None] + count - np.arange(count)]


def _mean(known: np.ndarray) -> float:
    finite = known[np.isfinite(known)]
    return float(finite.mean()) if len(finite) else 0.0


def baselines(*, day: int = 24, week: int = 168) -> Mapping[str, Baseline]:
    """The baselines by name, for a grid with so many steps a day and a week."""
    return MappingProxyType(
        {
            "persistence": persistence,
            "drift": drift,
            **{f"seasonal_naive_{n}": partial(seasonal_naive, season=n) for n in (day, week)},
            "moving_average": partial(moving_average, window=WINDOW),
            "ema": partial(ema, span=WINDOW),
            "ar": ar,
            "ridge": ridge,
        }
    )


def ar(returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int) -> np.ndarray:
    """An autoregression by least squares, iterated; its order has the smallest BIC (Schwarz, 1978)
    of the fit part."""
    constant, weights = _autoregression(returns[: fit_until + 1])
    lags = np.nan_to_num(past(returns, origins, len(weights)))
    ahead = np.empty((len(origins), steps))
    for step in range(steps):
        ahead[:, step] = constant + lags @ weights
        lags = np.column_stack([ahead[:, step], lags])[:, : len(weights)]
    return np.cumsum(ahead, axis=1)


def _autoregression(known: np.ndarray) -> tuple[float, np.ndarray]:
    """The constant, and the weights of the chosen lags, float64 (order,), lag 1 first."""
    most = min(MOST_LAGS, int(np.isfinite(known).sum()) // OBSERVATIONS_PER_LAG)
    if most == 0:
        return _mean(known), np.empty(0)
    rows, target = _autoregressive_rows(known, most)
    # The orders are nested: one orthogonal basis gives the residual sum of squares of each.
    explained = np.cumsum((np.linalg.qr(rows)[0].T @ target) ** 2)
    left = np.maximum(target @ target - explained, np.finfo(np.float64).tiny)
    n = len(target)
    order = int(np.argmin(n * np.log(left / n) + math.log(n) * np.arange(1, most + 2)))
    fitted = np.linalg.lstsq(*_autoregressive_rows(known, order), rcond=None)[0]
    return float(fitted[0]), fitted[1:]


def _autoregressive_rows(known: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """1 and the `order` returns before each known return, and that return."""
    at = np.arange(order, len(known))
    at = at[np.isfinite(known[at])]
    return np.column_stack([np.ones(len(at)), np.nan_to_num(past(known, at - 1, order))]), known[at]


def ridge(returns: np.ndarray, *, fit_until: int, origins: np.ndarray, steps: int) -> np.ndarray:
    """Ridge regression (Hoerl and Kennard, 1970) of each step's return on the last 48 returns,
    weighted by 1/σ², without a constant.

    The weights make the diagonal of the Gram matrix a number of rows, and so the penalty: a lag's
    weight has the prior variance 1/`PENALTY`.
    """
    lags, target, weight = examples(returns[: fit_until + 1], steps)
    weighted = (lags * weight[:, None]).T
    fitted = np.linalg.solve(weighted @ lags + PENALTY * np.eye(LAGS), weighted @ target)
    return np.nan_to_num(past(returns, origins, LAGS)) @ fitted


def examples(known: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `ridge` fits on, one row for each origin whose next `steps` returns are known: the last
    returns float64 (rows, LAGS), the next cumulative returns (rows, steps), and 1/σ² (rows,)."""
    at = np.arange(LAGS, max(len(known) - steps, LAGS))
    target = np.cumsum(past(known, at + steps, steps)[:, ::-1], axis=1)
    variance = variance_ahead(known)
    whole = np.isfinite(target[:, -1]) & np.isfinite(variance[at])
    # A price that stands still for long has no variance; its weight has a limit.
    least = max(0.01 * _mean(known**2), 1e-300)
    weight = 1 / np.maximum(variance[at[whole]], least)
    return np.nan_to_num(past(known, at[whole], LAGS)), target[whole], weight


def variance_ahead(returns: np.ndarray) -> np.ndarray:
    """The exponential mean of squared returns up to each index, float64 (n,): a forecast of the
    next return's variance. A missing return keeps the value before it."""
    import pandas as pd

    squares = pd.Series(returns**2)
    return squares.ewm(alpha=1 - DECAY, ignore_na=True).mean().to_numpy()


BASELINES = baselines()
