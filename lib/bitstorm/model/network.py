"""The stacked LSTM of the contract, in Keras on TensorFlow, and safe loading of `.keras` files.

A `.keras` file is a ZIP archive with a description of a network. Keras would build that network,
even one with foreign code (a Lambda layer) or other layers. Here only `build` makes networks, and
only the weights of a file are loaded.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm.core import durable_io
from bitstorm.core.errors import ModelError, first_line
from bitstorm.model.checkpoint import Arrays, check_shapes

BEST = "best.keras"
# Keras writes in place, so a killed process leaves an incomplete file under this name.
SCRATCH = f"{durable_io.TEMPORARY}{BEST}"


def build(
    *, look_back: int, features: int, units: int, dropout: float, learning_rate: float
) -> Any:
    """A compiled Keras model: (n, look_back, features) float32 → (n, 1).

    Input → LSTM → Dropout → LSTM → Dropout → Dense(1); mean squared error, Adam. The layers have
    fixed names: Keras' default names count the networks that the process has built.
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
    """A network from `build` whose first weights and dropout follow from the seed alone.

    Sets the seeds of the process, and makes TensorFlow's operations deterministic until the process
    ends.
    """
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    network = build(**settings)
    network.optimizer.build(network.trainable_variables)
    return network


def weights(network: Any) -> dict[str, np.ndarray]:
    """Copies in Keras' layout and order, as `lstm/kernel` (inputs, 4 units; gates i, f, c, o),
    `lstm/recurrent_kernel`, `lstm/bias`, `lstm_1/…`, `dense/kernel`, `dense/bias`."""
    return _copied(_weights(network))


def set_weights(network: Any, values: Arrays) -> None:
    """Replace the weights, not the optimiser's state. Raises ModelError where a name or a shape
    differs."""
    _assign(_weights(network), values)


def state(network: Any) -> dict[str, np.ndarray]:
    """What a continuation to the same bits needs: weights, optimiser, and the random generators,
    which Keras leaves out of its files."""
    return _copied(_state(network))


def restore(network: Any, values: Arrays) -> None:
    """Continue from a `state`. Raises ModelError where it belongs to another network."""
    _assign(_state(network), values)


def reseed(network: Any, entropy: Sequence[int]) -> None:
    """Let the dropout follow from these numbers alone."""
    seeds = _seeds(network)
    drawn = np.random.SeedSequence(entropy).generate_state(len(seeds))
    for variable, value in zip(seeds, drawn, strict=True):
        variable.assign([int(value), 0])


def save(network: Any, folder: Path) -> None:
    """Write `best.keras` durably."""
    network.save(folder / SCRATCH)
    publish(folder)


def publish(folder: Path) -> None:
    """Rename the file with the scratch name to `best.keras`, durably."""
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
    return {
        **{f"weights/{name}": variable for name, variable in _weights(network).items()},
        **{f"optimizer/{i:03d}": v for i, v in enumerate(network.optimizer.variables)},
        **{f"seeds/{i:03d}": v for i, v in enumerate(_seeds(network))},
    }


def _seeds(network: Any) -> list[Any]:
    """The states of the layers' SeedGenerators: their variables that are no weights. The metrics
    have variables, too, but start again with each epoch."""
    known = {id(variable) for variable in _weights(network).values()}
    return [v for layer in network.layers for v in layer.variables if id(v) not in known]


def _copied(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    # Copies, since the next step overwrites the variables.
    return {name: np.array(variable, copy=True) for name, variable in variables.items()}


def _assign(variables: Mapping[str, Any], values: Arrays) -> None:
    """Assign all values, or none where a name or a shape differs."""
    check_shapes(values, variables)
    for name, variable in variables.items():
        variable.assign(values[name])


def load_weights(network: Any, content: bytes) -> None:
    """Load the weights of a `.keras` file, given as bytes; Keras reads nothing else of it. Raises
    ModelError, its text a reason, where they do not fit this network or cannot be read."""
    try:
        # Keras needs a file with this ending.
        with tempfile.TemporaryDirectory(prefix="bitstorm-") as folder:
            path = Path(folder) / "weights.keras"
            path.write_bytes(content)
            network.load_weights(path)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(first_line(error)) from None
