"""Intervals for the next steps that keep their coverage in calm and in wild markets.

The half-width of an interval is √(forecast of the variance) × (quantile of past |error| / σ)
× exp(c). There is one c for each tercile of the volatility, step and level. Each outcome moves it:
c += rate / √step · (missed - (1 - level)). (The feedback: Gibbs and Candès, "Adaptive conformal
inference under distribution shift", 2021.) The outcome of step h is known h steps after the origin
and moves c only then.

A value at index t uses only values up to index t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVELS = (0.5, 0.8, 0.9, 0.95)
# Bounds of these central intervals are 100 quantiles, of the middles of 100 equal shares.
DENSE_LEVELS = tuple(share / 100 for share in range(1, 100, 2))
# The quantiles are renewed when this share of their scores is new: to sort is the slow part.
_NEW = 1 / 25
# Rows whose ranks are counted at a time.
_ROWS = 512


@dataclass(frozen=True)
class Rules:
    """The windows, in steps of the grid; the defaults are for hours.

    `scores`: the scores whose quantiles are taken; `least`: with fewer of them there is no
    interval. `week`: the window of the volatility; `months`: the window in which it is ranked.
    `rate`: how fast c learns from step 1.
    """

    scores: int = 4_000
    least: int = 100
    week: int = 168
    months: int = 4_320
    rate: float = 0.05


def calibrate(
    returns: np.ndarray,
    centre: np.ndarray,
    variance: np.ndarray,
    *,
    steps: Sequence[int],
    levels: Sequence[float] = LEVELS,
    rules: Rules = Rules(),
) -> np.ndarray:
    """The half-widths of the intervals around `centre` at each origin, float64 (n, H, L), in log
    return, each from what was known there; NaN where there are too few scores or no variance.

    `returns` float64 (n,): log returns of one step, NaN for none. `centre` and `variance` float64
    (n, H): at each origin the forecast of the log return over the next `steps` (H,), and of its
    variance. `levels` (L,) ascend.
    """
    ahead, share = np.asarray(steps), np.asarray(levels)
    known = _known_scores(returns, centre, variance, ahead)
    tercile = terciles(returns, rules=rules)
    multiple = _multiples(known, tercile, steps=ahead, levels=share, rules=rules)
    # Sorted, so that an interval holds those of lower levels. The feedback needs the unsorted ones:
    # each c has to be moved by its own interval.
    return np.sort(multiple, axis=2) * np.sqrt(variance)[:, :, None]


def _multiples(
    known: np.ndarray, tercile: np.ndarray, *, steps: np.ndarray, levels: np.ndarray, rules: Rules
) -> np.ndarray:
    """The half-widths in units of σ, float64 (n, H, L)."""
    # Before the first row there are as many as the longest step, without a number.
    longest, shape = int(steps.max()), (len(steps), len(levels))
    multiple = np.full((longest + len(tercile), *shape), np.nan)
    # The last c is for an unknown tercile.
    log_factor, quantile, renewed = np.zeros((4, *shape)), np.full(shape, np.nan), 0
    columns, rate = np.arange(len(steps)), rules.rate / np.sqrt(steps)[:, None]
    missed, held = rate * levels, rate * (levels - 1)
    for t in range(len(tercile)):
        now, rows = t + longest, t + 1
        score, then = known[:, t, None], multiple[now - steps, columns]
        # Neither is true of NaN.
        change = missed * (score > then) + held * (score <= then)
        log_factor[tercile[np.maximum(t - steps, 0)], columns] += change
        window = min(rows, rules.scores)
        if rows - renewed >= window * _NEW:
            quantile = _quantiles(known[:, rows - window : rows], levels, rules.least)
            renewed = rows
        multiple[now] = quantile * np.exp(log_factor[tercile[t]])
    return multiple[longest:]


def outcomes(returns: np.ndarray, steps: Sequence[int]) -> np.ndarray:
    """The log returns over the next `steps`, float64 (n, H); NaN where one return is missing or
    still to come."""
    n, columns = len(returns), {int(step): column for column, step in enumerate(steps)}
    found, total = np.full((n, len(columns)), np.nan), np.zeros(n)
    for step in range(1, min(max(columns), n - 1) + 1):
        total = total[: n - step] + returns[step:]
        if step in columns:
            found[: n - step, columns[step]] = total
    return found


def terciles(returns: np.ndarray, *, rules: Rules = Rules()) -> np.ndarray:
    """Is the volatility of the last week low (0), middle (1) or high (2) among those of the last
    months? int8 (n,), for `returns` float64 (n,); -1 where it is unknown: with less than a day's
    returns in the week."""
    exists = np.isfinite(returns)
    squares = _trailing(np.where(exists, returns, 0.0) ** 2, rules.week, 0.0).sum(axis=1)
    counts = _trailing(exists, rules.week, False).sum(axis=1)
    enough = counts * 7 >= rules.week
    variance = np.where(enough, squares / np.maximum(counts, 1), np.nan)
    ranked = _trailing(variance, rules.months, np.nan)
    found = np.full(len(returns), -1, np.int8)
    among = np.cumsum(enough)
    among[rules.months :] = among[rules.months :] - among[: -rules.months]
    for begin in range(0, len(returns), _ROWS):
        part = slice(begin, begin + _ROWS)
        lower = np.count_nonzero(ranked[part] < variance[part, None], axis=1)
        found[part] = np.where(enough[part], 3 * lower // np.maximum(among[part], 1), -1)
    return found


def probabilities(levels: Sequence[float]) -> np.ndarray:
    """The probabilities (2L,) of the bounds of the central intervals of ascending `levels` (L,)."""
    share = np.asarray(levels)
    return np.concatenate([1 - share[::-1], 1 + share]) / 2


def bounds(centre: np.ndarray, half_width: np.ndarray) -> np.ndarray:
    """The bounds (…, 2L) of intervals (…, L) around `centre` (…), in ascending order: the quantiles
    at `probabilities`."""
    middle = centre[..., None]
    return np.concatenate([middle - half_width[..., ::-1], middle + half_width], axis=-1)


def _known_scores(
    returns: np.ndarray, centre: np.ndarray, variance: np.ndarray, steps: np.ndarray
) -> np.ndarray:
    """|error| / σ at the index where it is known, float64 (H, n); NaN for none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.abs(outcomes(returns, steps.tolist()) - centre) / np.sqrt(variance)
    known = np.full(scores.shape[::-1], np.nan)
    for column, step in enumerate(steps):
        known[column, step:] = scores[:-step, column]
    return np.where(np.isfinite(known), known, np.nan)


def _quantiles(scores: np.ndarray, levels: np.ndarray, least: int) -> np.ndarray:
    """The quantiles (H, L) of each row of `scores` (H, w) without its NaN; NaN with fewer than
    `least`. Of m scores the k-th smallest is the quantile k / (m + 1)."""
    ordered = np.sort(scores, axis=1)
    count = np.isfinite(ordered).sum(axis=1)[:, None]
    place = np.clip(levels * (count + 1) - 1, 0, np.maximum(count - 1, 0))
    low = place.astype(int)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    below, above = (np.take_along_axis(ordered, at, axis=1) for at in (low, high))
    return np.where(count >= least, below + (place - low) * (above - below), np.nan)


def _trailing(values: np.ndarray, window: int, before: float) -> np.ndarray:
    """The last `window` values at each index, (n, window), a view; `before` the first one."""
    padded = np.concatenate([np.full(window - 1, before, values.dtype), values])
    return np.lib.stride_tricks.sliding_window_view(padded, window)
