"""A long series as levels of detail: the least and the greatest value of each bucket.

Level 0 has the newest MOST points of the grid as they are. In each next level a bucket is FACTOR
times as wide; it has the newest MOST buckets, too. The last level covers all. So a chart that shows
the fitting level shows every extreme, and the whole page stays small.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MOST, FACTOR = 10_240, 4


@dataclass(frozen=True)
class Level:
    """`width` points of the grid a bucket; bucket i has the points with the indexes from
    `width * (first + i)` on. `low` and `high` float32 (columns, count), NaN for an empty bucket;
    both are one array where the width is 1."""

    width: int
    first: int
    low: np.ndarray
    high: np.ndarray

    @property
    def count(self) -> int:
        """The number of buckets."""
        return int(self.low.shape[1])

    def to_bytes(self) -> bytes:
        """Little-endian float32, column after column: the values, or the minima and then the
        maxima."""
        parts = [self.low] if self.width == 1 else [self.low, self.high]
        return np.stack(parts, axis=1).astype("<f4").tobytes()

    def _add(self, start: int, low: np.ndarray, high: np.ndarray) -> None:
        """Count in the values float32 (columns, n) of the buckets from `start` on."""
        before = max(0, self.first - start)
        own = slice(max(0, start - self.first), max(0, start - self.first + low.shape[1]))
        self.low[:, own] = np.fmin(self.low[:, own], low[:, before:])
        if self.width > 1:
            self.high[:, own] = np.fmax(self.high[:, own], high[:, before:])


def levels(
    pieces: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    first: int,
    last: int,
    columns: int,
    most: int = MOST,
) -> list[Level]:
    """The levels of a series on the grid, the finest first.

    `pieces` have indexes int64 (n,), ascending from piece to piece and each once, and the values
    float (columns, n), NaN where there is none. All indexes lie in `first` … `last`. Memory holds
    one piece, as a grid without holes, and the levels.
    """
    found = _empty(first, last, columns, most)
    for index, values in pieces:
        if not len(index):
            continue
        start = int(index[0])
        low = high = np.full((columns, int(index[-1]) - start + 1), np.nan, np.float32)
        low[:, index - start] = values
        for level in found:
            if level.width > 1:
                start, low, high = _merged(start, low, high)
            level._add(start, low, high)
    return found


def _empty(first: int, last: int, columns: int, most: int) -> list[Level]:
    """The levels without values."""
    found, width = [], 1
    while True:
        begin, end = first // width, last // width
        start = max(begin, end - most + 1)
        low = np.full((columns, end - start + 1), np.nan, np.float32)
        found.append(Level(width, start, low, low if width == 1 else low.copy()))
        if start == begin:
            return found
        width *= FACTOR


def _merged(start: int, low: np.ndarray, high: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """The first of the buckets FACTOR times as wide, and their extremes; NaN counts for nothing."""
    front = start % FACTOR
    back = -(front + low.shape[1]) % FACTOR
    low, high = (
        np.pad(values, ((0, 0), (front, back)), constant_values=np.nan) for values in (low, high)
    )
    # Far faster than a reduction over groups of four.
    least, greatest = low[:, ::FACTOR], high[:, ::FACTOR]
    for place in range(1, FACTOR):
        least = np.fmin(least, low[:, place::FACTOR])
        greatest = np.fmax(greatest, high[:, place::FACTOR])
    return start // FACTOR, least, greatest
