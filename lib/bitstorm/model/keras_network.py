"""Keras' network with the methods of `TorchNetwork`, for workers that train together.

Keras' own `fit` knows one worker. A step here computes the same loss and gradients, adds up those
of all workers, and applies the network's own optimiser.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm.model import network
from bitstorm.model.checkpoint import Arrays
from bitstorm.model.team import ALONE, Team


class KerasNetwork:
    """A model from `network.seeded`; arrays as for `TorchNetwork`."""

    library = "tensorflow"

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        self._model, trained = model, model.trainable_variables
        window = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        target, count = tf.TensorSpec((None,), tf.float32), tf.TensorSpec((), tf.float32)

        @tf.function(input_signature=[window, target, count], autograph=False)
        def gradients(window: Any, target: Any, count: Any) -> Any:
            with tf.GradientTape() as tape:
                errors = model(window, training=True)[:, 0] - target
                loss = tf.reduce_sum(tf.square(errors)) / count
            return loss, tape.gradient(loss, trained)

        @tf.function(
            input_signature=[[tf.TensorSpec(v.shape, tf.float32) for v in trained]], autograph=False
        )
        def apply(gradients: Any) -> None:
            model.optimizer.apply(gradients, trained)

        @tf.function(input_signature=[window], autograph=False)
        def predict(window: Any) -> Any:
            return model(window, training=False)[:, 0]

        self._gradients, self._apply, self._predict = gradients, apply, predict

    def in_training(self) -> AbstractContextManager[None]:
        """Call `step` in this block."""
        return nullcontext()

    def reseed(self, entropy: Sequence[int]) -> None:
        """Let the dropout follow from these numbers alone."""
        network.reseed(self._model, entropy)

    def step(self, window: np.ndarray, target: np.ndarray, team: Team = ALONE) -> float:
        """As `TorchNetwork.step`."""
        share, count = team.share(len(target)), np.float32(len(target))
        loss, found = self._gradients(window[share], target[share], count)
        gradients = [np.array(values) for values in found]
        whole = team.add(gradients, float(loss))
        self._apply(gradients)
        return whole

    def predict(self, window: np.ndarray) -> np.ndarray:
        """The network's output, float32 (n,), without dropout."""
        return np.asarray(self._predict(window))

    def weights(self) -> dict[str, np.ndarray]:
        """As `network.weights`."""
        return network.weights(self._model)

    def set_weights(self, weights: Arrays) -> None:
        """As `network.set_weights`."""
        network.set_weights(self._model, weights)

    def state(self) -> dict[str, np.ndarray]:
        """As `network.state`."""
        return network.state(self._model)

    def restore(self, state: Arrays) -> None:
        """As `network.restore`."""
        network.restore(self._model, state)

    def save_best(self, folder: Path, weights: Arrays) -> None:
        """Write `best.keras` durably; the network has these weights afterwards."""
        self.set_weights(weights)
        network.save(self._model, folder)
