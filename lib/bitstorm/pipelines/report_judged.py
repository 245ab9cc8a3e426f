"""What the dashboard shows of the newest back-test, the forecasts log, and the price around the
newest forecast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from bitstorm.backtest import files, forecast_log, judgement
from bitstorm.backtest.fold import day_of
from bitstorm.context import Context
from bitstorm.core.errors import SnapshotMissing
from bitstorm.core.time import parse_instant
from bitstorm.model import blocks
from bitstorm.model.series import Series
from bitstorm.pipelines.forecast_score import facts_of, has_log, logged
from bitstorm.report.page import Log
from bitstorm.report.page_backtest import Backtest
from bitstorm.report.summary import PAST_STEPS, Metrics
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot

# Older returns change no digit of the volatility (see `skill_tests.known_volatility`).
_STEPS_BEFORE = 1_400


def read_backtest(context: Context) -> Backtest | None:
    """The finished back-test that was written last."""
    newest = next(iter(files.finished(context.workspace.backtests)), None)
    if newest is None:
        return None
    folder, record, metrics = newest.folder, newest.record, newest.metrics
    frame = _frame(folder, [fold["number"] for fold in record["folds"]])
    try:
        snapshot = snapshots.required(context.workspace.indicators, snapshot=record["indicators"])
    except SnapshotMissing:
        frame = None
    if frame is None:
        return Backtest(folder.name, record, metrics, None, None, 0)
    step = blocks.step_of(snapshot)
    begin = int(frame["origin_timestamp"].min()) - _STEPS_BEFORE * step
    first, prices = blocks.observed_prices(snapshot, after_ms=begin)
    series = Series(first, step, prices)
    volatility = judgement.day_volatility(frame, series) if "variance" in frame else None
    evidence = judgement.evidence(frame, series)
    return Backtest(folder.name, record, metrics, evidence, volatility, day_of(step))


def _frame(folder: Path, numbers: list[int]) -> pd.DataFrame | None:
    """The folds' frames, one after the other; None where one is missing or damaged."""
    found = [stored.frame for n in numbers if (stored := files.read_fold(folder, n)) is not None]
    return pd.concat(found, ignore_index=True) if len(found) == len(numbers) else None


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
    steps = (metrics.get("outlook") or {}).get("steps") or []
    last_ms, step = blocks.span_of(snapshot)[1], blocks.step_of(snapshot)
    times = [parse_instant(one["time"]) for one in steps] or [last_ms + step]
    begin = min(times[0], last_ms + step) - (PAST_STEPS + 2) * step
    first, prices = blocks.observed_prices(snapshot, after_ms=begin)
    timestamp = first + step * np.arange(len(prices))
    return pd.DataFrame({"timestamp": timestamp, "price": prices})[timestamp <= times[-1]]
