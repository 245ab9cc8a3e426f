"""`forecast`: the promoted run and the newest indicators → files in `reports/`, and the log."""

from __future__ import annotations

from typing import Any

from bitstorm.backtest import gate, outlook
from bitstorm.backtest.outlook import Choice
from bitstorm.context import Context
from bitstorm.core import durable_io
from bitstorm.model import forecast as forecasts
from bitstorm.model import runs
from bitstorm.model.forecast import Forecasts
from bitstorm.model.runs import Run
from bitstorm.model.series import Series, read_series
from bitstorm.pipelines.forecast_log import log_forecast
from bitstorm.report.summary import Forecast, write_metrics
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot


def forecast(context: Context, *, run: str | None = None) -> Forecast:
    """Forecast the test part and the next steps, and compare the test part with persistence.

    All points after the run's validation part are its test part, also the newest. Without `run` the
    gate decides which run is used. The next steps are NaN (null in the file) where no complete
    window ends at the newest point. Raises ModelError, SnapshotMissing, and DataError where there
    are too few points.
    """
    newest = runs.newest(context.workspace.checkpoints, name=run, damaged=context.console.warn)
    snapshot = snapshots.required(context.workspace.indicators, snapshot=context.snapshot)
    snapshots.check_content(snapshot)
    series = read_series(snapshot, points=outlook.POINTS)
    found, choice = _choose(context, newest, snapshot, series, named=run is not None)
    horizon, level = found.settings.horizon, context.settings.forecast.level
    steps, levels = max(context.settings.forecast.steps, horizon), outlook.levels_with(level)
    widths = outlook.widths_of(series, found, steps=steps, levels=levels)
    path = found.path
    if choice.model != found.run.name:
        path = outlook.baseline_path(series, choice.model, steps=steps)
    following = outlook.outlook(series, choice, path, widths.newest(), levels)
    origins = series.places(found.test["timestamp"].to_numpy()) - horizon
    table = forecasts.table_of(found.test, widths.at(origins, levels.index(level)))
    metrics = {
        **_facts(context, found.run, snapshot),
        **forecasts.scores(found.test, table, level=level),
        "next": following.at(horizon, level),
        "outlook": {**following.to_json(), "volatility": widths.volatility.tolist()},
        "training": {
            "windows": found.run.record["windows"]["training"],
            **{k: found.run.record["fitted"][k] for k in ("epochs", "best_epoch", "seconds")},
        },
    }
    fee = context.settings.forecast.fee
    grades = gate.grades_of(found, series, data=metrics["source"], fee=fee)
    metrics |= {"verdict": grades.headline, "grades": grades.to_json()}
    reports = context.workspace.reports
    reports.mkdir(parents=True, exist_ok=True)
    csv, json = reports / "forecast.csv", reports / "metrics.json"
    with durable_io.replacing(csv) as stream:
        table.to_csv(stream, index=False, mode="wb")
    write_metrics(json, metrics)
    log_forecast(context, following, snapshot)
    return Forecast(metrics, str(csv), str(json))


def _choose(
    context: Context, run: Run, snapshot: Snapshot, series: Series, *, named: bool
) -> tuple[Forecasts, Choice]:
    """The run to report, and the model that forecasts the next steps."""
    workspace, steps = context.workspace, context.settings.forecast.steps

    def load(one: Run) -> Forecasts:
        settings, _, split = forecasts.trained_with(one)
        forecasts.check_fit(one, snapshot, split)
        context.load_tensorflow()
        return forecasts.forecasts_of(one, snapshot, steps=max(steps, settings.horizon))

    if named:
        return load(run), Choice(run.name, "named by the user")
    return gate.choose(
        run,
        workspace.checkpoints,
        load=load,
        baseline=lambda: outlook.best_baseline(
            workspace.backtests, frequency=snapshot.manifest.details["frequency"], steps=steps
        ),
        series=series,
        indicators=snapshot.id,
    )


def _facts(context: Context, run: Run, snapshot: Snapshot) -> dict[str, Any]:
    """The source, the target, the snapshots and the run; the span and the latest price."""
    bound, settings = context.workspace.bound_to() or context.origin(), runs.settings_of(run)
    prices = snapshots.known(context.workspace.prices, snapshot.manifest.details["prices"])
    observations = None if prices is None else prices.manifest.rows
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
        **forecasts.overview_of(snapshot, observations=observations),
    }
