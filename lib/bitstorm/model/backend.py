"""The backends by name: what fits a network, and with how many threads."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

from bitstorm.errors import ModelError
from bitstorm.model.learner import Learner
from bitstorm.model.training import Windows
from bitstorm.model.windows import Feed


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


def feed(backend: str, windows: Feed) -> Windows:
    """The feed as the backend's learner takes it: the same windows, in its tensors."""
    if backend == "torch":
        from bitstorm.model.torch_feed import TorchFeed

        return TorchFeed(windows)
    return windows


def learner(
    backend: str,
    *,
    look_back: int,
    features: int,
    units: int,
    dropout: float,
    learning_rate: float,
    seed: int,
) -> Learner:
    """A network before its first step; its weights and its dropout follow from the seed."""
    from bitstorm.model import network, torch_network

    makers: dict[str, Callable[..., Learner]] = {
        "tensorflow": network.learner,
        "torch": torch_network.learner,
    }
    return makers[backend](
        look_back=look_back,
        features=features,
        units=units,
        dropout=dropout,
        learning_rate=learning_rate,
        seed=seed,
    )


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
