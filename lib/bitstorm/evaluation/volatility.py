"""Forecasts of the realised variance of the next steps by several models, and how good they are.

All models are fitted again every four weeks on all that is past, so no comparison flatters one.
`returns` are as in `volatility_features`; a variance is the sum of the squared log returns of the
next `horizon` steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bitstorm.evaluation import volatility_features as history
from bitstorm.evaluation.regression import qlike_ridge, ridge
from bitstorm.evaluation.volatility_features import HOUR_MS

NAMES = ("persistence", "ewma", "har", "log_har", "log_ridge", "qlike_ridge", "garch_t", "recipe_a")
RECIPE_A = ("log_ridge", "qlike_ridge", "garch_t")
HORIZON = 24
# HAR takes the three shortest of these: 6, 24, 168 hours on a grid of hours; on a grid of days a
# day, a week and a month (Corsi, 2009).
HAR_HOURS = (6, 24, 168, 720)
# The weight of the past, by step.
_EWMA = 0.97


def forecast_variance(
    name: str,
    returns: np.ndarray,
    *,
    first_ms: int,
    step_ms: int = HOUR_MS,
    horizon: int = HORIZON,
    every: int | None = None,
) -> np.ndarray:
    """The forecast at each index of the variance of the next `horizon` steps by the model `name`,
    one of NAMES; float64 (n,), in squared log return, NaN where the model has none.

    `first_ms`: the time of returns[0], Unix ms UTC; `every`: steps between two fits, by default
    four weeks. The value at t depends on returns[: t + 1] alone. Raises KeyError for another name.
    """
    when: dict[str, Any] = {"horizon": horizon, "every": every, "step_ms": step_ms}
    if name == "recipe_a":
        parts = [forecast_variance(part, returns, first_ms=first_ms, **when) for part in RECIPE_A]
        return geometric_mean(*parts)
    if name == "persistence":
        found = horizon * history.realised_variance(returns, horizon)
    elif name == "ewma":
        found = horizon * _filtered(returns**2, decay=_EWMA, gain=1 - _EWMA)
    elif name == "garch_t":
        found = _garch(returns, **when)
    else:
        if name in ("har", "log_har"):
            X = _har_features(returns, step_ms=step_ms, logs=name == "log_har")
        else:
            X = history.features(returns, first_ms=first_ms, step_ms=step_ms)
        found = _regressed(X, returns, _FITS[name], **when)
    return np.maximum(found, history.LEAST)


def geometric_mean(*forecasts: np.ndarray) -> np.ndarray:
    """Of forecasts (n,); NaN where one of them is. For QLIKE it suits better than the plain mean,
    which one high forecast dominates."""
    return np.exp(np.mean(np.log(forecasts), axis=0))


Predict = Callable[[np.ndarray], np.ndarray]


def _fit_levels(X: np.ndarray, y: np.ndarray, _: float) -> Predict:
    fit = ridge(X, y, penalty=0.0)
    # A straight line can fall below zero.
    return lambda rows: np.maximum(fit.predict(rows), y.min())


def _fit_logs(X: np.ndarray, y: np.ndarray, penalty: float) -> Predict:
    fit = ridge(X, np.log(y), penalty=penalty)
    # From the mean of the log to the log of the mean (Duan, 1983).
    smearing = np.mean(y / np.exp(fit.predict(X)))
    return lambda rows: smearing * np.exp(fit.predict(rows))


def _fit_qlike(X: np.ndarray, y: np.ndarray, penalty: float) -> Predict:
    fit = qlike_ridge(X, y[:, None], penalty=penalty)
    return lambda rows: fit.predict(rows)[:, 0]


_FITS: dict[str, Callable[[np.ndarray, np.ndarray, float], Predict]] = {
    "har": _fit_levels,
    "log_har": lambda X, y, _: _fit_logs(X, y, 0.0),
    "log_ridge": _fit_logs,
    "qlike_ridge": _fit_qlike,
}


def _regressed(
    X: np.ndarray,
    returns: np.ndarray,
    fit: Callable[[np.ndarray, np.ndarray, float], Predict],
    *,
    horizon: int,
    every: int | None,
    step_ms: int,
) -> np.ndarray:
    """Forecasts by a regression on X, fitted again and again."""
    y = history.future_variance(returns, horizon=horizon)
    usable = np.isfinite(X).all(axis=1) & np.isfinite(y)
    found = np.full(len(returns), np.nan)
    for past, served in history.refits(usable, horizon=horizon, every=every, step_ms=step_ms):
        predict = fit(X[past], y[past], history.penalty(horizon))
        found[served] = history.within_range(predict(X[served]), predict(X[past]))
    return found


def _har_features(returns: np.ndarray, *, step_ms: int, logs: bool) -> np.ndarray:
    windows = history.steps_of(HAR_HOURS, step_ms=step_ms)[:3]
    columns = [history.realised_variance(returns, steps) for steps in windows]
    X = np.column_stack(columns)
    return np.log(np.maximum(X, history.LEAST)) if logs else X


def _filtered(
    squares: np.ndarray, *, decay: float, gain: float, constant: float = 0.0
) -> np.ndarray:
    """v[t] = constant + gain · squares[t] + decay · v[t - 1], where the first square precedes the
    first v. An unknown square leaves v unchanged."""
    from scipy.signal import lfilter

    known = np.flatnonzero(np.isfinite(squares))
    if not len(known):
        return np.full(len(squares), np.nan)
    values = squares[known]
    filtered, _ = lfilter([gain], [1.0, -decay], values, zi=[decay * values[0]])
    # The filter of a constant is its geometric sum.
    sums = constant * lfilter([1.0], [1.0, -decay], np.ones(len(values)))
    count = np.cumsum(np.isfinite(squares))
    return np.where(count > 0, (filtered + sums)[count - 1], np.nan)


def _garch(returns: np.ndarray, *, horizon: int, every: int | None, step_ms: int) -> np.ndarray:
    """GARCH(1,1) with t-distributed shocks and mean zero (Bollerslev, 1987), by `arch`."""
    found = np.full(len(returns), np.nan)
    known = np.isfinite(returns)
    start = None
    # The fit at t takes the returns up to t: it has no target that lies ahead.
    for past, served in history.refits(known, horizon=0, every=every, step_ms=step_ms):
        start = omega, alpha, beta, _ = garch_parameters(returns[past], start=start)
        upto = returns[: served.stop] ** 2
        ahead = _filtered(upto, decay=beta, gain=alpha, constant=omega)[served]
        total = np.zeros(len(ahead))
        for _ in range(horizon):
            total += ahead
            ahead = omega + (alpha + beta) * ahead
        found[served] = total
    return found


def garch_parameters(
    returns: np.ndarray, *, start: tuple[float, ...] | None = None
) -> tuple[float, float, float, float]:
    """ω, α, β and the degrees of freedom of GARCH(1,1)-t on returns float64 (n,) without NaN;
    `start` are the parameters of a similar series, for fewer steps."""
    from arch import arch_model

    # The optimiser works on values around one.
    scale = float(returns.std()) or 1.0
    model = arch_model(returns / scale, mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
    first = None if start is None else np.array([start[0] / scale**2, *start[1:]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = model.fit(disp="off", show_warning=False, starting_values=first)
    omega, alpha, beta, freedom = (float(value) for value in fit.params)
    return omega * scale**2, alpha, beta, freedom


def qlike(*, forecast: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """a / f - log(a / f) - 1 for variances float64 (n,) (Patton, 2011): 0 is perfect. The ranking
    that it gives is robust to the noise of a realised variance. `actual` counts at least 1e-12."""
    ratio = np.maximum(actual, history.LEAST) / forecast
    return ratio - np.log(ratio) - 1


@dataclass(frozen=True)
class MeanDifference:
    """The mean loss of a model less the mean loss of another, and its bootstrap interval. Below
    zero the model is better."""

    mean: float
    lower: float
    upper: float


def mean_difference(
    losses: np.ndarray, others: np.ndarray, *, level: float = 0.95, repeats: int = 1_000
) -> MeanDifference:
    """For losses float64 (n,) in order of time: the percentile interval of the stationary block
    bootstrap (Politis and Romano, 1994). Losses of overlapping horizons depend on each other, and
    volatility comes in clusters; the mean length of a block is by Politis and White (2004)."""
    from arch.bootstrap import StationaryBootstrap, optimal_block_length

    differences = losses - others
    if np.ptp(differences) == 0:
        return MeanDifference(*[float(differences[0])] * 3)
    length = float(optimal_block_length(differences)["stationary"].iloc[0])
    bootstrap = StationaryBootstrap(max(length, 1.0), differences, seed=1)
    bounds = bootstrap.conf_int(np.mean, repeats, method="percentile", size=level)
    lower, upper = (float(bound) for bound in bounds.ravel())
    return MeanDifference(float(differences.mean()), lower, upper)


@dataclass(frozen=True)
class Score:
    """The mean QLIKE of a model over `count` origins, and the differences to the baselines."""

    model: str
    count: int
    qlike: float
    against: Mapping[str, MeanDifference]


def scores(
    forecasts: Mapping[str, np.ndarray],
    actual: np.ndarray,
    *,
    baselines: tuple[str, ...] = ("log_har", "garch_t"),
) -> list[Score]:
    """Each model beside the baselines, over the origins where all have a forecast, best first; the
    arrays are variances float64 (n,), in order of time, NaN where there is none."""
    rows = np.isfinite(np.sum([actual, *forecasts.values()], axis=0))
    losses = {
        name: qlike(forecast=values[rows], actual=actual[rows])
        for name, values in forecasts.items()
    }
    table = []
    for name, own in sorted(losses.items(), key=lambda item: float(item[1].mean())):
        others = [baseline for baseline in baselines if baseline != name and baseline in losses]
        against = {other: mean_difference(own, losses[other]) for other in others}
        table.append(Score(name, int(rows.sum()), float(own.mean()), against))
    return table
