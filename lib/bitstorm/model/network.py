"""The stacked LSTM of the contract, in Keras on TensorFlow, and weights out of `.keras` files.

A `.keras` file is a ZIP with a description of a network. Keras would build that network: foreign
code (a Lambda layer), or other layers than ours. Here `build` always makes the network. The file
may hold only what our network's own file holds, and it gives its weights alone.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm.core import durable_io
from bitstorm.core.errors import ModelError, first_line
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


MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}
# Far above any network of ours: what unpacks to more is not one.
_MOST_BYTES = 1 << 30


def load_weights(network: Any, content: bytes) -> None:
    """Put the file's weights into the network. Raises ModelError, its text a reason, where the file
    holds anything that the network's own file would not."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            _check_members(archive)
            _check_config(network, archive.read("config.json"))
        # Keras wants a file with the right ending; this one cannot change after the look at it.
        with tempfile.TemporaryDirectory(prefix="bitstorm-") as folder:
            path = Path(folder) / "weights.keras"
            path.write_bytes(content)
            network.load_weights(path)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(first_line(error)) from None


def _check_members(archive: zipfile.ZipFile) -> None:
    infos = archive.infolist()
    names = [info.filename for info in infos]
    if sorted(names) != sorted(MEMBERS):
        strange = [name for name in names if name not in MEMBERS] or names
        raise ModelError(
            f"it holds {', '.join(repr(name) for name in strange[:3]) or 'nothing'}, expected "
            f"just {', '.join(sorted(MEMBERS))}"
        )
    if sum(info.file_size for info in infos) > _MOST_BYTES:
        raise ModelError("it unpacks to more than a gigabyte")


def _check_config(network: Any, text: bytes) -> None:
    """The layers described are those of our network, setting by setting."""
    described = json.loads(text, object_hook=_unnumbered)
    own = json.loads(network.to_json(), object_hook=_unnumbered)
    ours, theirs = own["config"]["layers"], described["config"]["layers"]
    kinds = [[layer["class_name"] for layer in layers] for layers in (ours, theirs)]
    if kinds[0] != kinds[1]:
        raise ModelError(f"it describes {', '.join(kinds[1])}, expected {', '.join(kinds[0])}")
    if described["class_name"] != own["class_name"] or described["module"] != own["module"]:
        raise ModelError(f"it describes a {described['module']}.{described['class_name']}")
    for mine, other in zip(ours, theirs, strict=True):
        wrong = [key for key in ("module", "registered_name") if mine[key] != other[key]]
        # Another version of Keras may know more settings; what both know has to be the same.
        common = mine["config"].keys() & other["config"].keys()
        wrong += sorted(key for key in common if mine["config"][key] != other["config"][key])
        if wrong:
            raise ModelError(
                f"its layer {mine['config']['name']} has another {wrong[0]} than the run's settings"
            )


def _unnumbered(item: dict[str, Any]) -> dict[str, Any]:
    """Without the addresses of objects, which Keras notes and which differ by process."""
    return {key: value for key, value in item.items() if key != "shared_object_id"}
