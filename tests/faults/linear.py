"""The smallest network there is: a linear one with dropout, in Keras and in NumPy.

It lets a whole training be struck many times; what it is trained by is all ours. Keras takes a
second for it, and NumPy next to nothing.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np

from bitstorm.model.team import ALONE, Team
from bitstorm.model.torch_backend import TorchNetwork


def seeded(*, seed: int, look_back: int, **_: Any) -> Any:
    """In the place of `network.seeded`."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    network = keras.Sequential(
        [
            keras.Input((look_back, 1), name="window"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dropout(0.1, name="dropout"),
            keras.layers.Dense(1, name="dense"),
        ],
        name="linear",
    )
    network.compile(optimizer=keras.optimizers.Adam(0.02), loss="mse", jit_compile=False)
    network.optimizer.build(network.trainable_variables)
    return network


class Linear:
    """For `loop.fit`. Its state is more than its weights, as any network's: the last step, which
    the next one follows, and the count of steps, which decides on the dropout."""

    library = "numpy"
    save_best = staticmethod(TorchNetwork.save_best)

    def __init__(self, *, seed: int, look_back: int, **_: Any) -> None:
        self._seed, self._steps = seed, np.zeros((), np.int64)
        self._kernel = np.random.default_rng(seed).normal(0, 0.1, look_back).astype(np.float32)
        self._last = np.zeros_like(self._kernel)

    def in_training(self) -> Any:
        return nullcontext()

    def step(self, window: np.ndarray, target: np.ndarray, team: Team = ALONE) -> float:
        kept = np.random.default_rng([self._seed, int(self._steps)]).random(len(self._kernel)) > 0.1
        given = window[:, :, 0] * kept
        error = given @ self._kernel - target
        gradient = (2 * error @ given / len(target)).astype(np.float32)
        self._last = np.float32(0.5) * self._last - np.float32(0.05) * gradient
        self._kernel, self._steps = self._kernel + self._last, self._steps + 1
        return float(error @ error) / len(target)

    def predict(self, window: np.ndarray) -> np.ndarray:
        return window[:, :, 0] @ self._kernel

    def weights(self) -> dict[str, np.ndarray]:
        return {"kernel": self._kernel.copy()}

    def set_weights(self, weights: Any) -> None:
        self._kernel = weights["kernel"].copy()

    def state(self) -> dict[str, np.ndarray]:
        return {**self.weights(), "last": self._last.copy(), "steps": np.array(self._steps)}

    def restore(self, state: Any) -> None:
        self.set_weights(state)
        self._last, self._steps = state["last"].copy(), state["steps"]
