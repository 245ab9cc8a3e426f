"""Features for forecasts of the variance, and a variance forecast for each of the next steps.

`returns` are float64 (n,), the log returns of one step of a regular grid, NaN where there is none.
Row t of every result uses returns[: t + 1] alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bitstorm.core.time import HOUR_MS
from bitstorm.evaluation.intervals import outcomes
from bitstorm.evaluation.regression import Fit, qlike_ridge

WEEK_HOURS = 168
VARIANCE_HOURS = (1, 3, 6, 12, 24, 72, 168, 720)
RETURN_HOURS = (1, 6, 24, 168)
SEMIVARIANCE_HOURS = (24, 168)
# A window counts where at least this share of its returns exists, with the mean of these. So a
# hole does not silence a window of a month for a month.
_SHARE = 0.5
# The log of a variance near zero is an outlier. The floor is this share of the variance over the
# longest window, and at least LEAST, a return of 1e-6.
_FLOOR, LEAST = 0.01, 1e-12
FOUR_WEEKS_MS = 672 * HOUR_MS
# The least that the first fit learns from.
FIRST_ROWS = 500
# The penalty for each step of the horizon: targets that overlap count once together.
_PENALTY = 40.0
# A forecast lies at most this factor outside the range that its fit gave in the past.
_RANGE = 2.0


def steps_of(hours: Sequence[float], *, step_ms: int) -> tuple[int, ...]:
    """Windows of so many hours as numbers of steps, each once, without those below one step.

    On a daily grid VARIANCE_HOURS are 1, 3, 7 and 30 steps.
    """
    steps = {max(round(hour * HOUR_MS / step_ms), 1) for hour in hours if hour * HOUR_MS >= step_ms}
    return tuple(sorted(steps)) or (1,)


def rolling_mean(values: np.ndarray, steps: int) -> np.ndarray:
    """The mean of the last `steps` values, float64 (n,), without the NaN among them; NaN where
    fewer than half of the values exist."""
    known = np.isfinite(values)
    sums = np.cumsum(np.where(known, values, 0.0))
    counts = np.cumsum(known)
    sums[steps:] = sums[steps:] - sums[:-steps]
    counts[steps:] = counts[steps:] - counts[:-steps]
    enough = counts >= max(_SHARE * steps, 1)
    return np.where(enough, sums / np.maximum(counts, 1), np.nan)


def realised_variance(returns: np.ndarray, steps: int) -> np.ndarray:
    """Mean squared return over the last `steps`, float64 (n,), in squared log return a step."""
    # Differences of running sums can fall a rounding error below zero.
    return np.maximum(rolling_mean(returns**2, steps), 0.0)


def future_variances(returns: np.ndarray, *, horizon: int) -> np.ndarray:
    """Sums of the squared returns of the next 1, 2, … `horizon` steps, float64 (n, horizon); NaN
    where one of these steps has no return or lies behind the end."""
    padded = np.concatenate([returns[1:] ** 2, np.full(horizon, np.nan)])
    ahead = np.lib.stride_tricks.sliding_window_view(padded, horizon)[: len(returns)]
    return np.cumsum(ahead, axis=1)


def future_variance(returns: np.ndarray, *, horizon: int) -> np.ndarray:
    """The last column of `future_variances`, float64 (n,), at least 1e-12: a price that stays has
    no variance, and no logarithm."""
    return np.maximum(future_variances(returns, horizon=horizon)[:, -1], LEAST)


def features(
    returns: np.ndarray,
    *,
    first_ms: int,
    step_ms: int = HOUR_MS,
    hours: Sequence[float] = VARIANCE_HOURS,
) -> np.ndarray:
    """Float64 (n, k); NaN in a row until all its windows hold half of their returns.

    `first_ms` is the time of returns[0], Unix ms UTC. In order: the log of the realised variance a
    step over windows of `hours`; the return over RETURN_HOURS in past deviations and its negative
    part, and the share of falling returns in the variance over SEMIVARIANCE_HOURS (the leverage
    effect; Corsi and Reno, 2012; Patton and Sheppard, 2015); sines and cosines of the hours of day
    and week. Only windows up to the longest of `hours` are used.
    """
    windows = steps_of(hours, step_ms=step_ms)

    def within(others: Sequence[int]) -> list[int]:
        return [w for w in steps_of(others, step_ms=step_ms) if w <= windows[-1]]

    longest = realised_variance(returns, windows[-1])
    least = np.maximum(_FLOOR * longest, LEAST)
    columns = [np.log(np.maximum(realised_variance(returns, w), least)) for w in windows]
    deviation = np.sqrt(np.maximum(longest, LEAST))
    for steps in within(RETURN_HOURS):
        past = rolling_mean(returns, steps) * np.sqrt(steps) / deviation
        columns += [past, np.minimum(past, 0.0)]
    falls = np.where(np.isfinite(returns), np.minimum(returns, 0.0), np.nan)
    for steps in within(SEMIVARIANCE_HOURS):
        whole, part = realised_variance(returns, steps), realised_variance(falls, steps)
        columns.append(np.where(whole <= LEAST, 0.5, part / np.maximum(whole, LEAST)))
    columns += _season(len(returns), first_ms=first_ms, step_ms=step_ms)
    return np.column_stack(columns)


def _season(n: int, *, first_ms: int, step_ms: int) -> list[np.ndarray]:
    """Two waves of the day, where the grid shows them, and three of the week."""
    hour = (first_ms + step_ms * np.arange(n)) / HOUR_MS
    periods = [24 / wave for wave in (1, 2)] + [WEEK_HOURS / wave for wave in (1, 2, 3)]
    shown = [period for period in periods if period * HOUR_MS > 2 * step_ms]
    angles = [2 * np.pi * hour / period for period in shown]
    return [wave for angle in angles for wave in (np.sin(angle), np.cos(angle))]


def refits(
    usable: np.ndarray, *, horizon: int, every: int | None = None, step_ms: int = HOUR_MS
) -> Iterator[tuple[np.ndarray, slice]]:
    """Walk forward: pairs of the past rows of a fit and the span of origins that it serves.

    `usable`: bool (n,), rows whose features and targets exist. A fit at origin t takes the usable
    rows up to t - horizon, whose targets are known at t, and serves the origins t … t + every - 1;
    `every` counts steps, by default four weeks. The first fit has FIRST_ROWS rows.
    """
    every = every or max(FOUR_WEEKS_MS // step_ms, 1)
    first = int(np.searchsorted(np.cumsum(usable), FIRST_ROWS)) + horizon
    for origin in range(first, len(usable), every):
        yield np.flatnonzero(usable[: origin - horizon + 1]), slice(origin, origin + every)


def penalty(horizon: int) -> float:
    """The penalty of the ridge regressions whose targets span `horizon` steps."""
    return _PENALTY * horizon


def within_range(forecast: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Forecasts (m, …) of positive values, at most a factor 2 outside the range of the fitted
    values (n, …): a fit is not trusted far from what it has seen."""
    return np.clip(forecast, fitted.min(axis=0) / _RANGE, fitted.max(axis=0) * _RANGE)


def step_variances(
    returns: np.ndarray,
    *,
    first_ms: int,
    step_ms: int = HOUR_MS,
    hours: Sequence[float] = VARIANCE_HOURS,
    horizon: int = 24,
    every: int | None = None,
) -> np.ndarray:
    """Forecasts at each index of the variance of the log return over the next 1 … `horizon` steps,
    float64 (n, horizon), in squared log return; NaN before the first fit and where features miss.

    A QLIKE-ridge on `features`, one column for each step, fitted every `every` steps (default:
    four weeks) on all that is past. Its target is the mean of the squared return over the steps,
    which counts their autocorrelation, and of the sum of squared returns, which has less noise.
    """
    X = features(returns, first_ms=first_ms, step_ms=step_ms, hours=hours)
    squares = future_variances(returns, horizon=horizon)
    Y = np.maximum((squares + outcomes(returns, range(1, horizon + 1)) ** 2) / 2, LEAST)
    usable = np.isfinite(X).all(axis=1) & np.isfinite(Y[:, -1])
    found = np.full(Y.shape, np.nan)
    fit: Fit | None = None
    for past, served in refits(usable, horizon=horizon, every=every, step_ms=step_ms):
        fit = qlike_ridge(X[past], Y[past], penalty=penalty(horizon), start=fit)
        found[served] = within_range(fit.predict(X[served]), fit.predict(X[past]))
    return found
