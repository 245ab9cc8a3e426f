"""Tests of a forecast's skill: e-values, Diebold and Mariano's test, and the break-even cost.

An outcome r and its forecast f (both in log return) are measured in units of σ, the volatility
known when the forecast was made: z = r/σ and g = f/σ, both clipped to ±5. So a calm hour counts as
much as a wild one, and a bet on z has a bounded loss.

An e-value is the wealth of a bettor who starts with 1 and bets against "no skill" at fair odds.
Ville's inequality: without skill it ever reaches 20 in at most 5 % of cases, so it may be looked
at after every outcome. (G. Shafer, "Testing by betting", 2021; A. Henzi and J. Ziegel, "Valid
sequential inference on probability forecast performance", 2022; Y. J. Choe and A. Ramdas,
"Comparing sequential forecasters", 2024.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

DECAY = 0.97
CLIP = 5.0
# Volatility is unknown before so many returns.
_LEAST_RETURNS = 24
# The shares of wealth that are bet; the e-value is the mean over them.
_ACCURACY_BETS = np.array([0.05, 0.1, 0.2, 0.3, 0.45])
_INFORMATION_BETS = np.array([0.1, 0.25, 0.5, 0.75, 1.0])
# No bet loses more than this share of the wealth.
_MOST_LOST = 0.9


def known_volatility(returns: np.ndarray, *, horizon: int = 1) -> np.ndarray:
    """The volatility of a return over `horizon` steps, known before its first step; float64 (n,).

    `returns` float64 (n,) are log returns of one step. Entry t belongs to the outcome that ends at
    t, and uses `returns[: t - horizon + 1]` alone: √horizon times the root of the exponential mean
    of their squares (decay 0.97, weights that sum to 1; RiskMetrics). NaN returns are skipped. It
    is NaN before 24 returns are known, and where all of them are 0. Returns more than 1,300 steps
    back change no digit.
    """
    import pandas as pd

    weighted = pd.Series(returns**2).ewm(
        alpha=1 - DECAY, ignore_na=True, min_periods=_LEAST_RETURNS
    )
    known = weighted.mean().shift(horizon).to_numpy()
    return np.sqrt(horizon * np.where(known > 0, known, np.nan))


def standardised(values: np.ndarray, volatility: np.ndarray) -> np.ndarray:
    """Outcomes as z or forecasts as g: in units of their volatility, clipped to ±5."""
    return np.clip(values / volatility, -CLIP, CLIP)


@dataclass(frozen=True)
class Evidence:
    """The log e-value after the last outcome, and the largest after any, at least 0."""

    log_e: float
    largest: float


def e_accuracy(z: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, Evidence]:
    """The log e-value after each outcome, float64 (n,), and the evidence of all.

    Null: the clipped squared error (z - g)² is not smaller than z². The e-value is the mean over
    the bets λ of ∏ (1 + min(λ, 0.9/(10|g| + g²)) (z² - (z - g)²)). `z` and `g` are float64 (n,)
    without NaN; horizon 1 only, because outcomes that overlap are no fair bets.
    """
    size = np.abs(g)
    return _bet(_ACCURACY_BETS, accuracy_gains(z, g), 2 * CLIP * size + g * g)


def e_information(z: np.ndarray, g: np.ndarray) -> tuple[np.ndarray, Evidence]:
    """As `e_accuracy`, for the null "the clipped return's mean in the forecast's direction is not
    above 0": the mean over λ of ∏ (1 + min(λ, 0.9/(5|g|)) z g)."""
    return _bet(_INFORMATION_BETS, z * g, CLIP * np.abs(g))


def _bet(bets: np.ndarray, gains: np.ndarray, worst: np.ndarray) -> tuple[np.ndarray, Evidence]:
    with np.errstate(divide="ignore"):
        most = _MOST_LOST / worst
    wealth = np.cumsum(np.log1p(np.minimum(bets[:, np.newaxis], most) * gains), axis=1)
    log_e = _log_mean(wealth)
    last = float(log_e[-1]) if len(log_e) else 0.0
    return log_e, Evidence(last, float(log_e.max(initial=0.0)))


def _log_mean(logs: np.ndarray) -> np.ndarray:
    """log(mean(exp(logs))) over the first axis, without overflow."""
    highest = logs.max(axis=0)
    return np.asarray(highest + np.log(np.mean(np.exp(logs - highest), axis=0)))


def standard_error(values: np.ndarray, *, horizon: int) -> float:
    """The standard error of the mean of `values`, float64 (n,), of forecasts `horizon` steps ahead:
    they overlap over horizon - 1 steps.

    The long-run variance sums the autocovariances of these lags (Diebold and Mariano, 1995). Where
    that sum is not positive, it takes Bartlett weights (Newey and West, 1987), with which it cannot
    be negative.
    """
    n = len(values)
    centred = values - values.mean()
    lags = np.arange(1, min(horizon, n))
    own = float(centred @ centred) / n
    covariances = np.array([centred[lag:] @ centred[:-lag] / n for lag in lags])
    variance = own + 2 * float(covariances.sum())
    if variance <= 0:
        variance = max(own + 2 * float((1 - lags / horizon) @ covariances), 0.0)
    return math.sqrt(variance / n)


@dataclass(frozen=True)
class DieboldMariano:
    """`t` above 0: the forecast is better; `p` is one-sided, of Student's t with n - 1 degrees."""

    t: float
    p: float


def diebold_mariano(gains: np.ndarray, *, horizon: int) -> DieboldMariano:
    """The test of Diebold and Mariano (1995) with the correction of D. Harvey, S. Leybourne and
    P. Newbold (1997); t = 0 where the gains do not vary.

    `gains` float64 (n,), n > horizon: loss of persistence minus loss of the forecast, in order of
    time.
    """
    from scipy import special

    n, error = len(gains), standard_error(gains, horizon=horizon)
    corrected = math.sqrt((n - horizon) * (n - horizon + 1)) / n
    t = corrected * float(gains.mean()) / error if error > 0 else 0.0
    return DieboldMariano(t, float(special.stdtr(n - 1, -t)))


def accuracy_gains(z: np.ndarray, g: np.ndarray) -> np.ndarray:
    """z² - (z - g)²: the squared error that the forecast saves, in units of the variance."""
    return g * (2 * z - g)


@dataclass(frozen=True)
class Trading:
    """What acting on the forecast's sign earns.

    `gain` is the mean return of a step, `turnover` the mean number of units traded in a step.
    `break_even` is gain / turnover in basis points: a higher cost of each unit traded turns the
    gain into a loss. `lower` and `upper` hold it with 90 %, with the turnover as it was.
    """

    gain: float
    turnover: float
    break_even: float
    lower: float
    upper: float


def trade_on_signs(outcomes: np.ndarray, forecasts: np.ndarray, *, horizon: int) -> Trading | None:
    """Every forecast holds 1/horizon units in the direction of its sign for `horizon` steps, so
    that at most one unit is held; positions start and end at 0.

    `outcomes` and `forecasts` float64 (n,), log returns over `horizon` steps, in order of time.
    None where no forecast has a sign.
    """
    sign = np.sign(forecasts)
    if not sign.any():
        return None
    gains = sign * np.expm1(outcomes) / horizon
    position = np.convolve(sign, np.full(horizon, 1 / horizon))
    turnover = float(np.abs(np.diff(position, prepend=0.0, append=0.0)).sum()) / len(sign)
    gain = float(gains.mean())
    noise = 1.645 * standard_error(gains, horizon=horizon)
    bounds = (1e4 * value / turnover for value in (gain, gain - noise, gain + noise))
    return Trading(gain, turnover, *bounds)


def r_squared(outcomes: np.ndarray, forecasts: np.ndarray) -> float:
    """1 - Σ(r - f)² / Σr², against the forecast 0; 0 where all outcomes are 0."""
    whole = float(outcomes @ outcomes)
    missed = outcomes - forecasts
    return 1 - float(missed @ missed) / whole if whole > 0 else 0.0
