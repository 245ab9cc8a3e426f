"""Leaks to plant into the product's way, each of which `check-leakage` must find by its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bitstorm.backtest import fold as folding
from bitstorm.backtest.folds import Fold
from bitstorm.backtest.known import Way
from bitstorm.evaluation import intervals
from bitstorm.model.scaling import Scaler
from bitstorm.model.windowing import Columns, WindowSpec


@dataclass(frozen=True)
class Plant:
    """The way with a leak, and the `leak` (a key of `leakage.ADVICE`) that has to be found."""

    leak: str
    way: Way


def later_price(points: Columns, *, steps: int) -> np.ndarray:
    """The price `steps` after each point, float64 (points,); NaN where it is missing."""
    index = points["index"]
    place = np.minimum(np.searchsorted(index, index + steps), len(index) - 1)
    there = index[place] == index + steps
    return np.where(there, points["price"][place].astype(np.float64), np.nan)


def _later_price(points: Columns, spec: WindowSpec) -> np.ndarray:
    # The price `horizon` steps later can be the target itself.
    return later_price(points, steps=spec.horizon + 1)


def _target(points: Columns, spec: WindowSpec) -> np.ndarray:
    then = later_price(points, steps=spec.horizon)
    return then if spec.target == "price" else np.log(then / points["price"].astype(np.float64))


def _scaler_of_everything(spec: WindowSpec, blocks: Any, fold: Fold) -> Scaler:
    return folding.fit_scaler(spec, blocks, replace(fold, train_until=2**62))


def _spans_that_overlap(spec: WindowSpec, fold: Fold) -> dict[str, tuple[int, int]]:
    spans = folding.fitted_spans(spec, fold)
    return {**spans, "training": (spans["training"][0], fold.validate_until)}


def _without_delay(
    returns: np.ndarray, centre: np.ndarray, variance: np.ndarray, **options: Any
) -> np.ndarray:
    """Every outcome changes the state one step before it is known."""
    return intervals.calibrate(np.append(returns[1:], np.nan), centre, variance, **options)


PLANTS: Mapping[str, Plant] = {
    "scaler": Plant("scaler on later points", Way(fit_scaler=_scaler_of_everything)),
    "feature": Plant("look-ahead feature", Way(columns={"planted_later_price": _later_price})),
    "embargo": Plant(
        "missing embargo", Way(fold=lambda fold: replace(fold, validate_until=fold.test_from - 1))
    ),
    "target": Plant("target in the features", Way(columns={"planted_target": _target})),
    "validation": Plant("validation rows in training", Way(fitted_spans=_spans_that_overlap)),
    "conformal": Plant("conformal state from the future", Way(calibrate=_without_delay)),
}
