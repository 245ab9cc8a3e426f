"""How good a forecast is, beside "the price stays as it is", and how sure one can be of that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

# Two-sided 5 % of the normal distribution.
_CERTAIN = 1.96
# Forecasts that do not overlap; with fewer the statistic is not near a normal one.
_ENOUGH = 30


@dataclass(frozen=True)
class Errors:
    """Root mean square and mean absolute error, in USD and in log return."""

    rmse_usd: float
    mae_usd: float
    rmse_log_return: float
    mae_log_return: float


def errors(*, forecast: np.ndarray, actual: np.ndarray, origin: np.ndarray) -> Errors:
    """Errors of price forecasts made at prices `origin`; three float64 arrays of shape (n,)."""
    usd = forecast - actual
    log_return = np.log(forecast / origin) - np.log(actual / origin)
    return Errors(
        rmse_usd=float(np.sqrt(np.mean(usd**2))),
        mae_usd=float(np.mean(np.abs(usd))),
        rmse_log_return=float(np.sqrt(np.mean(log_return**2))),
        mae_log_return=float(np.mean(np.abs(log_return))),
    )


@dataclass(frozen=True)
class Difference:
    """Mean of (squared error of persistence - squared error of the model), with its standard
    error; log return squared. Above zero the model is better."""

    mean: float
    standard_error: float

    @property
    def t(self) -> float:
        return self.mean / self.standard_error if self.standard_error > 0 else 0.0


def difference(gains: np.ndarray, *, horizon: int) -> Difference:
    """Diebold and Mariano (1995): errors of h-step forecasts overlap over h - 1 steps.

    The long-run variance sums the autocovariances of these lags, as they do; where that comes out
    negative, with Bartlett weights (Newey and West, 1987), which never does.
    """
    n = len(gains)
    centred = gains - gains.mean()
    own = float(centred @ centred) / n
    lags = range(1, min(horizon, n))
    covariances = [float(centred[lag:] @ centred[:-lag]) / n for lag in lags]
    variance = own + 2 * sum(covariances)
    if variance <= 0:
        weighted = [(1 - lag / horizon) * c for lag, c in zip(lags, covariances, strict=True)]
        variance = max(own + 2 * sum(weighted), 0.0)
    return Difference(float(gains.mean()), math.sqrt(variance / n))


def compare(
    *, forecast: np.ndarray, actual: np.ndarray, origin: np.ndarray, horizon: int
) -> dict[str, Any]:
    """Model and persistence side by side, as in `metrics.json`."""
    model = errors(forecast=forecast, actual=actual, origin=origin)
    persistence = errors(forecast=origin, actual=actual, origin=origin)
    ours = np.log(forecast / actual) ** 2
    theirs = np.log(origin / actual) ** 2
    gain = difference(theirs - ours, horizon=horizon)
    skill = skill_score(model.rmse_log_return, persistence.rmse_log_return)
    return {
        "model": {
            **asdict(model),
            "skill": skill,
            "skill_usd": skill_score(model.rmse_usd, persistence.rmse_usd),
        },
        "persistence": asdict(persistence),
        "difference": {**asdict(gain), "t": gain.t},
        "verdict": verdict(skill, gain, independent=len(actual) // horizon),
    }


def skill_score(rmse: float, rmse_of_persistence: float) -> float:
    """1 - MSE / MSE of persistence: 0 is no better, 1 is perfect, below 0 is worse."""
    if rmse_of_persistence == 0:
        return 0.0 if rmse == 0 else -math.inf
    return 1 - (rmse / rmse_of_persistence) ** 2


def verdict(skill: float, gain: Difference, *, independent: int) -> str:
    """One sentence that a sceptic can hold us to; `independent` forecasts do not overlap."""
    measured = f"skill {skill:+.4f}, t = {gain.t:+.2f}"
    if independent < _ENOUGH:
        return (
            f"Not distinguishable from 'the price stays as it is' on the test part ({measured}): "
            f"{independent} forecasts that do not overlap are too few to tell, "
            f"expected at least {_ENOUGH}."
        )
    if gain.t >= _CERTAIN:
        return f"Better than 'the price stays as it is' on the test part ({measured})."
    if gain.t <= -_CERTAIN:
        return (
            f"Worse than 'the price stays as it is' on the test part ({measured}): "
            "do not use this forecast."
        )
    return (
        f"Not distinguishable from 'the price stays as it is' on the test part ({measured}): "
        "this forecast has no proven worth."
    )


@dataclass(frozen=True)
class Interval:
    """Quantiles of past errors (actual - forecast, log return) around a forecast."""

    level: float
    lower: float
    upper: float

    def around(self, forecast: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper price for forecast prices."""
        return forecast * math.exp(self.lower), forecast * math.exp(self.upper)

    def to_json(self) -> Mapping[str, float]:
        return asdict(self)


def interval(residuals: np.ndarray, *, level: float) -> Interval:
    """The central `level` of residuals of a part that nothing was fitted on but the stopping."""
    tail = (1 - level) / 2
    lower, upper = np.quantile(residuals, [tail, 1 - tail])
    return Interval(level, float(lower), float(upper))


def coverage(*, actual: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """Share of outcomes inside their interval."""
    return float(np.mean((actual >= lower) & (actual <= upper)))
