"""`forecast`: the newest run on the newest indicators → `forecast.csv` and `metrics.json`."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bitstorm.config import Training
from bitstorm.errors import DataError
from bitstorm.instants import DAY_MS, duration_ms, iso
from bitstorm.model import evaluation, runs, windows
from bitstorm.model import forecast as forecasts
from bitstorm.model.evaluation import Interval
from bitstorm.model.runs import Run
from bitstorm.model.scaling import Scaler
from bitstorm.model.split import Split
from bitstorm.pipelines.context import Context
from bitstorm.pipelines.train import read_points
from bitstorm.report.summary import write_metrics
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FORECAST_COLUMNS = (
    "timestamp",
    "actual",
    "forecast",
    "persistence",
    "lower",
    "upper",
    "actual_log_return",
    "forecast_log_return",
)


@dataclass(frozen=True)
class Forecast:
    """Where the results lie, and `metrics` as written."""

    metrics: dict[str, Any]
    forecast_csv: str
    metrics_json: str


def forecast(context: Context, *, run: str | None = None) -> Forecast:
    """Forecast the test part and the next step, and hold both against persistence."""
    chosen = runs.newest(context.workspace.checkpoints, name=run)
    snapshot = snapshots.required(
        context.workspace.indicators,
        snapshot=context.snapshot,
        hint="run `bitstorm indicators` first",
    )
    settings = Training.model_validate(chosen.record["settings"])
    scaler = Scaler.from_json(chosen.record["scaler"])
    split = Split(**chosen.record["split"])
    context.load_tensorflow()
    network = runs.load_network(chosen)
    cache = context.workspace.cache / f"windows-{os.getpid()}"
    with context.spark("forecast") as spark:
        from pyspark.sql import functions as F

        try:
            points = read_points(spark, snapshot, settings)
            rows = points.transform(
                windows.to_windows,
                features=chosen.record["features"],
                look_back=settings.look_back,
                scaler=scaler,
            )
            late = rows.where(F.col("target_timestamp") > split.train_until_ms)
            frame = _predictions(spark, late, network, chosen, settings, scaler, cache)
            newest = rows.orderBy(F.col("timestamp").desc()).limit(1).collect()
            overview = _overview(points, snapshot)
        finally:
            shutil.rmtree(cache, ignore_errors=True)
    validation = frame[frame["timestamp"] <= split.validate_until_ms]
    test = frame[frame["timestamp"] > split.validate_until_ms].reset_index(drop=True)
    if test.empty or validation.empty:
        raise DataError(
            f"there is no window after {iso(split.validate_until_ms)}, so nothing to test on: "
            "the indicators end before the run's test part; train again"
        )
    band = _interval(validation, level=context.settings.forecast.level)
    table = _table(test, band)
    step = settings.horizon * duration_ms(chosen.record["frequency"])
    last = newest[0]
    window = np.array(last["window"]).reshape(settings.look_back, -1)
    following = forecasts.predict_one(
        network, window, origin=last["price"], scaler=scaler, target=settings.target
    )
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
            "time": iso(last["timestamp"] + step),
            "from_price": last["price"],
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
    draft = path.with_name(f".{path.name}")
    table.to_csv(draft, index=False)
    draft.replace(path)
    write_metrics(reports / "metrics.json", metrics)
    return Forecast(metrics, str(path), str(reports / "metrics.json"))


def _predictions(
    spark: SparkSession,
    rows: DataFrame,
    network: Any,
    run: Run,
    settings: Training,
    scaler: Scaler,
    cache: Path,
) -> pd.DataFrame:
    from pyspark.sql import functions as F

    # The converter makes every double a float32, which is what prices are stored as.
    known = rows.where(F.col("target").isNotNull()).select(
        "window", "target_timestamp", "price", "target_price"
    )
    feed = windows.make_feed(
        spark,
        known,
        look_back=settings.look_back,
        features=len(run.record["features"]),
        cache=cache,
    )
    if len(feed) == 0:
        raise DataError("there is no whole window after the training part: collect more")
    return forecasts.predict(network, feed, scaler=scaler, target=settings.target)


def _interval(validation: pd.DataFrame, *, level: float) -> Interval:
    residuals = np.log(validation["actual"].to_numpy() / validation["forecast"].to_numpy())
    return evaluation.interval(residuals, level=level)


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


def _overview(points: DataFrame, snapshot: Snapshot) -> dict[str, Any]:
    """Span, imputed points, cuts, and the latest price with its change over 24 hours."""
    from pyspark.sql import functions as F

    manifest = snapshot.manifest
    assert manifest.first_ms is not None and manifest.last_ms is not None
    before = F.col("timestamp") <= manifest.last_ms - DAY_MS
    found = points.agg(
        F.count_if("imputed").alias("imputed"),
        F.max("segment").alias("cuts"),
        F.max_by("price", "timestamp").alias("price"),
        F.max_by(F.when(before, F.col("price")), F.when(before, F.col("timestamp"))).alias("then"),
    ).collect()[0]
    change = None if found["then"] is None else 100 * (found["price"] / found["then"] - 1)
    return {
        "span": {
            "first": iso(manifest.first_ms),
            "last": iso(manifest.last_ms),
            "grid_points": manifest.rows,
            "imputed": found["imputed"],
            "cuts": found["cuts"],
        },
        "latest": {
            "time": iso(manifest.last_ms),
            "price": found["price"],
            "change_24h_percent": change,
        },
    }
