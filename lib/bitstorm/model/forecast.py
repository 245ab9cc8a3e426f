"""Forecasts of a trained network as prices, and the data that they are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.core.config import Training
from bitstorm.core.errors import DataError, ModelError
from bitstorm.core.time import DAY_MS, iso
from bitstorm.model import blocks, evaluation, runs, windowing
from bitstorm.model.evaluation import Interval
from bitstorm.model.runs import Run
from bitstorm.model.scaling import Scaler
from bitstorm.model.windowing import Frame, Framed, Split, Target
from bitstorm.store.snapshots import Snapshot

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


def recalled(run: Run) -> tuple[Training, Scaler, Split]:
    """What the run was trained with. Raises ModelError where its record says it otherwise."""
    with runs.readable(run):
        return (
            runs.settings_of(run),
            Scaler.from_json(run.record["scaler"]),
            Split(**run.record["split"]),
        )


def check_fit(run: Run, snapshot: Snapshot, split: Split) -> None:
    """Refuse what the run cannot forecast, before TensorFlow takes its time."""
    trained, found = run.record["frequency"], snapshot.manifest.details["frequency"]
    if trained != found:
        raise ModelError(
            f"run {run.name} was trained on steps of {trained}, but the indicators have steps of "
            f"{found}: train again, or set grid.frequency={trained} and run `bitstorm indicators`"
        )
    missing = set(run.record["features"]) - set(blocks.numeric_columns(snapshot))
    if missing:
        raise ModelError(
            f"run {run.name} was trained on {', '.join(sorted(missing))}, which the indicators "
            "don't have: train again, or compute them with the run's indicators.windows"
        )
    last_ms = blocks.span_of(snapshot)[1]
    if last_ms <= split.validate_until_ms:
        raise DataError(
            f"the indicators end at {iso(last_ms)}, expected points after "
            f"{iso(split.validate_until_ms)}, where the test part of run {run.name} begins: "
            "collect more, or train again"
        )


def windows_after(
    snapshot: Snapshot, frame: Frame, scaler: Scaler, *, after_ms: int
) -> Iterator[Framed]:
    """The windows whose target lies after this time, by time, a block at a time."""
    reach = (frame.look_back + frame.horizon) * frame.step_ms
    read = blocks.arrays(snapshot, frame, after_ms=after_ms - reach)
    for columns in blocks.from_points(read, frame):
        which = windowing.whole(frame, columns, first=after_ms // frame.step_ms + 1)
        if which.any():
            yield windowing.framed(frame, columns, scaler, which)


def newest_window(snapshot: Snapshot, frame: Frame, scaler: Scaler) -> Framed | None:
    """The window that ends at the newest point; None where it is not whole."""
    _, last = blocks.span_of(snapshot)
    reach = (frame.look_back + 1) * frame.step_ms
    read = blocks.arrays(snapshot, frame, after_ms=last - reach)
    *_, columns = blocks.from_points(read, frame)
    return windowing.newest(frame, columns, scaler, index=last // frame.step_ms)


def overview_of(snapshot: Snapshot, *, observations: int | None) -> dict[str, Any]:
    """Span, imputed points, cuts of the series, and the latest price with its change over 24 hours
    (None where the series is younger)."""
    first_ms, last_ms = blocks.span_of(snapshot)
    step = blocks.step_of(snapshot)
    imputed, cuts, latest, time_before = 0, 0, math.nan, first_ms - step
    before: float | None = None
    for table in blocks.tables(snapshot, ["timestamp", "price", "imputed"]):
        time, price = table["timestamp"].to_numpy(), table["price"].to_numpy()
        imputed += int(table["imputed"].to_numpy().sum())
        cuts += int((np.diff(time, prepend=time_before) != step).sum())
        earlier = price[time <= last_ms - DAY_MS]
        before = float(earlier[-1]) if len(earlier) else before
        latest, time_before = float(price[-1]), int(time[-1])
    change = None if before is None else 100 * (latest / before - 1)
    return {
        "span": {
            "first": iso(first_ms),
            "last": iso(last_ms),
            "rows": observations,
            "grid_points": snapshot.manifest.rows,
            "imputed": imputed,
            "cuts": cuts,
        },
        "latest": {"time": iso(last_ms), "price": latest, "change_24h_percent": change},
    }


def scores(
    test: pd.DataFrame, table: pd.DataFrame, band: Interval, *, horizon: int
) -> dict[str, Any]:
    """The test part's span, its errors beside persistence's, and how often the interval held."""
    return {
        "test": {
            "first": iso(int(test["timestamp"].iloc[0])),
            "last": iso(int(test["timestamp"].iloc[-1])),
            "windows": len(test),
        },
        **evaluation.compare(
            forecast=test["forecast"].to_numpy(),
            actual=test["actual"].to_numpy(),
            origin=test["origin"].to_numpy(),
            horizon=horizon,
        ),
        "interval": {
            "level": band.level,
            "coverage": evaluation.coverage(
                actual=table["actual"].to_numpy(),
                lower=table["lower"].to_numpy(),
                upper=table["upper"].to_numpy(),
            ),
        },
    }


def table_of(test: pd.DataFrame, band: Interval) -> pd.DataFrame:
    """The rows of `forecast.csv`: times in Unix ms UTC, prices in the currency."""
    lower, upper = band.around(test["forecast"].to_numpy())
    return pd.DataFrame(
        {
            "timestamp": test["timestamp"],
            "actual": test["actual"],
            "forecast": test["forecast"],
            "persistence": test["origin"],
            "lower": lower,
            "upper": upper,
            "actual_log_return": np.log(test["actual"] / test["origin"]),
            "forecast_log_return": np.log(test["forecast"] / test["origin"]),
        }
    )


def validation_and_test(
    found: pd.DataFrame, split: Split, run: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The forecasts of the validation part and of all after it. Raises DataError where either has
    none."""
    validation = found[found["timestamp"] <= split.validate_until_ms]
    test = found[found["timestamp"] > split.validate_until_ms].reset_index(drop=True)
    if test.empty or validation.empty:
        raise DataError(
            f"found {len(validation)} windows in the validation part of run {run} and "
            f"{len(test)} after its end at {iso(split.validate_until_ms)}, expected some in each: "
            "train again"
        )
    return validation, test
