"""The backends by name: what fits a network, and with how many threads."""

from __future__ import annotations

from bitstorm.model.learner import Learner


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
    assert backend == "tensorflow"
    from bitstorm.model import network

    return network.learner(
        look_back=look_back,
        features=features,
        units=units,
        dropout=dropout,
        learning_rate=learning_rate,
        seed=seed,
    )


def threads(backend: str) -> dict[str, int]:
    """What the backend computes with; 0 stands for as many as there are cores."""
    assert backend == "tensorflow"
    import tensorflow as tf

    threading = tf.config.threading
    return {
        "intra_op": threading.get_intra_op_parallelism_threads(),
        "inter_op": threading.get_inter_op_parallelism_threads(),
    }
