"""Counter-based random numbers: each is a pure function of (seed, lane, index).

Nothing depends on what was drawn before, so any moment of a simulated market is reached at once.
The mixing is SplitMix64's; NumPy's own generators are left out because their streams may change
from version to version, and a market has to go on where it stopped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def uniform(seed: int, lane: int, index: Ints) -> Floats:
    """Numbers in (0, 1), one for each index; `lane` keeps independent uses apart."""
    start = _mixed_int(_mixed_int(seed & _MASK) ^ (lane * _GOLDEN & _MASK))
    # At least one dimension: NumPy wraps arrays silently but warns about scalars.
    counter = np.atleast_1d(index).astype(np.uint64)
    bits = _mixed(counter * np.uint64(_GOLDEN) + np.uint64(start))
    unit = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return unit.reshape(np.shape(index))


def normal(seed: int, lane: int, index: Ints) -> Floats:
    """Standard normal numbers (Box and Muller), one for each index."""
    radius = np.sqrt(-2.0 * np.log(uniform(seed, 2 * lane, index)))
    return radius * np.cos(2.0 * np.pi * uniform(seed, 2 * lane + 1, index))


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_FIRST)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_SECOND)
    return bits ^ (bits >> np.uint64(31))


def _mixed_int(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * _FIRST) & _MASK
    bits = ((bits ^ (bits >> 27)) * _SECOND) & _MASK
    return bits ^ (bits >> 31)
