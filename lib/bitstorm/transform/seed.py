"""What the end of a series starts from, read off its stored indicators.

Windows of a fixed width see their rows again. What has unbounded memory is taken up where it was:
the exponential means of the windows are stored as they are; the running maximum is the price over
the drawdown + 1, rounded to the float32 that it was; RSI's mean gain and loss come from as many
stored prices as a double can tell from nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitstorm.transform.blocks import SIZE
from bitstorm.transform.indicators import (
    RSI,
    Tail,
    alpha,
    recurrences_of,
    rows_before,
)

if TYPE_CHECKING:
    import pandas as pd

# A double below e^-745 is 0.
_NOTHING = 745.0


def place_before(first: int, *, size: int = SIZE) -> int:
    """The index of the point whose state a tail from the point `first` on starts from."""
    return first // size * size - 1


def prices_from(
    first: int, *, step_ms: int, max_gap: int, windows: Sequence[int], size: int = SIZE
) -> int:
    """Time (ms UTC) of the earliest observation that a tail from the point `first` on needs."""
    earliest = place_before(first, size=size) + 1 - rows_before(windows) - (max_gap + 1)
    return (earliest - 1) * step_ms + 1


def points_needed(windows: Sequence[int]) -> int:
    """So many stored points, the last of them at `place_before`, tell the state there."""
    # Of the windows' own means the value is stored, once the widest is full.
    forgotten = max(_NOTHING / -r.log for r in recurrences_of(()))
    return max(math.ceil(forgotten) + 1, *windows)


def stored_columns(windows: Sequence[int]) -> list[str]:
    """The columns of IndicatorSchema that `tail_of` reads."""
    return ["timestamp", "price", "drawdown", *(f"ema_{w}" for w in windows)]


def tail_of(
    stored: pd.DataFrame, *, first: int, step_ms: int, windows: Sequence[int], size: int = SIZE
) -> Tail | None:
    """The tail from the point `first` on.

    `stored` has `stored_columns`, in the order of time, of at least the last `points_needed` up to
    `place_before`. None where what is stored does not tell the state: then everything has to be
    computed from the beginning.
    """
    import numpy as np

    at, needed = place_before(first, size=size), points_needed(windows)
    index = stored["timestamp"].to_numpy() // step_ms
    seen = (index > at - needed) & (index <= at)
    index = index[seen]
    if len(index) == 0 or index[-1] != at:
        return Tail(first, None)
    jumps = np.flatnonzero(np.diff(index) != 1)
    begins = 0 if len(jumps) == 0 else int(jumps[-1]) + 1
    # Whether the run's first point is among these.
    whole = index[begins] > at - needed + 1
    price = stored["price"].to_numpy()[seen][begins:].astype(np.float64)
    last = stored[seen].iloc[-1]
    age, place = at - index[begins:], np.arange(len(price))

    def from_zero(decay: float, inputs: np.ndarray) -> float:
        return float(np.dot(inputs, decay ** age.astype(np.float64)))

    change = np.diff(price, prepend=price[0])
    state: dict[str, float] = {}
    for span in sorted(set(windows)):
        if whole:
            decay = 1 - alpha(span)
            state[f"lag_{span}"] = from_zero(decay, decay * change)
        else:
            state[f"lag_{span}"] = float(price[-1]) - float(last[f"ema_{span}"])
    decay = 1 - 1 / RSI
    # As the recurrence has it: see `indicators`.
    early = whole & (place < RSI)
    weight = np.where(early, decay ** np.minimum(place - RSI, 0.0), 1.0) / RSI
    state["gain"] = from_zero(decay, np.maximum(change, 0.0) * weight)
    state["loss"] = from_zero(decay, np.maximum(-change, 0.0) * weight)
    peak = float(price.max()) if whole else _peak(float(price[-1]), float(last["drawdown"]))
    return None if peak is None else Tail(first, {**state, "peak": peak})


def _peak(price: float, drawdown: float) -> float | None:
    """The one float32 of which (price - peak) / peak is the drawdown; None where none or several
    are."""
    import numpy as np

    if not drawdown > -1.0:
        return None
    near = np.float32(price / (1.0 + drawdown))
    around = (np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(np.inf)))
    found = [float(peak) for peak in around if (price - float(peak)) / float(peak) == drawdown]
    return found[0] if len(found) == 1 else None
