"""The errors of a forecast beside the errors of "the price stays as it is"; a plain interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Errors:
    """Root mean squared and mean absolute errors, in USD and in log return."""

    rmse_usd: float
    mae_usd: float
    rmse_log_return: float
    mae_log_return: float


def errors(*, forecast: np.ndarray, actual: np.ndarray, origin: np.ndarray) -> Errors:
    """Errors of price forecasts made at the prices `origin`; all arrays are float64 (n,), USD."""
    usd = forecast - actual
    log_return = np.log(forecast / origin) - np.log(actual / origin)
    return Errors(
        rmse_usd=float(np.sqrt(np.mean(usd**2))),
        mae_usd=float(np.mean(np.abs(usd))),
        rmse_log_return=float(np.sqrt(np.mean(log_return**2))),
        mae_log_return=float(np.mean(np.abs(log_return))),
    )


def compare(*, forecast: np.ndarray, actual: np.ndarray, origin: np.ndarray) -> dict[str, Any]:
    """Model and persistence side by side, as in `metrics.json`; the arrays are as in `errors`."""
    model = errors(forecast=forecast, actual=actual, origin=origin)
    persistence = errors(forecast=origin, actual=actual, origin=origin)
    skill = skill_score(model.rmse_log_return, persistence.rmse_log_return)
    return {
        "model": asdict(model)
        | {"skill": skill, "skill_usd": skill_score(model.rmse_usd, persistence.rmse_usd)},
        "persistence": asdict(persistence),
    }


def skill_score(rmse: float, rmse_of_persistence: float) -> float:
    """1 - MSE / MSE of persistence: 1 is perfect, 0 is no better, below 0 is worse."""
    if rmse_of_persistence == 0:
        return 0.0 if rmse == 0 else -math.inf
    return 1 - (rmse / rmse_of_persistence) ** 2


def half_widths(residuals: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """The half-widths (L,), in log return, that hold these shares of past errors, float64 (n,).

    They are for series that are too short for `intervals.calibrate`."""
    return np.asarray(np.quantile(np.abs(residuals), levels))


def coverage(*, actual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """The share of actual prices inside their interval."""
    return float(np.mean((actual >= lower) & (actual <= upper)))
