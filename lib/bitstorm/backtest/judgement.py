"""The judgement of a back-test: the grades of each model, the intervals, and the volatility.

Pure: the folds' frames (see `fold.run_fold`), one after the other, and the series of prices in,
parts of `metrics.json` out. All folds' test rows are judged together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.backtest import outlook
from bitstorm.backtest.fold import NETWORK, day_of
from bitstorm.backtest.scores import PERSISTENCE, comparable, models_of
from bitstorm.core.time import iso
from bitstorm.evaluation import garch_paths, intervals, scores, skill_tests, verdict, volatility
from bitstorm.evaluation import volatility_features as history
from bitstorm.evaluation.intervals import DENSE_LEVELS, LEVELS
from bitstorm.model.series import Series

# Besides step 1, whose outcomes do not overlap.
LATER_STEPS = (6, 12, 24)
_90 = LEVELS.index(0.9)
_BINS = 10
# The normal quantile of a 90 % interval.
_90_PERCENT = 1.645
_VARIANCES = ("persistence", "ewma", "har", "log_har", *volatility.RECIPE_A)
# With fewer origins a block bootstrap says nothing.
_LEAST_ORIGINS = 100


def grades(
    frame: pd.DataFrame, series: Series, *, frequency: str, source: str, fee: float
) -> dict[str, Any]:
    """By model but persistence: the `Grades` of step 1, and in `later` by step the test of Diebold
    and Mariano (`t`, `p` one-sided) on `count` forecasts, without t and p where these are few."""
    rows, found = comparable(frame), {}
    steps = [step for step in (1, *LATER_STEPS) if (rows["step"] == step).any()]
    for model in models_of(frame):
        if model == PERSISTENCE or not steps:
            continue
        judged = {step: _judge(rows, series, model, step, frequency, source, fee) for step in steps}
        first = judged[1].to_json() if 1 in judged else None
        later = {
            str(step): {"count": one.count, **(asdict(one.test) if one.test else {})}
            for step, one in judged.items()
            if step > 1
        }
        found[model] = {**(first or {}), "later": later}
    return found


def _judge(
    rows: pd.DataFrame,
    series: Series,
    model: str,
    step: int,
    frequency: str,
    source: str,
    fee: float,
) -> verdict.Grades:
    part = step_returns(rows, series, model, step=step)
    first, last = (iso(int(part["timestamp"].iloc[place])) for place in (0, -1))
    return verdict.judge(
        outcomes=part["actual"].to_numpy(),
        forecasts=part["forecast"].to_numpy(),
        volatility=part["volatility"].to_numpy(),
        horizon=step,
        frequency=frequency,
        data=f"{source}, {first} to {last}",
        fee=fee,
    )


def step_returns(rows: pd.DataFrame, series: Series, model: str, *, step: int = 1) -> pd.DataFrame:
    """The log returns `actual` and `forecast` to this step, the `timestamp` of each outcome (ms
    UTC), and the `volatility` known when the forecast was made."""
    part = rows[rows["step"] == step]
    when = part["origin_timestamp"].to_numpy() + step * series.step_ms
    known = skill_tests.known_volatility(series.returns, horizon=step)
    origin = np.log(part["origin_price"].to_numpy())
    return pd.DataFrame(
        {
            "timestamp": when,
            "actual": np.log(part["actual"].to_numpy()) - origin,
            "forecast": np.log(part[model].to_numpy()) - origin,
            "volatility": known[series.places(when)],
        }
    )


def evidence(frame: pd.DataFrame, series: Series, *, model: str = NETWORK) -> pd.DataFrame:
    """The e-values of a model's forecasts of step 1 after each outcome: `timestamp` (ms UTC, of the
    outcome), and the natural logs `information` and `accuracy`."""
    part = step_returns(comparable(frame), series, model).dropna()
    z, g = (
        skill_tests.standardised(part[name].to_numpy(), part["volatility"].to_numpy())
        for name in ("actual", "forecast")
    )
    return pd.DataFrame(
        {
            "timestamp": part["timestamp"].to_numpy(),
            "information": skill_tests.e_information(z, g)[0],
            "accuracy": skill_tests.e_accuracy(z, g)[0],
        }
    )


def day_volatility(frame: pd.DataFrame, series: Series) -> pd.DataFrame:
    """The network's `forecast` of the volatility of the day after each origin, and the `realised`
    one, as standard deviation of a step in log return, NaN where a return of the day is missing;
    `timestamp` (ms UTC) is the day's end. `frame` has the column `variance`."""
    first, horizon = frame.drop_duplicates("origin_timestamp"), day_of(series.step_ms)
    origins = first["origin_timestamp"].to_numpy()
    places = series.places(origins)
    days = pd.Series(series.returns**2).rolling(horizon).mean().shift(-horizon).to_numpy()
    return pd.DataFrame(
        {
            "timestamp": origins + horizon * series.step_ms,
            "realised": np.sqrt(np.maximum(days[places], 0.0)),
            "forecast": np.sqrt(first["variance"].to_numpy() / horizon),
        }
    )


def fold_skills(frames: Sequence[pd.DataFrame], *, model: str = NETWORK) -> list[dict[str, float]]:
    """A model's `skill` over all steps in each fold, and the bounds `lower` and `upper` that hold
    it with 90 %; NaN in a fold with too few origins. Origins with all outcomes count."""
    return [_skill(frame, model) for frame in frames]


def _skill(frame: pd.DataFrame, model: str) -> dict[str, float]:
    steps = int(frame["step"].max())
    missed = np.log(frame[[model, PERSISTENCE]].to_numpy() / frame[["actual"]].to_numpy()) ** 2
    losses = missed.reshape(-1, steps, 2).mean(axis=1)
    losses = losses[np.isfinite(losses).all(axis=1)]
    if len(losses) <= steps or not losses[:, 1].any():
        return dict.fromkeys(("skill", "lower", "upper"), math.nan)
    ours, theirs = losses.T
    gains, scale = theirs - ours, float(theirs.mean())
    skill = float(gains.mean()) / scale
    noise = _90_PERCENT * skill_tests.standard_error(gains, horizon=steps) / scale
    return {"skill": skill, "lower": skill - noise, "upper": skill + noise}


def interval_scores(frame: pd.DataFrame, series: Series, *, full: bool) -> dict[str, Any]:
    """Intervals of all steps at the test origins, around persistence and around the network.

    The half-widths are of `outlook.half_widths`, so each is from what was known at its origin. Only
    origins inside the series count. `around` has for each centre the shares held: `overall` (by
    level), by `steps` (step, level), by `terciles` of the volatility (tercile, level) and by
    `cells` (tercile, step) at 90 %; the largest `misses`; and `winkler_90`, the mean score by step,
    in log return. `oracle` has the misses that chance alone gives a forecaster who knows the
    volatility: their median and 95th percentile. With `full` also the mean `crps` by step, the
    counts `pit` in ten equal bins at step 1 and at all steps, the intervals of simulated
    GARCH(1,1)-t paths, and the difference of the mean CRPS to theirs with its 95 % interval.
    """
    steps = int(frame["step"].max())
    table = _by_origin(frame, series, steps)
    places, actual = table["places"], table["actual"]
    rules = outlook.rules_of(series.step_ms)
    tercile = intervals.terciles(series.returns, rules=rules)[places]

    def half_widths(levels: Sequence[float]) -> np.ndarray:
        return outlook.half_widths(series, steps=steps, levels=levels)[places]

    half, around = half_widths(LEVELS), {}
    for name in (PERSISTENCE, NETWORK):
        centre = table[name][..., None]
        around[name] = _interval_table(actual, centre - half, centre + half, tercile)
    if full:
        theirs, lower, upper = garch_paths.simulated(
            series.returns, actual, places, steps=steps, levels=LEVELS, step_ms=series.step_ms
        )
        dense = half_widths(DENSE_LEVELS)
        for name in around:
            quantiles = intervals.bounds(table[name], dense)
            around[name] |= _distribution_scores(actual, quantiles, theirs)
        around["garch_t"] = _interval_table(actual, lower, upper, tercile) | {"crps": _mean(theirs)}
    chance = scores.oracle_misses(
        tercile, steps=range(1, steps + 1), levels=LEVELS, draws=200 if full else 50
    )
    return {
        "levels": list(LEVELS),
        "origins": len(places),
        "around": around,
        "oracle": {
            name: {"median": miss[0].tolist(), "95": miss[1].tolist()}
            for name, miss in chance.items()
        },
    }


def _distribution_scores(
    actual: np.ndarray, quantiles: np.ndarray, crps_of_garch: np.ndarray
) -> dict[str, Any]:
    probabilities = intervals.probabilities(DENSE_LEVELS)
    pit = scores.pit(actual, quantiles, probabilities)
    crps = scores.crps_of_quantiles(actual, quantiles, probabilities)
    # Of all steps together, because the steps of an origin depend on each other.
    ours, theirs = crps.mean(axis=1), crps_of_garch.mean(axis=1)
    both = np.isfinite(ours + theirs)
    gap = None
    if both.sum() >= _LEAST_ORIGINS:
        gap = asdict(volatility.mean_difference(ours[both], theirs[both]))
    return {
        "crps": _mean(crps),
        "crps_less_garch_t": gap,
        "pit": {"1": _histogram(pit[:, 0]), "all": _histogram(pit)},
    }


def _by_origin(frame: pd.DataFrame, series: Series, steps: int) -> dict[str, np.ndarray]:
    """Log returns from the origins (rows) to the steps (columns), and the origins' `places`."""
    times = frame["origin_timestamp"].to_numpy()[::steps]
    places = series.places(times)
    inside = places >= 0
    origin = frame["origin_price"].to_numpy()
    columns = {
        name: np.log(frame[name].to_numpy() / origin).reshape(-1, steps)[inside]
        for name in ("actual", PERSISTENCE, NETWORK)
    }
    return {"places": places[inside], **columns}


def _interval_table(
    actual: np.ndarray, lower: np.ndarray, upper: np.ndarray, tercile: np.ndarray
) -> dict[str, Any]:
    held = scores.coverage(scores.held(actual[..., None], lower, upper), tercile)
    width = scores.winkler(actual, lower[..., _90], upper[..., _90], LEVELS[_90])
    return {
        "overall": held.overall.tolist(),
        "steps": held.steps.tolist(),
        "terciles": held.terciles.tolist(),
        "cells": held.cells[..., _90].tolist(),
        "misses": {name: miss.tolist() for name, miss in held.misses(LEVELS).items()},
        "winkler_90": _mean(width),
    }


def _mean(values: np.ndarray) -> list[float]:
    """By column, without the NaN; NaN for a column without a number."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        found: list[float] = (np.where(known, values, 0.0).sum(0) / known.sum(0)).tolist()
    return found


def _histogram(pit: np.ndarray) -> list[int]:
    counts: list[int] = np.histogram(pit[np.isfinite(pit)], bins=_BINS, range=(0, 1))[0].tolist()
    return counts


def volatility_scores(frame: pd.DataFrame, series: Series) -> dict[str, Any]:
    """The forecasts of the realised variance of the next day (24 steps of an hour) at the test
    origins: by model, best first, its mean QLIKE over `origins`, and `against` log-HAR and GARCH-t
    the mean difference with its 95 % interval. Below zero the model is better.

    Every model but the network is fitted again every four weeks. Models without a forecast are left
    out. `models` is empty where fewer than 100 origins can be compared.
    """
    first = frame.drop_duplicates("origin_timestamp")
    places = series.places(first["origin_timestamp"].to_numpy())
    inside, returns = places >= 0, series.returns
    when = {"first_ms": series.first_ms, "step_ms": series.step_ms}
    horizon = day_of(series.step_ms)
    forecasts = {
        name: volatility.forecast_variance(name, returns, horizon=horizon, **when)[places[inside]]
        for name in _VARIANCES
    }
    parts = [forecasts[name] for name in volatility.RECIPE_A]
    forecasts["recipe_a"] = recipe_a = volatility.geometric_mean(*parts)
    if "variance" in frame:
        forecasts[NETWORK] = network = first["variance"].to_numpy()[inside]
        forecasts[f"{NETWORK}_and_recipe_a"] = volatility.geometric_mean(recipe_a, network)
    shown = {
        name: values
        for name, values in forecasts.items()
        if np.isfinite(values).any() and name not in ("log_ridge", "qlike_ridge")
    }
    actual = history.future_variance(returns, horizon=horizon)
    actual = np.where(np.isfinite(actual), actual, np.nan)[places[inside]]
    count = int(np.isfinite(np.sum([actual, *shown.values()], axis=0)).sum())
    table = volatility.scores(shown, actual) if count >= _LEAST_ORIGINS else []
    return {
        "horizon": horizon,
        "origins": count,
        "models": {
            one.model: {
                "qlike": one.qlike,
                "against": {name: asdict(gap) for name, gap in one.against.items()},
            }
            for one in table
        },
    }
