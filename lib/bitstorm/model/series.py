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
    first_ms, last_ms = blocks.span_of(snapshot)
    step_ms = blocks.step_of(snapshot)
    first_ms = max(first_ms, last_ms - (points - 1) * step_ms)
    price = np.full((last_ms - first_ms) // step_ms + 1, np.nan)
    columns = ["timestamp", "price", "imputed"]
    for table in blocks.tables(snapshot, columns, after_ms=first_ms - step_ms):
        time = table["timestamp"].to_numpy()
        seen = (time >= first_ms) & ~table["imputed"].to_numpy()
        price[(time[seen] - first_ms) // step_ms] = table["price"].to_numpy()[seen]
    return Series(first_ms, step_ms, price)
