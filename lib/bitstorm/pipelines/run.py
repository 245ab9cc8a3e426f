"""`run`: all stages, from the prices to the report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bitstorm.context import Context
from bitstorm.core.errors import DataError, NothingToDo
from bitstorm.core.results import Result
from bitstorm.core.time import iso
from bitstorm.ingest.publish_prices import Ingested
from bitstorm.pipelines.backtest_small import small_backtest, small_backtest_text
from bitstorm.pipelines.forecast import forecast
from bitstorm.pipelines.imports import ImportOptions, import_file
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.pipelines.report import Report, report
from bitstorm.pipelines.train import train
from bitstorm.report.summary import Forecast


@dataclass(frozen=True, repr=False)
class Outcome(Result):
    """The results of the stages; `seconds` by stage."""

    ingested: Ingested
    forecast: Forecast
    report: Report
    seconds: dict[str, float]

    def facts(self) -> dict[str, Any]:
        """The results of the stages, and the place of the report."""
        return {
            "ingested": f"{self.ingested.read:,} rows read, {self.ingested.rows:,} stored",
            **self.forecast.facts(),
            "report": f"{self.report.folder}/dashboard.html",
            "seconds": self.seconds,
        }


def run(context: Context, *, csv: ImportOptions | None = None) -> Outcome:
    """Prices, indicators, training, a small back-test, forecast and report in one Spark session.

    Raises the errors of the stages, and DataError where the workspace has no prices afterwards.
    """
    seconds: dict[str, float] = {}

    def stage(name: str, work: Callable[[], Any], text_of: Callable[[Any], str]) -> Any:
        began = time.monotonic()
        with context.stages.stage(name) as ended, context.console.stage(name) as outcome:
            result = work()
            outcome(text_of(result))
            ended(result)
        seconds[name] = round(time.monotonic() - began, 2)
        return result

    _collect(context, csv, stage)
    began = time.monotonic()
    with context.spark("run", tensorflow=context.settings.training.backend == "tensorflow"):
        seconds["spark"] = round(time.monotonic() - began, 2)
        context.console.say(f"  {'spark':<11} {seconds['spark']:6.1f} s  session started")
        ingested: Ingested = stage("ingest", lambda: ingest(context), _ingest_text)
        if ingested.snapshot is None:
            rejects, landing = context.workspace.rejects, context.workspace.landing
            raise DataError(
                f"all {ingested.read} rows were refused; the reasons are in {rejects}"
                if ingested.read
                else f"there is no batch to ingest in {landing}: collect, backfill or import first"
            )
        stage("indicators", lambda: indicators(context), lambda r: f"{r.rows:,} points")
        stage("train", lambda: train(context), _train_text)
        stage("backtest", lambda: small_backtest(context), small_backtest_text)
        forecasted: Forecast = stage("forecast", lambda: forecast(context), _forecast_text)
        reported: Report = stage("report", lambda: report(context), lambda r: r.folder)
    return Outcome(ingested, forecasted, reported, seconds)


def _collect(context: Context, csv: ImportOptions | None, stage: Callable[..., Any]) -> None:
    if csv is not None:
        imported = stage("import", lambda: import_file(context, csv), lambda r: f"{r.rows:,} rows")
        for note in imported.notes:
            context.console.say(f"    note: {note}")
    elif context.settings.source.mode == "csv":
        raise NothingToDo("source.mode is csv, but there is no file: add --csv FILE")
    else:
        from bitstorm.pipelines.backfill import backfill
        from bitstorm.pipelines.collect import collect

        stage(
            "backfill",
            lambda: backfill(context),
            lambda r: f"{r.points:,} points in {r.slices} slices, {r.source}",
        )
        stage("collect", lambda: collect(context), _collect_text)


def _collect_text(result: Any) -> str:
    seen, state = result.observation, "as before" if result.stale else "new"
    return f"{seen.price:,.2f} at {iso(seen.timestamp)}, {state}"


def _ingest_text(result: Ingested) -> str:
    accepted = f"{result.accepted:,} accepted of {result.read:,} read"
    return f"nothing new; {result.rows:,} rows" if result.idle else accepted


def _train_text(result: Any) -> str:
    loss = f"validation loss {result.best_validation_loss:.4f}"
    return f"{result.epochs} epochs of {result.windows:,} windows, best {result.best_epoch}, {loss}"


def _forecast_text(result: Forecast) -> str:
    following = result.metrics["next"]
    if math.isnan(following["forecast"]):
        return "no next step: too few points since the last cut"
    return f"{following['forecast']:,.2f} at {following['time']}"
