"""The smallest network there is, in Keras: a linear one with dropout, that learns in a second.

It lets a whole training by Keras be struck many times; what it is trained by is all ours.
"""

from __future__ import annotations

from typing import Any


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
