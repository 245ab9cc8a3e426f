"""`forecast`: a training run and the newest indicators → `forecast.csv` and `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.context import Context
from bitstorm.core import durable_io
from bitstorm.core.errors import DataError
from bitstorm.core.time import iso
from bitstorm.evaluation import comparison
from bitstorm.model import blocks, runs
from bitstorm.model import forecast as forecasts
from bitstorm.model.runs import Run
from bitstorm.model.windowing import Windows
from bitstorm.pipelines.forecast_log import log_forecast
from bitstorm.report.summary import Forecast, write_metrics
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot


def forecast(context: Context, *, run: str | None = None) -> Forecast:
    """Forecast the test part and the next step, and compare the test part with persistence.

    All points after the run's validation part are its test part, also the newest. The next step is
    NaN (null in the file) where no complete window ends at the newest point. Raises ModelError,
    SnapshotMissing, and DataError where there are too few points.
    """
    chosen = runs.newest(context.workspace.checkpoints, name=run, damaged=context.console.warn)
    snapshot = snapshots.required(context.workspace.indicators, snapshot=context.snapshot)
    snapshots.check_content(snapshot)
    settings, scaler, split = forecasts.trained_with(chosen)
    forecasts.check_fit(chosen, snapshot, split)
    context.load_tensorflow()
    network = runs.load_network(chosen)
    spec = blocks.spec_of(snapshot, settings, chosen.record["features"])

    def predict(windows: Iterable[Windows]) -> pd.DataFrame:
        return forecasts.predict(
            network, windows, look_back=spec.look_back, scaler=scaler, target=spec.target
        )

    windows = forecasts.windows_after(snapshot, spec, scaler, after_ms=split.train_until_ms)
    found = predict(windows)
    if found.empty:
        raise DataError("there is no complete window after the training part: collect more")
    # None where a cut is near the end of the series.
    newest = forecasts.newest_window(snapshot, spec, scaler)
    prices = snapshots.known(context.workspace.prices, snapshot.manifest.details["prices"])
    overview = forecasts.overview_of(
        snapshot, observations=None if prices is None else prices.manifest.rows
    )
    validation, test = forecasts.validation_and_test(found, split, chosen.name)
    residuals = np.log(validation["actual"].to_numpy() / validation["forecast"].to_numpy())
    band = comparison.interval(residuals, level=context.settings.forecast.level)
    table = forecasts.table_of(test, band)
    following = math.nan if newest is None else float(predict([newest])["forecast"].iloc[0])
    lower, upper = band.around(np.array([following]))
    if newest is not None:
        steps = context.settings.forecast.steps
        ahead = forecasts.predict_steps(network, [newest], spec=spec, scaler=scaler, steps=steps)
        log_forecast(context, chosen, snapshot, ahead, band)
    metrics = {
        **_facts(context, chosen, snapshot),
        **overview,
        **forecasts.scores(test, table, band, horizon=settings.horizon),
        "next": {
            "time": iso(blocks.span_of(snapshot)[1] + settings.horizon * spec.step_ms),
            "from_price": overview["latest"]["price"],
            "forecast": following,
            "lower": float(lower[0]),
            "upper": float(upper[0]),
        },
    }
    reports = context.workspace.reports
    reports.mkdir(parents=True, exist_ok=True)
    csv, json = reports / "forecast.csv", reports / "metrics.json"
    with durable_io.replacing(csv) as stream:
        table.to_csv(stream, index=False, mode="wb")
    write_metrics(json, metrics)
    return Forecast(metrics, str(csv), str(json))


def _facts(context: Context, run: Run, snapshot: Snapshot) -> dict[str, Any]:
    """The source, the target, the snapshots, and the run with its training."""
    bound, settings = context.workspace.bound_to() or context.origin(), runs.settings_of(run)
    return {
        "source": bound.source,
        "simulated": bound.simulated,
        "coin": bound.coin,
        "vs_currency": bound.vs_currency,
        "frequency": run.record["frequency"],
        "horizon": settings.horizon,
        "target": settings.target,
        "snapshot": {"prices": snapshot.manifest.details["prices"], "indicators": snapshot.id},
        "run": run.name,
        "training": {
            "windows": run.record["windows"]["training"],
            **{k: run.record["fitted"][k] for k in ("epochs", "best_epoch", "seconds")},
        },
    }
