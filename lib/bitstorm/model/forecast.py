"""A trained network's forecasts as prices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.core.errors import ModelError
from bitstorm.model import windowing
from bitstorm.model.scaling import Scaler
from bitstorm.model.windowing import Framed, Target

# Always so many windows at once: a library may split a product of matrices by their size, and a
# window's forecast must not depend, in its last digits, on how many others there are.
BATCH = 256


def predict(
    network: Any, groups: Iterable[Framed], *, look_back: int, scaler: Scaler, target: Target
) -> pd.DataFrame:
    """One row a window, by time: `timestamp` of the target (int64 ms UTC) and, in double,
    `origin` (the price at the window's end), `forecast`, `actual` (USD).

    Raises ModelError where the network gives no finite number."""
    pieces = []
    for batch in windowing.batches(groups, look_back=look_back, batch_size=BATCH):
        origin = batch.price.astype(np.float64)
        scaled = _predicted(network, batch.window)
        pieces.append(
            pd.DataFrame(
                {
                    "timestamp": batch.target_timestamp,
                    "origin": origin,
                    "forecast": _prices(scaled.astype(np.float64), origin, scaler, target),
                    "actual": batch.target_price.astype(np.float64),
                }
            )
        )
    if not pieces:
        return pd.DataFrame(columns=["timestamp", "origin", "forecast", "actual"])
    return pd.concat(pieces, ignore_index=True).sort_values("timestamp", ignore_index=True)


def _predicted(network: Any, window: np.ndarray) -> np.ndarray:
    """The network's number for each of at most `BATCH` windows, float32 (n,)."""
    full = np.zeros((BATCH, *window.shape[1:]), window.dtype)
    full[: len(window)] = window
    return np.asarray(network(full, training=False))[: len(window), 0]


def _prices(scaled: np.ndarray, origin: np.ndarray, scaler: Scaler, target: Target) -> np.ndarray:
    value = scaler.target.back(scaled)
    if not np.isfinite(value).all():
        raise ModelError(
            f"the network gave no finite number for {int((~np.isfinite(value)).sum())} of "
            f"{len(value)} windows: train again"
        )
    if target == "log_return":
        return origin * np.exp(value)
    # A price network may go below zero; a price can't, nor can its log return be computed.
    return np.maximum(value, origin * 1e-3)
