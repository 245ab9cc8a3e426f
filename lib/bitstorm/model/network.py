"""The stacked LSTM of the contract, in Keras on TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm.core import durable_io
from bitstorm.model.checkpoint import Arrays, check_shapes

BEST = "best.keras"
# Keras writes in place: what a kill leaves half written must not count.
SCRATCH = f"{durable_io.TEMPORARY}{BEST}"


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


def seeded(*, seed: int, **settings: Any) -> Any:
    """A network by `build` whose weights, and whose dropout, follow from the seed alone.

    Sets the seeds of the process, and TensorFlow to deterministic operations, which a process can
    only do for good.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    network = build(**settings)
    network.optimizer.build(network.trainable_variables)
    return network


def weights(network: Any) -> dict[str, np.ndarray]:
    """In Keras' layout and order, as `lstm/kernel` (inputs, 4 units; gates i, f, c, o),
    `lstm/recurrent_kernel`, `lstm/bias`, `lstm_1/…`, `dense/kernel`, `dense/bias`."""
    return _copied(_weights(network))


def set_weights(network: Any, values: Arrays) -> None:
    """Put these in the place of its own; the optimiser stays as it is. Raises ModelError where
    names or shapes are others."""
    _assign(_weights(network), values)


def state(network: Any) -> dict[str, np.ndarray]:
    """All that a bit-equal continuation needs: weights, optimiser, and what Keras leaves out of
    its files, the random generators."""
    return _copied(_state(network))


def restore(network: Any, values: Arrays) -> None:
    """Go on from what `state` gave. Raises ModelError where it is of another network."""
    _assign(_state(network), values)


def save(network: Any, folder: Path) -> None:
    """Write `best.keras` durably."""
    network.save(folder / SCRATCH)
    publish(folder)


def publish(folder: Path) -> None:
    """Make what was saved under the scratch name `best.keras`, at one moment, durably."""
    durable_io.sync_file(folder / SCRATCH)
    (folder / SCRATCH).replace(folder / BEST)
    durable_io.sync_folder(folder)


def _weights(network: Any) -> dict[str, Any]:
    return {
        f"{layer.name}/{variable.name}": variable
        for layer in network.layers
        for variable in layer.weights
    }


def _state(network: Any) -> dict[str, Any]:
    own = _weights(network)
    known = {id(variable) for variable in own.values()}
    # A network's variables are its weights and the states of its SeedGenerators; its metrics'
    # begin anew with each epoch.
    seeds = [
        variable
        for layer in network.layers
        for variable in layer.variables
        if id(variable) not in known
    ]
    return {
        **{f"weights/{name}": variable for name, variable in own.items()},
        **{f"optimizer/{i:03d}": v for i, v in enumerate(network.optimizer.variables)},
        **{f"seeds/{i:03d}": v for i, v in enumerate(seeds)},
    }


def _copied(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    # Not a view of what the next step overwrites.
    return {name: np.array(variable, copy=True) for name, variable in variables.items()}


def _assign(variables: Mapping[str, Any], values: Arrays) -> None:
    """All or nothing: names and shapes are compared before the first is assigned."""
    check_shapes(values, variables)
    for name, variable in variables.items():
        variable.assign(values[name])
