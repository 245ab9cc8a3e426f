"""The prices of an indicators snapshot as one array on the grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bitstorm.model import blocks
from bitstorm.store.snapshots import Snapshot


@dataclass(frozen=True)
class Series:
    """`price` float64 (n,), USD: the observed prices from `first_ms` (ms UTC) on, one a step of the
    grid; NaN in a hole and where the price is imputed."""

    first_ms: int
    step_ms: int
    price: np.ndarray

    @property
    def returns(self) -> np.ndarray:
        """The log returns of one step, float64 (n,); NaN where one of both prices is missing."""
        return np.diff(np.log(self.price), prepend=np.nan)

    def places(self, times_ms: np.ndarray) -> np.ndarray:
        """The indexes of these times of the grid (ms UTC); below 0 before the series."""
        return (times_ms - self.first_ms) // self.step_ms


def read_series(snapshot: Snapshot, *, points: int) -> Series:
    """The series of at most the newest `points` of the snapshot's grid."""
    step_ms = blocks.step_of(snapshot)
    after_ms = blocks.span_of(snapshot)[1] - points * step_ms
    first_ms, price = blocks.observed_prices(snapshot, after_ms=after_ms)
    return Series(first_ms, step_ms, price)
