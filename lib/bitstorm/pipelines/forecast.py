"""`forecast`: the newest run on the newest indicators → `forecast.csv` and `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bitstorm.context import Context
from bitstorm.core import durable_io
from bitstorm.core.errors import DataError
from bitstorm.core.results import Result
from bitstorm.core.time import iso
from bitstorm.model import evaluation, points, runs
from bitstorm.model import forecast as forecasts
from bitstorm.model.evaluation import Interval
from bitstorm.model.forecast_data import (
    check_fit,
    newest_window,
    overview_of,
    recalled,
    windows_after,
)
from bitstorm.model.runs import Run
from bitstorm.model.windowing import Framed
from bitstorm.pipelines.report import forecast_picture
from bitstorm.report.series import FORECAST_COLUMNS
from bitstorm.report.summary import (
    difference_sentence,
    interval_sentence,
    mark_of,
    next_sentence,
    verdict_sentence,
    write_metrics,
)
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class Forecast(Result):
    """Where the results lie, and `metrics` as written."""

    metrics: dict[str, Any]
    forecast_csv: str
    metrics_json: str

    @property
    def verdict(self) -> str:
        """Whether it is better than persistence on the test part, in a sentence."""
        return verdict_sentence(self.metrics)

    @property
    def table(self) -> pd.DataFrame:
        """The rows of `forecast_csv`, which the next forecast replaces: `timestamp` (Unix ms of the
        target), prices, the interval, and log returns."""
        return pd.read_csv(self.forecast_csv)

    def plot(self) -> Figure:
        """Forecast and truth on the test part, as in the report."""
        return forecast_picture(self.table, self.metrics)

    def facts(self) -> dict[str, str]:
        """What it says, in the words of the report's summary."""
        mark = mark_of(self.metrics)
        return {
            "source": mark.banner or mark.attribution or mark.origin,
            "next step": next_sentence(self.metrics),
            "verdict": self.verdict,
            "difference": difference_sentence(self.metrics),
            "interval": interval_sentence(self.metrics),
            "run": self.metrics["run"],
            "table": self.forecast_csv,
        }


def forecast(context: Context, *, run: str | None = None) -> Forecast:
    """Forecast the test part and the next step, and hold the former against persistence.

    Everything after the run's validation part is its test part, however new. The next step's
    numbers are NaN (null in the file) where the newest point ends no whole window.
    """
    chosen = runs.newest(context.workspace.checkpoints, name=run, damaged=context.console.warn)
    snapshot = snapshots.required(context.workspace.indicators, snapshot=context.snapshot)
    snapshots.check_content(snapshot)
    settings, scaler, split = recalled(chosen)
    check_fit(chosen, snapshot, split)
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

    found = predicted(windows_after(snapshot, frame, scaler, after_ms=split.train_until_ms))
    if found.empty:
        raise DataError("there is no whole window after the training part: collect more")
    # None when the series was cut a moment ago: then there is no forecast from now.
    newest = newest_window(snapshot, frame, scaler)
    prices = snapshots.known(context.workspace.prices, snapshot.manifest.details["prices"])
    overview = overview_of(snapshot, observations=None if prices is None else prices.manifest.rows)
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
    metrics = {
        **_facts(context, chosen, snapshot),
        **overview,
        **_scores(test, table, band, horizon=settings.horizon),
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


def _facts(context: Context, run: Run, snapshot: Snapshot) -> dict[str, Any]:
    """What was forecast, of which prices, by which run."""
    bound, settings = context.workspace.bound_to() or context.origin(), runs.settings_of(run)
    return {
        "source": bound.source,
        "simulated": bound.simulated,
        "coin": bound.coin,
        "vs_currency": bound.vs_currency,
        "frequency": run.record["frequency"],
        "horizon": settings.horizon,
        "target": settings.target,
        "snapshot": {
            "prices": snapshot.manifest.details["prices"],
            "indicators": snapshot.id,
        },
        "run": run.name,
    }


def _scores(
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
