"""A network being fitted, whatever computes it.

The loop in `training`, the checkpoints and the forecasts know a network only by this protocol, so
that one loop serves every backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

Arrays = Mapping[str, "np.ndarray"]


class Learner(Protocol):
    """`window` is float32 (n, look_back, features), `target` float32 (n,); in tensors of the
    backend, or as numpy arrays."""

    # "tensorflow" or "torch".
    backend: str

    def fit_batch(self, window: Any, target: Any) -> Any:
        """One step of the optimiser. The batch's mean squared error before it; may be lazy,
        `float()` of it gives the number."""

    def predict(self, window: Any) -> np.ndarray:
        """float32 (n,), without dropout."""

    def weights(self) -> dict[str, np.ndarray]:
        """Portable: in Keras' layout and order, as `lstm/kernel` (inputs, 4 units; gates i, f, c,
        o), `lstm/recurrent_kernel`, `lstm/bias`, `lstm_1/…`, `dense/kernel`, `dense/bias`."""

    def set_weights(self, weights: Arrays) -> None:
        """Put these in the place of its own; the optimiser stays as it is. Raises ModelError where
        names or shapes are others."""

    def state(self) -> dict[str, np.ndarray]:
        """All that a bit-equal continuation needs: the weights, the optimiser's variables and
        steps, and the state of every random generator."""

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` gave. Raises ModelError where it is of another network."""

    def save_best(self, folder: Path) -> str:
        """Write the weights durably as `best.keras` or `best.npz`; the file's name."""
