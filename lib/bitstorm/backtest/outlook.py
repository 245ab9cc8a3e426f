"""The next 1…H steps: the model that forecasts them, and their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitstorm.backtest import files
from bitstorm.backtest.fold import day_of, known_baselines
from bitstorm.backtest.scores import PERSISTENCE
from bitstorm.core.time import HOUR_MS, iso
from bitstorm.evaluation import comparison, intervals, volatility, volatility_features
from bitstorm.evaluation.intervals import Rules
from bitstorm.evaluation.volatility_features import FOUR_WEEKS_MS
from bitstorm.model.forecast import Forecasts
from bitstorm.model.series import Series

if TYPE_CHECKING:
    import pandas as pd

# Two years of hours. A longer series would make a forecast slow, and its intervals no better.
POINTS = 20_000


@dataclass(frozen=True)
class Choice:
    """The model that forecasts the next steps (a run or a baseline), and why, in a sentence."""

    model: str
    why: str


@dataclass(frozen=True)
class Outlook:
    """The forecasts of the steps 1…H from the newest point, prices in USD.

    `times` int64 (H,), ms UTC; `forecast` float64 (H,); `lower` and `upper` float64 (H, L) at
    `levels`, NaN where the series is too short for intervals.
    """

    choice: Choice
    origin_ms: int
    origin_price: float
    times: np.ndarray
    forecast: np.ndarray
    levels: tuple[float, ...]
    lower: np.ndarray
    upper: np.ndarray

    def at(self, step: int, level: float) -> dict[str, Any]:
        """The part `next` of metrics.json."""
        place, column = step - 1, self.levels.index(level)
        return {
            "time": iso(int(self.times[place])),
            "from_price": self.origin_price,
            "forecast": float(self.forecast[place]),
            "lower": float(self.lower[place, column]),
            "upper": float(self.upper[place, column]),
        }

    def to_json(self) -> dict[str, Any]:
        """The part `outlook` of metrics.json: the bounds of each step by level in percent."""
        steps = [
            {
                "step": place + 1,
                "time": iso(int(time)),
                "forecast": float(self.forecast[place]),
                "intervals": {
                    f"{100 * level:g}": [self.lower[place, n], self.upper[place, n]]
                    for n, level in enumerate(self.levels)
                },
            }
            for place, time in enumerate(self.times)
        ]
        return {"model": self.choice.model, "why": self.choice.why, "steps": steps}


def levels_with(level: float) -> tuple[float, ...]:
    """The levels of all intervals, with the user's own."""
    return tuple(sorted({*intervals.LEVELS, level}))


@dataclass(frozen=True)
class Widths:
    """Half-widths of intervals, in log return: `calibrated` float64 (n, H, L) at each point of the
    series, NaN at its beginning; `plain` (L,) for the step `horizon`, where they are NaN.
    `volatility` (H,): the forecast at the newest point of the standard deviation a step, in log
    return, over the next 1…H steps; NaN where the series is too short."""

    calibrated: np.ndarray
    plain: np.ndarray
    horizon: int
    volatility: np.ndarray

    def newest(self) -> np.ndarray:
        """At the newest point, float64 (H, L)."""
        found = self.calibrated[-1].copy()
        own = found[self.horizon - 1]
        found[self.horizon - 1] = np.where(np.isnan(own), self.plain, own)
        return found

    def at(self, origins: np.ndarray, column: int) -> np.ndarray:
        """Of the step `horizon` and one level at these points, float64 (n,); `origins` below 0 lie
        before the series."""
        own = self.calibrated[origins, self.horizon - 1, column]
        return np.where(np.isnan(own) | (origins < 0), self.plain[column], own)


def widths_of(series: Series, found: Forecasts, *, steps: int, levels: Sequence[float]) -> Widths:
    """The half-widths around a run's forecasts; plain ones hold its errors in the validation
    part."""
    validation = found.validation
    residuals = np.log(validation["actual"].to_numpy() / validation["forecast"].to_numpy())
    variance = variances(series, steps=steps)
    return Widths(
        _calibrated(series, variance, levels),
        comparison.half_widths(residuals, levels),
        found.settings.horizon,
        np.sqrt(variance[-1] / np.arange(1, steps + 1)),
    )


def half_widths(series: Series, *, steps: int, levels: Sequence[float]) -> np.ndarray:
    """The half-widths of the intervals of steps 1…H at each point, float64 (n, H, L), in log
    return, from what was known there; NaN at the beginning.

    They are calibrated on the errors of persistence, which every point has.
    """
    return _calibrated(series, variances(series, steps=steps), levels)


def variances(series: Series, *, steps: int) -> np.ndarray:
    """The forecast at each point of the variance of the log return to steps 1…H, float64 (n, H);
    NaN at the beginning."""
    # On a grid finer than hours the windows have as many steps as for hours.
    finer = min(1.0, series.step_ms / HOUR_MS)
    return volatility_features.step_variances(
        series.returns,
        first_ms=series.first_ms,
        step_ms=series.step_ms,
        hours=[finer * hours for hours in volatility_features.VARIANCE_HOURS],
        horizon=steps,
        every=None if finer == 1 else round(FOUR_WEEKS_MS / HOUR_MS),
    )


def _calibrated(series: Series, variance: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    return intervals.calibrate(
        series.returns,
        np.zeros_like(variance),
        variance,
        steps=range(1, variance.shape[1] + 1),
        levels=levels,
        rules=rules_of(series.step_ms),
    )


def rules_of(step_ms: int) -> Rules:
    """The windows of the intervals: on a grid coarser than hours the same spans of time, on a finer
    one as many steps as for hours."""
    hours, rules = max(1.0, step_ms / HOUR_MS), Rules()
    return replace(rules, week=round(rules.week / hours), months=round(rules.months / hours))


def outlook(
    series: Series, choice: Choice, path: np.ndarray, width: np.ndarray, levels: tuple[float, ...]
) -> Outlook:
    """From the log returns to steps 1…H (float64 (H,)), and the half-widths (H, L) at the newest
    point, whose price may be imputed: then the last observed one counts."""
    last = len(series.price) - 1
    origin = float(series.price[np.flatnonzero(np.isfinite(series.price))[-1]])
    forecast = origin * np.exp(path)
    origin_ms = series.first_ms + last * series.step_ms
    return Outlook(
        choice, origin_ms, origin, origin_ms + series.step_ms * np.arange(1, len(path) + 1),
        forecast, levels, forecast[:, None] * np.exp(-width), forecast[:, None] * np.exp(width),
    )  # fmt: skip


def best_baseline(backtests: Path, *, frequency: str, steps: int) -> Choice:
    """The baseline with the smallest error over all steps in the newest finished back-test of this
    grid and number of steps; persistence where there is none."""
    for one in files.finished(backtests):
        if (one.record["frequency"], one.record["steps"]) != (frequency, steps):
            continue
        models = one.metrics["models"]
        errors = {
            name: models[name]["all"]["pooled"]["rmse_log_return"]
            for name in one.record["baselines"]
            if name in models
        }
        # None where no row can be compared.
        if known := {name: error for name, error in errors.items() if error is not None}:
            best = min(known, key=lambda name: known[name])
            return Choice(best, f"the best baseline of back-test {one.folder.name}")
    return Choice(PERSISTENCE, "the simplest baseline: there is no finished back-test")


def baseline_path(series: Series, name: str, *, steps: int) -> np.ndarray:
    """The baseline's log returns from the newest point to steps 1…H, float64 (H,)."""
    newest = len(series.price) - 1
    fit = known_baselines(series.step_ms)[name]
    return fit(series.returns, fit_until=newest, origins=np.array([newest]), steps=steps)[0]


def volatility_forecasts(series: Series) -> pd.DataFrame:
    """The forecast at each point of the volatility of the next day (24 steps of an hour), from what
    was known there: `timestamp` (ms UTC, of that day's end) and `volatility`, the standard
    deviation a step, in log return; NaN at the beginning. By the ridge of the intervals."""
    import pandas as pd

    day, step_ms = day_of(series.step_ms), series.step_ms
    variance = volatility.forecast_variance(
        "qlike_ridge", series.returns, first_ms=series.first_ms, step_ms=step_ms, horizon=day
    )
    ends = series.first_ms + step_ms * (np.arange(len(variance)) + day)
    return pd.DataFrame({"timestamp": ends, "volatility": np.sqrt(variance / day)})
