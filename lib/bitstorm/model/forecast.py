"""The forecasts of a trained network as prices, and their scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.core.errors import DataError, ModelError
from bitstorm.core.settings import Training
from bitstorm.core.time import DAY_MS, iso
from bitstorm.evaluation import comparison
from bitstorm.model import blocks, runs, windowing
from bitstorm.model.runs import Run
from bitstorm.model.scaling import Scaler
from bitstorm.model.windowing import Split, Target, Windows, WindowSpec
from bitstorm.store.snapshots import Snapshot

# All batches have this size, filled up with zeros: a library may split a matrix product by its
# size, and the last digits of a forecast must not depend on the number of windows.
BATCH = 256


def predict(
    network: Any, groups: Iterable[Windows], *, look_back: int, scaler: Scaler, target: Target
) -> pd.DataFrame:
    """One row a window, in the order of time: `timestamp` of the target (int64, ms UTC) and, as
    float64 in USD, `origin` (the price at the window's end), `forecast` and `actual`.

    Raises ModelError where an output of the network is not finite."""
    pieces = []
    for batch in windowing.batches(groups, look_back=look_back, batch_size=BATCH):
        origin = batch.price.astype(np.float64)
        scaled = _outputs(network, batch.window).astype(np.float64)
        columns = {
            "timestamp": batch.target_timestamp,
            "origin": origin,
            "forecast": _prices(scaled, origin, scaler, target),
            "actual": batch.target_price.astype(np.float64),
        }
        pieces.append(pd.DataFrame(columns))
    if not pieces:
        return pd.DataFrame(columns=["timestamp", "origin", "forecast", "actual"])
    return pd.concat(pieces, ignore_index=True).sort_values("timestamp", ignore_index=True)


def predict_steps(
    network: Any, groups: Iterable[Windows], *, spec: WindowSpec, scaler: Scaler, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The forecasts of steps 1…`steps`, one row a window, in the order of time: the time of the
    window's end (int64 (n,), ms UTC), the price there (float64 (n,), USD), and the log return from
    there to the end of each step (float64 (n, steps)).

    A horizon of 1 with features that follow from the price is repeated: the forecast becomes the
    window's last point, and the window slides. Otherwise the network knows its own step alone: the
    price stays as it is before that step, and as the network forecasts it from there on. Step
    `spec.horizon` has the bits of `predict`: with the target `log_return` its forecast is
    origin · exp(return), with `price` the return is log(forecast / origin).

    Raises ModelError where an output of the network is not finite."""
    pieces = []
    for batch in windowing.batches(groups, look_back=spec.look_back, batch_size=BATCH):
        origin = batch.price.astype(np.float64)
        ends = batch.target_timestamp - spec.horizon * spec.step_ms
        pieces.append((ends, origin, _steps(network, batch.window, origin, spec, scaler, steps)))
    if not pieces:
        return np.empty(0, np.int64), np.empty(0), np.empty((0, steps))
    time, origin, found = map(np.concatenate, zip(*pieces, strict=True))
    order = np.argsort(time, kind="stable")
    return time[order], origin[order], found[order]


def _steps(
    network: Any,
    window: np.ndarray,
    origin: np.ndarray,
    spec: WindowSpec,
    scaler: Scaler,
    steps: int,
) -> np.ndarray:
    """The log returns of `predict_steps` for at most `BATCH` windows."""
    found = np.zeros((len(origin), steps))
    repeated = spec.horizon == 1 and not spec.columns
    so_far, price = np.zeros(len(origin)), origin
    for step in range(spec.horizon, steps + 1):
        outputs = _outputs(network, window).astype(np.float64)
        next_price = _prices(outputs, price, scaler, spec.target)
        by_return = spec.target == "log_return"
        change = scaler.target.back(outputs) if by_return else np.log(next_price / price)
        so_far = so_far + change
        found[:, step - 1 :] = so_far[:, None]
        if not repeated:
            break
        values = {"log_return": change, "price": next_price}
        point = [scaler.features[name].forward(values[name]) for name in spec.features]
        newest = np.stack(point, axis=-1).astype(np.float32)
        window, price = np.concatenate([window[:, 1:], newest[:, None]], axis=1), next_price
    return found


def _outputs(network: Any, window: np.ndarray) -> np.ndarray:
    """The network's outputs for at most `BATCH` windows, float32 (n,)."""
    full = np.zeros((BATCH, *window.shape[1:]), window.dtype)
    full[: len(window)] = window
    # Keras compiles this method: ten times as fast as a call, and the same bits.
    compiled = getattr(network, "predict_on_batch", None)
    outputs = network(full, training=False) if compiled is None else compiled(full)
    return np.asarray(outputs)[: len(window), 0]


def _prices(scaled: np.ndarray, origin: np.ndarray, scaler: Scaler, target: Target) -> np.ndarray:
    value = scaler.target.back(scaled)
    bad = int((~np.isfinite(value)).sum())
    if bad:
        raise ModelError(
            f"the output of the network is not a finite number for {bad} of {len(value)} windows: "
            "train again"
        )
    if target == "log_return":
        return origin * np.exp(value)
    # The output can be below zero, where a price and its log return do not exist.
    return np.maximum(value, origin * 1e-3)


def trained_with(run: Run) -> tuple[Training, Scaler, Split]:
    """The run's settings, scaler and split. Raises ModelError where its record has another form."""
    with runs.record_errors(run):
        scaler, split = Scaler.from_json(run.record["scaler"]), Split(**run.record["split"])
        return runs.settings_of(run), scaler, split


def check_fit(run: Run, snapshot: Snapshot, split: Split) -> None:
    """Raise ModelError or DataError where the run cannot forecast from the snapshot, before
    TensorFlow is loaded."""
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
    snapshot: Snapshot, spec: WindowSpec, scaler: Scaler, *, after_ms: int
) -> Iterator[Windows]:
    """The windows whose targets lie after this time, block by block, in the order of time."""
    reach = (spec.look_back + spec.horizon) * spec.step_ms
    read = blocks.arrays(snapshot, spec, after_ms=after_ms - reach)
    for columns in blocks.from_points(read, spec):
        which = windowing.complete_windows(spec, columns, first=after_ms // spec.step_ms + 1)
        if which.any():
            yield windowing.to_windows(spec, columns, scaler, which)


def newest_window(snapshot: Snapshot, spec: WindowSpec, scaler: Scaler) -> Windows | None:
    """The window that ends at the newest point; None where it is incomplete."""
    _, last = blocks.span_of(snapshot)
    reach = (spec.look_back + 1) * spec.step_ms
    read = blocks.arrays(snapshot, spec, after_ms=last - reach)
    *_, columns = blocks.from_points(read, spec)
    return windowing.newest_window(spec, columns, scaler, index=last // spec.step_ms)


def overview_of(snapshot: Snapshot, *, observations: int | None) -> dict[str, Any]:
    """The span, the numbers of imputed points and cuts, and the latest price with its change over
    24 hours (None where the series is shorter)."""
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


@dataclass(frozen=True)
class Forecasts:
    """A run's forecasts from a snapshot: those of its `validation` and `test` part, as by
    `predict`, and `path` float64 (H,): the log returns from the newest point to steps 1…H; NaN
    where no complete window ends there."""

    run: Run
    settings: Training
    validation: pd.DataFrame
    test: pd.DataFrame
    path: np.ndarray

    def log_returns(self) -> pd.DataFrame:
        """`actual` and `forecast` of the test part by the time of the outcome (ms UTC)."""
        test = self.test.set_index("timestamp")
        return np.log(test[["actual", "forecast"]].div(test["origin"], axis=0))


def forecasts_of(run: Run, snapshot: Snapshot, *, steps: int) -> Forecasts:
    """All forecasts of a run. The backend's library is loaded already. Raises ModelError where the
    run does not fit to the snapshot, and DataError where there are too few points."""
    settings, scaler, split = trained_with(run)
    network = runs.load_network(run)
    spec = blocks.spec_of(snapshot, settings, run.record["features"])
    windows = windows_after(snapshot, spec, scaler, after_ms=split.train_until_ms)
    found = predict(network, windows, look_back=spec.look_back, scaler=scaler, target=spec.target)
    if found.empty:
        raise DataError("there is no complete window after the training part: collect more")
    validation, test = validation_and_test(found, split, run.name)
    path = np.full(steps, np.nan)
    # None where a cut is near the end of the series.
    newest = newest_window(snapshot, spec, scaler)
    if newest is not None:
        *_, paths = predict_steps(network, [newest], spec=spec, scaler=scaler, steps=steps)
        path = paths[0]
    return Forecasts(run, settings, validation, test, path)


def scores(test: pd.DataFrame, table: pd.DataFrame, *, level: float) -> dict[str, Any]:
    """The test part's span, the errors of model and persistence, and the interval's coverage."""
    columns = ("forecast", "actual", "origin")
    return {
        "test": {
            "first": iso(int(test["timestamp"].iloc[0])),
            "last": iso(int(test["timestamp"].iloc[-1])),
            "windows": len(test),
        },
        **comparison.compare(**{name: test[name].to_numpy() for name in columns}),
        "interval": {
            "level": level,
            "coverage": comparison.coverage(
                **{name: table[name].to_numpy() for name in ("actual", "lower", "upper")}
            ),
        },
    }


def table_of(test: pd.DataFrame, half_width: np.ndarray) -> pd.DataFrame:
    """The rows of `forecast.csv`: times in Unix ms UTC, prices in the workspace's currency.

    `half_width` float64 (n,): the half-width of each row's interval, in log return.
    """
    return pd.DataFrame(
        {
            "timestamp": test["timestamp"],
            "actual": test["actual"],
            "forecast": test["forecast"],
            "persistence": test["origin"],
            "lower": test["forecast"] * np.exp(-half_width),
            "upper": test["forecast"] * np.exp(half_width),
            "actual_log_return": np.log(test["actual"] / test["origin"]),
            "forecast_log_return": np.log(test["forecast"] / test["origin"]),
        }
    )


def validation_and_test(
    found: pd.DataFrame, split: Split, run: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The forecasts of the validation part, and all later ones: the test part. Raises DataError
    where either is empty."""
    validation = found[found["timestamp"] <= split.validate_until_ms]
    test = found[found["timestamp"] > split.validate_until_ms].reset_index(drop=True)
    if test.empty or validation.empty:
        raise DataError(
            f"found {len(validation)} windows in the validation part of run {run} and "
            f"{len(test)} after its end at {iso(split.validate_until_ms)}, expected some in each: "
            "train again"
        )
    return validation, test
