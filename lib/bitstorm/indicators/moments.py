"""Mean and spread of trailing windows in numpy, without a subtraction that loses digits.

The series is cut into cells of one window's length. Welford's sums run forward and backward inside
each cell, so that every window is the end of one cell and the beginning of the next, merged by
Chan's formula. (The cells are those of M. van Herk, "A fast algorithm for local minimum and maximum
filters", 1992; the merge is of T. F. Chan, G. H. Golub and R. J. LeVeque, 1979.)
"""

from __future__ import annotations

import numpy as np


def rolling_moments(values: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each window of the last `width` values, and the sum of their squared distances
    from it: float64 (n,), NaN where there are fewer values. A value that is NaN makes its windows
    NaN, and no others."""
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
    apart = np.where(head, head_mean[beyond] - mean_a, 0.0)
    mean[width - 1 :] = mean_a + apart * (head / width)
    squares[width - 1 :] = (
        squares_a
        + np.where(head, head_squares[beyond], 0.0)
        + apart**2 * (head * (width - head) / width)
    )
    return mean, squares


def _running(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Welford's mean and sum of squares of each row's first 1, 2, … values."""
    mean, squares = np.empty_like(columns), np.zeros_like(columns)
    mean[:, 0] = columns[:, 0]
    squares[:, 0] = 0 * columns[:, 0]
    for n in range(1, columns.shape[1]):
        apart = columns[:, n] - mean[:, n - 1]
        mean[:, n] = mean[:, n - 1] + apart / (n + 1)
        squares[:, n] = squares[:, n - 1] + apart * (columns[:, n] - mean[:, n])
    return mean, squares
