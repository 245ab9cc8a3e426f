"""`forecast`: the newest run on the newest indicators → `forecast.csv` and `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.context import Context
from bitstorm.core import durable_io
from bitstorm.core.config import Training
from bitstorm.core.errors import DataError, ModelError
from bitstorm.core.time import DAY_MS, iso
from bitstorm.model import blocks, evaluation, points, runs, windowing
from bitstorm.model import forecast as forecasts
from bitstorm.model.evaluation import Interval
from bitstorm.model.runs import Run
from bitstorm.model.scaling import Scaler
from bitstorm.model.split import Split
from bitstorm.model.windowing import Frame, Framed
from bitstorm.report.series import FORECAST_COLUMNS
from bitstorm.report.summary import write_metrics
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot


@dataclass(frozen=True)
class Forecast:
    """Where the results lie, and `metrics` as written."""

    metrics: dict[str, Any]
    forecast_csv: str
    metrics_json: str


def forecast(context: Context, *, run: str | None = None) -> Forecast:
    """Forecast the test part and the next step, and hold the former against persistence.

    Everything after the run's validation part is its test part, however new. The next step's
    numbers are NaN (null in the file) where the newest point ends no whole window.
    """
    chosen = runs.newest(context.workspace.checkpoints, name=run, damaged=context.console.warn)
    snapshot = snapshots.required(context.workspace.indicators, snapshot=context.snapshot)
    snapshots.check_content(snapshot)
    settings, scaler, split = _recalled(chosen)
    _check_fit(chosen, snapshot, split)
    context.load_tensorflow()
    network = runs.load_network(chosen)
    frame = points.frame_of(snapshot, settings, chosen.record["features"])

    def predicted(windows: Iterable[Framed]) -> pd.DataFrame:
        return forecasts.predict(
            network,
            windows,
            look_back=settings.look_back,
            scaler=scaler,
            target=settings.target,
        )

    found = predicted(_windows(snapshot, frame, scaler, after_ms=split.train_until_ms))
    if found.empty:
        raise DataError("there is no whole window after the training part: collect more")
    # None when the series was cut a moment ago: then there is no forecast from now.
    newest = _newest(snapshot, frame, scaler)
    prices = snapshots.known(context.workspace.prices, snapshot.manifest.details["prices"])
    overview = _overview(snapshot, observations=None if prices is None else prices.manifest.rows)
    validation = found[found["timestamp"] <= split.validate_until_ms]
    test = found[found["timestamp"] > split.validate_until_ms].reset_index(drop=True)
    if test.empty or validation.empty:
        raise DataError(
            f"found {len(validation)} windows in the validation part of run {chosen.name} and "
            f"{len(test)} after its end at {iso(split.validate_until_ms)}, expected some in each: "
            "train again"
        )
    residuals = np.log(validation["actual"].to_numpy() / validation["forecast"].to_numpy())
    band = evaluation.interval(residuals, level=context.settings.forecast.level)
    table = _table(test, band)
    following = math.nan if newest is None else float(predicted([newest])["forecast"].iloc[0])
    lower, upper = band.around(np.array([following]))
    bound = context.workspace.bound_to() or context.origin()
    metrics = {
        "source": bound.source,
        "simulated": bound.simulated,
        "coin": bound.coin,
        "vs_currency": bound.vs_currency,
        "frequency": chosen.record["frequency"],
        "horizon": settings.horizon,
        "target": settings.target,
        "snapshot": {
            "prices": snapshot.manifest.details["prices"],
            "indicators": snapshot.id,
        },
        "run": chosen.name,
        **overview,
        "test": {
            "first": iso(int(test["timestamp"].iloc[0])),
            "last": iso(int(test["timestamp"].iloc[-1])),
            "windows": len(test),
        },
        **evaluation.compare(
            forecast=test["forecast"].to_numpy(),
            actual=test["actual"].to_numpy(),
            origin=test["origin"].to_numpy(),
            horizon=settings.horizon,
        ),
        "interval": {
            "level": band.level,
            "coverage": evaluation.coverage(
                actual=table["actual"].to_numpy(),
                lower=table["lower"].to_numpy(),
                upper=table["upper"].to_numpy(),
            ),
        },
        "next": {
            "time": iso(points.span_of(snapshot)[1] + settings.horizon * frame.step_ms),
            "from_price": overview["latest"]["price"],
            "forecast": following,
            "lower": float(lower[0]),
            "upper": float(upper[0]),
        },
        "training": {
            "windows": chosen.record["windows"]["training"],
            **{k: chosen.record["fitted"][k] for k in ("epochs", "best_epoch", "seconds")},
        },
    }
    reports = context.workspace.reports
    reports.mkdir(parents=True, exist_ok=True)
    path = reports / "forecast.csv"
    with durable_io.replacing(path) as stream:
        table.to_csv(stream, index=False, mode="wb")
    write_metrics(reports / "metrics.json", metrics)
    return Forecast(metrics, str(path), str(reports / "metrics.json"))


def _recalled(run: Run) -> tuple[Training, Scaler, Split]:
    """What the run was trained with. Raises ModelError where its record says it otherwise."""
    with runs.readable(run):
        return (
            runs.settings_of(run),
            Scaler.from_json(run.record["scaler"]),
            Split(**run.record["split"]),
        )


def _check_fit(run: Run, snapshot: Snapshot, split: Split) -> None:
    """Refuse what the run cannot forecast, before TensorFlow takes its time."""
    trained, found = run.record["frequency"], snapshot.manifest.details["frequency"]
    if trained != found:
        raise ModelError(
            f"run {run.name} was trained on steps of {trained}, but the indicators have steps of "
            f"{found}: train again, or set grid.frequency={trained} and run `bitstorm indicators`"
        )
    missing = set(run.record["features"]) - set(points.numeric_columns(snapshot))
    if missing:
        raise ModelError(
            f"run {run.name} was trained on {', '.join(sorted(missing))}, which the indicators "
            "don't have: train again, or compute them with the run's indicators.windows"
        )
    last_ms = points.span_of(snapshot)[1]
    if last_ms <= split.validate_until_ms:
        raise DataError(
            f"the indicators end at {iso(last_ms)}, expected points after "
            f"{iso(split.validate_until_ms)}, where the test part of run {run.name} begins: "
            "collect more, or train again"
        )


def _table(test: pd.DataFrame, band: Interval) -> pd.DataFrame:
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
    )[list(FORECAST_COLUMNS)]


def _windows(
    snapshot: Snapshot, frame: Frame, scaler: Scaler, *, after_ms: int
) -> Iterator[Framed]:
    """The windows whose target lies after this time, by time, a block at a time."""
    reach = (frame.look_back + frame.horizon) * frame.step_ms
    read = points.arrays(snapshot, frame, after_ms=after_ms - reach)
    for columns in blocks.from_points(read, frame):
        which = windowing.whole(frame, columns, first=after_ms // frame.step_ms + 1)
        if which.any():
            yield windowing.framed(frame, columns, scaler, which)


def _newest(snapshot: Snapshot, frame: Frame, scaler: Scaler) -> Framed | None:
    """The window that ends at the newest point; None where it is not whole."""
    _, last = points.span_of(snapshot)
    reach = (frame.look_back + 1) * frame.step_ms
    read = points.arrays(snapshot, frame, after_ms=last - reach)
    *_, columns = blocks.from_points(read, frame)
    return windowing.newest(frame, columns, scaler, index=last // frame.step_ms)


def _overview(snapshot: Snapshot, *, observations: int | None) -> dict[str, Any]:
    """Span, imputed points, cuts of the series, and the latest price with its change over 24 hours
    (None where the series is younger)."""
    first_ms, last_ms = points.span_of(snapshot)
    step = points.step_of(snapshot)
    imputed, cuts, latest, time_before = 0, 0, math.nan, first_ms - step
    before: float | None = None
    for table in points.tables(snapshot, ["timestamp", "price", "imputed"]):
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
