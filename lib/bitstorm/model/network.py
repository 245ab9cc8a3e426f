"""The stacked LSTM of the contract, in Keras on TensorFlow."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm import filesystem
from bitstorm.errors import BrokenOff, ModelError
from bitstorm.model.learner import Arrays

BEST = "best.keras"


def build(
    *, look_back: int, features: int, units: int, dropout: float, learning_rate: float
) -> Any:
    """A compiled Keras model: (n, look_back, features) float32 → (n, 1).

    Input → LSTM → Dropout → LSTM → Dropout → Dense(1); mean squared error, Adam. The layers have
    names of their own: Keras would count on from the networks built before in the process.
    """
    import keras

    network = keras.Sequential(
        [
            keras.Input((look_back, features), name="window"),
            keras.layers.LSTM(units, return_sequences=True, name="lstm"),
            keras.layers.Dropout(dropout, name="dropout"),
            keras.layers.LSTM(units, name="lstm_1"),
            keras.layers.Dropout(dropout, name="dropout_1"),
            keras.layers.Dense(1, name="dense"),
        ],
        name="bitstorm",
    )
    # XLA makes this network several times slower on a CPU.
    network.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="mse", jit_compile=False)
    return network


def learner(
    *,
    look_back: int,
    features: int,
    units: int,
    dropout: float,
    learning_rate: float,
    seed: int,
) -> KerasLearner:
    """A network whose weights, and whose dropout, follow from the seed alone.

    Sets the seeds of the process, and TensorFlow to deterministic operations, which a process can
    only do for good.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    return KerasLearner(
        build(
            look_back=look_back,
            features=features,
            units=units,
            dropout=dropout,
            learning_rate=learning_rate,
        )
    )


class KerasLearner:
    """A `Learner` (see there) of a network by `build`."""

    backend = "tensorflow"

    def __init__(self, network: Any) -> None:
        import tensorflow as tf

        self.network = network
        _, look_back, features = network.input_shape
        # The batches differ in length at the end of an epoch: one graph serves them all.
        window = tf.TensorSpec((None, look_back, features), tf.float32)
        target = tf.TensorSpec((None,), tf.float32)
        network.optimizer.build(network.trainable_variables)
        self._step = tf.function(self._stepped, input_signature=(window, target))
        self._said = tf.function(
            lambda given: network(given, training=False)[:, 0], input_signature=(window,)
        )

    def _stepped(self, window: Any, target: Any) -> Any:
        import tensorflow as tf

        variables = self.network.trainable_variables
        with tf.GradientTape() as tape:
            said = self.network(window, training=True)[:, 0]
            loss = tf.reduce_mean(tf.square(said - target))
        self.network.optimizer.apply(tape.gradient(loss, variables), variables)
        return loss

    def fit_batch(self, window: Any, target: Any) -> Any:
        return self._step(window, target)

    def predict(self, window: Any) -> np.ndarray:
        return np.asarray(self._said(window))

    def weights(self) -> dict[str, np.ndarray]:
        return _copied(self._weights())

    def set_weights(self, weights: Arrays) -> None:
        _assign(self._weights(), weights)

    def state(self) -> dict[str, np.ndarray]:
        return _copied(self._state())

    def restore(self, state: Arrays) -> None:
        _assign(self._state(), state)

    def save_best(self, folder: Path) -> str:
        filesystem.replace(folder / BEST, self._file())
        return BEST

    def _file(self) -> bytes:
        """As Keras writes it: into a file with the right ending, so into one beside."""
        try:
            with tempfile.TemporaryDirectory(prefix="bitstorm-") as scratch:
                whole = Path(scratch) / BEST
                self.network.save(whole)
                return whole.read_bytes()
        except (OSError, RuntimeError) as error:
            # h5py says RuntimeError where it cannot write.
            lines = str(error).splitlines() or [type(error).__name__]
            raise BrokenOff(
                "the network's file cannot be written to the folder for temporary files "
                f"({getattr(error, 'strerror', None) or lines[0]}): make room there, or set TMPDIR"
            ) from error

    def _weights(self) -> dict[str, Any]:
        return {
            f"{layer.name}/{variable.name}": variable
            for layer in self.network.layers
            for variable in layer.weights
        }

    def _state(self) -> dict[str, Any]:
        """Weights, optimiser, and what Keras leaves out of its files: the random generators."""
        weights = self._weights()
        known = {id(variable) for variable in weights.values()}
        # A network's variables are its weights and the states of its SeedGenerators.
        seeds = [v for v in self.network.variables if id(v) not in known]
        return {
            **{f"weights/{name}": variable for name, variable in weights.items()},
            **{f"optimizer/{i:03d}": v for i, v in enumerate(self.network.optimizer.variables)},
            **{f"seeds/{i:03d}": v for i, v in enumerate(seeds)},
        }


def _copied(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    # Not a view of what the next step overwrites.
    return {name: np.array(variable, copy=True) for name, variable in variables.items()}


def _assign(variables: Mapping[str, Any], values: Arrays) -> None:
    """All or nothing: names and shapes are compared before the first is assigned."""
    expected = {name: tuple(variable.shape) for name, variable in variables.items()}
    found = {name: tuple(np.shape(value)) for name, value in values.items()}
    if expected != found:
        wrong = sorted(
            name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)
        )
        raise ModelError(
            f"these are the weights of another network: {wrong[0]} is "
            f"{found.get(wrong[0], 'not there')}, expected {expected.get(wrong[0], 'none')}: "
            "train again"
        )
    for name, variable in variables.items():
        variable.assign(values[name])
