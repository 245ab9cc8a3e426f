"""What the dashboard shows of the newest back-test, the forecasts log, and the price around the
newest forecast."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bitstorm.backtest import files, forecast_log
from bitstorm.backtest.fold import day_of
from bitstorm.context import Context
from bitstorm.core.time import duration_ms, parse_instant
from bitstorm.model import blocks
from bitstorm.pipelines.forecast_score import facts_of, has_log, logged
from bitstorm.report.page import Log
from bitstorm.report.page_backtest import Backtest
from bitstorm.report.summary import PAST_STEPS, Metrics
from bitstorm.store.snapshots import Snapshot


def read_backtest(context: Context) -> Backtest | None:
    """The finished back-test that was written last."""
    newest = next(iter(files.finished(context.workspace.backtests)), None)
    if newest is None:
        return None
    evidence, volatility = (
        files.read_frame(newest.folder / name) for name in (files.EVIDENCE, files.VOLATILITY)
    )
    horizon = day_of(duration_ms(newest.record["frequency"]))
    return Backtest(
        newest.folder.name, newest.record, newest.metrics, evidence, volatility, horizon
    )


def read_log(context: Context) -> Log | None:
    """The forecasts log with its outcomes; None without a log or indicators."""
    if not has_log(context):
        return None
    read = logged(context)
    score, *_ = forecast_log.score(read.rows, read.outcomes, fee=context.settings.forecast.fee)
    coverage = [(held.level, held.scored, held.share) for held in score.coverage]
    rows = forecast_log.with_outcomes(read.rows, read.outcomes)
    return Log({**facts_of(score), "coverage": coverage}, rows)


def read_prices(snapshot: Snapshot, metrics: Metrics) -> pd.DataFrame:
    """`timestamp` and `price` (NaN: not observed) from shortly before the newest forecast until
    what came, on the grid of the snapshot."""
    steps = metrics["outlook"]["steps"]
    last_ms, step = blocks.span_of(snapshot)[1], blocks.step_of(snapshot)
    times = [parse_instant(one["time"]) for one in steps]
    begin = min(times[0], last_ms + step) - (PAST_STEPS + 2) * step
    first, prices = blocks.observed_prices(snapshot, after_ms=begin)
    timestamp = first + step * np.arange(len(prices))
    return pd.DataFrame({"timestamp": timestamp, "price": prices})[timestamp <= times[-1]]
