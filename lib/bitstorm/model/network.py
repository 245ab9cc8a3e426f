"""The stacked LSTM of the contract."""

from __future__ import annotations

from typing import Any


def build(
    *, look_back: int, features: int, units: int, dropout: float, learning_rate: float
) -> Any:
    """A compiled Keras model: (n, look_back, features) float32 → (n, 1).

    Input → LSTM → Dropout → LSTM → Dropout → Dense(1); mean squared error, Adam.
    """
    import keras

    network = keras.Sequential(
        [
            keras.Input((look_back, features)),
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.Dropout(dropout),
            keras.layers.LSTM(units),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(1),
        ]
    )
    # XLA makes this network several times slower on a CPU.
    network.compile(optimizer=keras.optimizers.Adam(learning_rate), loss="mse", jit_compile=False)
    return network
