"""A trained network's forecasts as prices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.errors import BrokenOff, ModelError
from bitstorm.model.framing import Batch, Target
from bitstorm.model.scaling import Scaler
from bitstorm.model.supervision import Stop, Supervised, end_overdue
from bitstorm.model.windows import Feed
from bitstorm.quiet import third_party_warnings_hushed

BATCH = 1024


def predict(
    network: Any, feed: Feed, *, scaler: Scaler, target: Target, deadline_seconds: float
) -> pd.DataFrame:
    """One row a window, by time: `timestamp` of the target (int64 ms UTC) and, in double,
    `origin` (the price at the window's end), `forecast`, `actual` (USD).

    Raises ModelError where the network gives no finite number, and BrokenOff where the feed fails
    or stands still for `deadline_seconds`, or a signal came."""
    to_price = _prices(scaler, target)
    pieces: list[pd.DataFrame] = []

    def forecast(batch: Batch) -> pd.DataFrame:
        origin = batch.price.astype(np.float64)
        scaled = np.asarray(network(batch.window, training=False))[:, 0]
        return pd.DataFrame(
            {
                "timestamp": batch.target_timestamp,
                "origin": origin,
                "forecast": to_price(scaled.astype(np.float64), origin),
                "actual": batch.target_price.astype(np.float64),
            }
        )

    stop = Stop()
    drawn = Supervised(feed.batches(batch_size=BATCH), stop=stop, deadline_seconds=deadline_seconds)
    try:
        with third_party_warnings_hushed(), stop.installed(_overdue), drawn as batches:
            pieces.extend(map(forecast, batches))
    except BrokenOff as error:
        raise BrokenOff(_broken_off(str(error))) from error.__cause__
    return pd.concat(pieces, ignore_index=True).sort_values("timestamp", ignore_index=True)


def _broken_off(reason: str) -> str:
    return f"the forecast broke off ({reason}): nothing was written; run `bitstorm forecast` again"


def _overdue(name: str) -> None:
    end_overdue(_broken_off(f"stopped by {name}"))


def predict_one(
    network: Any, window: np.ndarray, *, origin: float, scaler: Scaler, target: Target
) -> float:
    """The forecast price after one scaled window of shape (look_back, features)."""
    scaled = np.asarray(network(window[None].astype(np.float32), training=False))[:, 0]
    to_price = _prices(scaler, target)
    return float(to_price(scaled.astype(np.float64), np.array([origin]))[0])


def _prices(scaler: Scaler, target: Target) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def to_price(scaled: np.ndarray, origin: np.ndarray) -> np.ndarray:
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

    return to_price
