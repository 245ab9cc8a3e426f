"""The backends by name: what fits a network, and with how many threads."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from bitstorm.core.errors import ModelError

if TYPE_CHECKING:
    from bitstorm.model.training import Fitted

# What a run's record calls the file of its best weights.
BEST = {"tensorflow": "best.keras", "torch": "best.npz"}


def require(backend: str, *, reason: str) -> None:
    """Raise ModelError, with the reason for wanting it, where the backend is not installed. Loads
    nothing."""
    if backend != "torch" or sys.modules.get("torch") is not None:
        return
    # A module that is barred from being imported has no spec to be found.
    if "torch" in sys.modules or importlib.util.find_spec("torch") is None:
        raise ModelError(
            f"{reason}, but PyTorch is not installed: run scripts/setup --torch or "
            "pip install 'bitstorm[torch]'"
        )


def fit(backend: str, shape: dict[str, Any], **wanted: Any) -> Fitted:
    """Train a network of this shape (as `network.seeded` takes it); see `training.fit`."""
    if backend == "torch":
        from bitstorm.model import torch_backend

        return torch_backend.fit(torch_backend.seeded(**shape), **wanted)
    from bitstorm.model import network, training

    return training.fit(network.seeded(**shape), **wanted)


def threads(backend: str) -> dict[str, int]:
    """What the backend computes with; TensorFlow's 0 stands for as many as there are cores."""
    if backend == "torch":
        import torch

        return {"intra_op": torch.get_num_threads(), "inter_op": torch.get_num_interop_threads()}
    import tensorflow as tf

    threading = tf.config.threading
    return {
        "intra_op": threading.get_intra_op_parallelism_threads(),
        "inter_op": threading.get_inter_op_parallelism_threads(),
    }
