"""Which pictures a report and a back-test have, by the names of their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bitstorm import report
from bitstorm.core.time import HOUR_MS, duration_ms
from bitstorm.report.plots.price import bars_of, usual_period
from bitstorm.report.style import Mark
from bitstorm.report.summary import PAST_STEPS, Metrics, fan_of, mark_of

# The newest bars.
_BARS = 180


def columns_of(windows: Sequence[int]) -> list[str]:
    """The columns of the indicators that `report_pictures` needs."""
    moving = [f"{name}_{w}" for name in ("ma", "volatility") for w in windows]
    return ["timestamp", "price", "imputed", "log_return", "drawdown", *moving]


def report_pictures(
    points: pd.DataFrame,
    *,
    whole: pd.DataFrame,
    forecast: pd.DataFrame,
    metrics: Metrics,
    history: pd.DataFrame,
    windows: Sequence[int],
    volatility: pd.DataFrame,
) -> dict[str, Figure]:
    """The pictures of a report. `points` are the newest rows of the indicators, for statistics;
    `whole` are all rows, or every k-th, for lines. `volatility` is of
    `outlook.volatility_forecasts`, the others are the contents of the files."""
    mark, step_ms = mark_of(metrics), duration_ms(metrics["frequency"])
    period_ms = usual_period(step_ms)
    bars = bars_of(points, period_ms=period_ms).tail(_BARS)
    past = points[["timestamp", "price"]].tail(PAST_STEPS)
    level, skill = metrics["interval"]["level"], metrics["model"]["skill"]
    best = metrics["training"]["best_epoch"]
    found = {
        "price": report.price_figure(whole, windows=windows, mark=mark),
        "candles": report.candle_figure(bars, mark=mark, period_ms=period_ms),
        "volatility": report.volatility_figure(
            whole, windows=windows, mark=mark, forecast=volatility
        ),
        "drawdown": report.drawdown_figure(whole, mark=mark),
        "returns": report.return_figure(points, mark=mark),
        "autocorrelation": report.autocorrelation_figure(points, mark=mark),
        "forecast": report.fan_figure(
            fan_of(metrics), mark=mark, past=past, model=metrics["outlook"]["model"]
        ),
        "test": report.test_figure(forecast, mark=mark, level=level, skill=skill),
        "training": report.training_figure(history, mark=mark, best=best),
    }
    if step_ms <= HOUR_MS:
        found["hours"] = report.hours_figure(points, mark=mark)
    return found


def backtest_pictures(
    metrics: Mapping[str, Any],
    folds: Sequence[Mapping[str, Any]],
    evidence: pd.DataFrame,
    *,
    mark: Mark,
) -> dict[str, Figure]:
    """The pictures of a back-test, from metrics.json, the folds of backtest.json, and
    `judgement.evidence`."""
    models = metrics["models"]
    return {
        "folds": report.folds_figure(folds, metrics["folds"], mark=mark),
        "skill_by_step": report.skill_figure(models, mark=mark),
        "error_by_step": report.error_figure(models, mark=mark),
        "coverage": report.coverage_figure(metrics["intervals"], mark=mark),
        "evidence": report.evidence_figure(evidence, mark=mark),
    }
