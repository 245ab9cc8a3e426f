"""The backends by name: how each fits a network, and with how many threads."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from bitstorm.core.errors import ModelError

if TYPE_CHECKING:
    from bitstorm.core.settings import Training
    from bitstorm.model.training import Fitted, Task

# The file of a run's best weights.
BEST = {"tensorflow": "best.keras", "torch": "best.npz"}


def require(backend: str, *, reason: str) -> None:
    """Raise ModelError, which begins with the reason, where the backend is not installed. Loads
    nothing."""
    if backend != "torch" or sys.modules.get("torch") is not None:
        return
    # `sys.modules["torch"] = None` forbids the import, and find_spec would raise.
    if "torch" in sys.modules or importlib.util.find_spec("torch") is None:
        raise ModelError(
            f"{reason}, but PyTorch is not installed: run scripts/setup --torch or "
            "pip install 'bitstorm[torch]'"
        )


def network_shape(settings: Training, *, features: int, learning_rate: float) -> dict[str, Any]:
    """The options of `network.build`."""
    return {
        "look_back": settings.look_back,
        "features": features,
        "units": settings.units,
        "dropout": settings.dropout,
        "learning_rate": learning_rate,
    }


def fit(backend: str, shape: dict[str, Any], task: Task) -> Fitted:
    """Train a network of this shape (the options of `network.seeded`); see `training.fit`."""
    return fit_network(backend, shape, task)[0]


def fit_network(backend: str, shape: dict[str, Any], task: Task) -> tuple[Fitted, Any]:
    """As `fit`, and the network with its best weights, as `runs.load_network` gives it."""
    if backend == "torch":
        from bitstorm.model import loop

        trained = seeded(backend, shape)
        fitted = loop.fit(trained, task)
        return fitted, lambda window, training=False: trained.predict(window)[:, None]
    from bitstorm.model import network, training

    built = network.seeded(**shape)
    return training.fit(built, task), built


def seeded(backend: str, shape: dict[str, Any]) -> Any:
    """A new network of this shape for `loop.fit`."""
    if backend == "torch":
        from bitstorm.model import torch_backend

        return torch_backend.seeded(**shape)
    from bitstorm.model import network
    from bitstorm.model.keras_network import KerasNetwork

    return KerasNetwork(network.seeded(**shape))


def use_one_thread(backend: str) -> None:
    """Compute with one thread of the CPU until the process ends, so that the results have the same
    bits anywhere. Call it before the backend computes anything."""
    if backend == "torch":
        import torch

        torch.set_num_threads(1)
        return
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")


def threads(backend: str) -> dict[str, int]:
    """The backend's threads by name; TensorFlow's 0 means one a core."""
    if backend == "torch":
        import torch

        return {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads()}
    import tensorflow as tf

    threading = tf.config.threading
    return {
        "intra_op": threading.get_intra_op_parallelism_threads(),
        "inter_op": threading.get_inter_op_parallelism_threads(),
    }
