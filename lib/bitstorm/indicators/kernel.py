"""The grid of one block, its recursive indicators and its bands: numpy and pandas, no Spark.

Formulas: exponential means, Bollinger bands and drawdown as in J. J. Murphy, "Technical Analysis
of the Financial Markets"; MACD by G. Appel; RSI by J. W. Wilder, "New Concepts in Technical
Trading Systems" (1978), seeded with the simple mean of the first 14 changes.

Means and spreads of trailing windows lose no digits by subtraction. The series is cut into cells of
one window's length. Welford's sums run forward and backward inside each cell, so that every window
is the end of one cell and the beginning of the next, merged by Chan's formula. (The cells: M. van
Herk, "A fast algorithm for local minimum and maximum filters", 1992; the merge: T. F. Chan, G. H.
Golub and R. J. LeVeque, 1979.)

An exponential mean forgets its start: after `rows_remembered` rows the start weighs less than the
last digit of a double. So a block with these rows before its own needs no state.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

MACD_FAST, MACD_SLOW, MACD_SIGNAL = 12, 26, 9
RSI = 14
BOLLINGER, BOLLINGER_WIDTH = 20, 2.0
# Below this the mean gain plus the mean loss has no digits left: RSI is 0, as without a movement.
RSI_LEAST = 1e-280
# Log of a weight that is lost next to 1, even for a price a thousand times the others.
_FORGOTTEN = math.log(2.0**-63)


@dataclass(frozen=True)
class Grid:
    """Points are `step_ms` apart. A hole of more than `max_gap` points cuts the series."""

    step_ms: int
    max_gap: int


@dataclass(frozen=True)
class Points:
    """Points of the grid in the order of time.

    `index` int64 (n,) is the label over the step, `price` float32 (n,) in USD, `imputed` bool (n,),
    `place` int64 (n,) counts the points since the last cut, from 0.
    """

    index: np.ndarray
    price: np.ndarray
    imputed: np.ndarray
    place: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def runs(self, *, at_least: int = 1) -> Iterator[slice]:
        """The runs of points between cuts that have `at_least` so many points."""
        begins = np.flatnonzero(self.place == 0)
        lengths = np.diff(begins, append=len(self))
        for n in np.flatnonzero(lengths >= at_least):
            yield slice(int(begins[n]), int(begins[n] + lengths[n]))


def rows_remembered(windows: Sequence[int]) -> int:
    """The number of rows before a point that its indicators depend on; only drawdown depends on
    the whole run.

    RSI is a ratio of two means, so even very small means count, down to `RSI_LEAST`.
    """
    spans = [*windows, MACD_SLOW]
    exponential = max(math.ceil(_FORGOTTEN / math.log1p(-2 / (span + 1))) for span in spans)
    calm = math.ceil(math.log(RSI_LEAST) / math.log1p(-1 / RSI))
    return max(exponential, calm) + MACD_SIGNAL + max(windows)


def to_points(timestamp: np.ndarray, price: np.ndarray, *, grid: Grid, last_ms: int) -> Points:
    """Observations of any sampling on the grid.

    `timestamp` int64 (n,) ms UTC, unique, in any order; `price` float32 (n,). The point labelled t
    holds the last observation of (t - step, t], nothing later. Up to `max_gap` points without an
    observation carry the price before them; a longer hole has no points and cuts the series. There
    are no points after `last_ms`, the newest observation of the whole series: their price could
    still change.
    """
    order = np.argsort(timestamp, kind="stable")
    bucket = -(-timestamp[order] // grid.step_ms)
    newest = np.flatnonzero(np.diff(bucket, append=np.iinfo(np.int64).max))
    observed, known = bucket[newest], price[order][newest]
    distance = np.diff(observed, prepend=observed[:1] - grid.max_gap - 2)
    cut = distance > grid.max_gap + 1
    count = np.where(cut, 1, distance)
    # Each observation is the last of `count` points; the others carry the price before it.
    ends = np.cumsum(count)
    back = np.repeat(ends, count) - 1 - np.arange(ends[-1] if len(ends) else 0)
    of = np.repeat(np.arange(len(observed)), count)
    imputed = back > 0
    begins = np.maximum.accumulate(np.where(np.repeat(cut, count), np.arange(len(of)), 0))
    points = Points(observed[of] - back, known[of - imputed], imputed, np.arange(len(of)) - begins)
    complete = points.index * grid.step_ms <= last_ms
    return Points(*(values[complete] for values in vars(points).values()))


def highest_of_runs(points: Points) -> np.ndarray:
    """The highest price since the last cut, float64 (n,)."""
    highest = points.price.astype(np.float64)
    for run in points.runs():
        highest[run] = np.maximum.accumulate(highest[run])
    return highest


def highest_of_open_run(
    newest_first: Iterable[tuple[np.ndarray, np.ndarray]], *, grid: Grid, before: int
) -> float:
    """The highest price (USD), before the point `before`, of the run that it continues; 0 without
    such a run.

    Each item holds `timestamp` int64 (n,) ms UTC and `price` float32 (n,) of observations, each
    item older than the one before. The iteration stops at the beginning of the run.
    """
    highest, earliest = 0.0, before
    for timestamp, price in newest_first:
        # Where two items share a bucket, its last observation is in the newer item.
        older = timestamp <= (earliest - 1) * grid.step_ms
        points = to_points(timestamp[older], price[older], grid=grid, last_ms=2**62)
        if not len(points):
            continue
        if points.index[-1] < earliest - grid.max_gap - 1:
            break
        highest = max(highest, float(points.price[-1 - points.place[-1] :].max()))
        earliest = int(points.index[-1 - points.place[-1]])
        if points.place[-1] < len(points) - 1:
            break
    return highest


def indicator_columns(points: Points, *, windows: Sequence[int]) -> dict[str, np.ndarray]:
    """The columns of IndicatorSchema that Spark's windows don't make, except `drawdown`: float64
    (n,), NaN until there are enough points since the last cut."""
    price = points.price.astype(np.float64)
    recursive = [*(f"ema_{span}" for span in windows), "macd", "macd_signal", "rsi_14"]
    columns = {name: np.full(len(points), np.nan) for name in recursive}
    for run in points.runs(at_least=min(*windows, RSI + 1)):
        series = pd.Series(price[run])
        for span in windows:
            columns[f"ema_{span}"][run] = _ema(series, span)
        fast, slow = _ema(series, MACD_FAST), _ema(series, MACD_SLOW)
        columns["macd"][run] = fast - slow
        columns["macd_signal"][run] = _ema(fast - slow, MACD_SIGNAL)
        columns["rsi_14"][run] = relative_strength(price[run])
    mean, squares = rolling_moments(price, BOLLINGER)
    width = BOLLINGER_WIDTH * np.sqrt(squares / BOLLINGER)
    whole = points.place >= BOLLINGER - 1
    columns["bollinger_upper_20"] = np.where(whole, mean + width, np.nan)
    columns["bollinger_lower_20"] = np.where(whole, mean - width, np.nan)
    return columns


def relative_strength(price: np.ndarray) -> np.ndarray:
    """Wilder's RSI of one run: float64 (n,), 0 to 100, NaN for the first 14 points."""
    strength = np.full(len(price), np.nan)
    if len(price) <= RSI:
        return strength
    gain, loss = (_wilder(np.maximum(sign * np.diff(price), 0.0)) for sign in (1, -1))
    moved = gain + loss
    # 0 without any movement, as in TA-Lib.
    strength[RSI:] = np.divide(100 * gain, moved, out=np.zeros_like(moved), where=moved > RSI_LEAST)
    return strength


def _wilder(changes: np.ndarray) -> np.ndarray:
    """The mean of the first 14 changes, then 13/14 of it and a 14th of each change."""
    seeded = np.concatenate([[changes[:RSI].mean()], changes[RSI:]])
    return pd.Series(seeded).ewm(alpha=1 / RSI, adjust=False).mean().to_numpy()


def _ema(series: pd.Series, span: int) -> pd.Series:
    return series.ewm(span=span, adjust=False, min_periods=span).mean()


def rolling_moments(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of the last `width` values, and the sum of their squared distances from it: float64
    (n,), NaN where there are fewer values. A NaN makes only its own windows NaN."""
    mean, squares = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if len(values) < width:
        return mean, squares
    cells = -(-len(values) // width)
    padded = np.full(cells * width, np.nan)
    padded[: len(values)] = values
    columns = padded.reshape(cells, width)
    head_mean, head_squares = _running(columns)
    tail_mean, tail_squares = (side[:, ::-1] for side in _running(columns[:, ::-1]))
    first = np.arange(len(values) - width + 1)
    cell, head = np.divmod(first, width)
    mean_a, squares_a = tail_mean[cell, head], tail_squares[cell, head]
    # A window that begins with a cell ends with it: there is nothing to merge.
    beyond = (np.minimum(cell + 1, cells - 1), np.maximum(head - 1, 0))
    distance = np.where(head, head_mean[beyond] - mean_a, 0.0)
    mean[width - 1 :] = mean_a + distance * (head / width)
    squares[width - 1 :] = (
        squares_a
        + np.where(head, head_squares[beyond], 0.0)
        + distance**2 * (head * (width - head) / width)
    )
    return mean, squares


def _running(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Welford's mean and sum of squares of each row's first 1, 2, … values."""
    mean, squares = np.empty_like(columns), np.zeros_like(columns)
    mean[:, 0] = columns[:, 0]
    squares[:, 0] = 0 * columns[:, 0]
    for n in range(1, columns.shape[1]):
        distance = columns[:, n] - mean[:, n - 1]
        mean[:, n] = mean[:, n - 1] + distance / (n + 1)
        squares[:, n] = squares[:, n - 1] + distance * (columns[:, n] - mean[:, n])
    return mean, squares
