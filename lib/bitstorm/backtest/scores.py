"""The errors of each model by step and fold, and pooled: numbers of `metrics.json`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.backtest.fold import FACTS
from bitstorm.evaluation import comparison

PERSISTENCE = "persistence"
# By part: "all" steps together, then "1", "2", … Each has rows, errors, and skills.
Scores = dict[str, dict[str, dict[str, float]]]
_ROOTS = ("rmse_usd", "rmse_log_return")
_MEANS = ("mae_usd", "mae_log_return")


def scores(frame: pd.DataFrame) -> Scores:
    """By model and part, over the rows of a fold's frame where the outcome is known and every model
    has a forecast: so all models are compared on the same rows."""
    models, known = models_of(frame), comparable(frame)
    steps = range(1, int(frame["step"].max()) + 1)
    parts = {"all": known, **{str(step): known[known["step"] == step] for step in steps}}
    found: Scores = {
        name: {part: _errors(rows, name) for part, rows in parts.items()} for name in models
    }
    return _with_skills(found)


def models_of(frame: pd.DataFrame) -> list[str]:
    """The names of the models, in the order of the columns."""
    return [name for name in frame.columns if name not in FACTS]


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows where the outcome is known and every model has a forecast."""
    return frame[np.isfinite(frame[["actual", *models_of(frame)]]).all(axis=1)]


def _errors(rows: pd.DataFrame, model: str) -> dict[str, float]:
    if rows.empty:
        return {"rows": 0, **dict.fromkeys((*_ROOTS, *_MEANS), math.nan)}
    errors = comparison.errors(
        forecast=rows[model].to_numpy(),
        actual=rows["actual"].to_numpy(),
        origin=rows["origin_price"].to_numpy(),
    )
    return {"rows": len(rows), **asdict(errors)}


def _with_skills(found: Scores) -> Scores:
    """Add `skill` (1 - MSE / MSE of persistence, of log returns) and `skill_usd`."""
    skills = (("skill", "rmse_log_return"), ("skill_usd", "rmse_usd"))
    return {
        model: {
            part: values
            | {
                skill: comparison.skill_score(values[rmse], found[PERSISTENCE][part][rmse])
                for skill, rmse in skills
            }
            for part, values in parts.items()
        }
        for model, parts in found.items()
    }


def pooled(folds: Sequence[Scores]) -> Scores:
    """The scores over the rows of all folds together."""
    found: Scores = {}
    for model, parts in folds[0].items():
        found[model] = {part: _pool([fold[model][part] for fold in folds]) for part in parts}
    return _with_skills(found)


def _pool(cells: Sequence[Mapping[str, float]]) -> dict[str, float]:
    filled = [cell for cell in cells if cell["rows"]]
    rows = sum(cell["rows"] for cell in filled)
    if not rows:
        return {"rows": 0, **dict.fromkeys((*_ROOTS, *_MEANS), math.nan)}
    squares = {n: sum(c["rows"] * c[n] ** 2 for c in filled) for n in _ROOTS}
    sums = {n: sum(c["rows"] * c[n] for c in filled) for n in _MEANS}
    return {
        "rows": rows,
        **{name: math.sqrt(total / rows) for name, total in squares.items()},
        **{name: total / rows for name, total in sums.items()},
    }


def summary(folds: Sequence[Scores]) -> dict[str, dict[str, dict[str, Any]]]:
    """By model and part: the `pooled` scores, those of each of the `folds`, and over the folds
    their `mean` and sample standard deviation `sd` (None with one fold)."""
    return {
        model: {
            part: {"pooled": cell, **_spread([fold[model][part] for fold in folds])}
            for part, cell in parts.items()
        }
        for model, parts in pooled(folds).items()
    }


def _spread(cells: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in cells[0] if name != "rows"]
    values = np.array([[cell[name] for name in names] for cell in cells])
    mean = dict(zip(names, values.mean(axis=0).tolist(), strict=True))
    sd = values.std(axis=0, ddof=1).tolist() if len(cells) > 1 else [None] * len(names)
    return {
        "folds": [dict(cell) for cell in cells],
        "mean": mean,
        "sd": dict(zip(names, sd, strict=True)),
    }


@dataclass(frozen=True)
class Standing:
    """A model over all folds: RMSE of log returns and skill at step 1, the skill over all steps,
    and the fold with the smallest skill over all steps."""

    rmse_step_1: float
    skill_step_1: float
    skill: float
    worst_fold: int
    worst_skill: float


def standing(parts: Mapping[str, Any]) -> Standing:
    """The standing of a model, from its part of `summary`."""
    first, every = parts["1"]["pooled"], parts["all"]
    skills = [fold["skill"] for fold in every["folds"]]
    worst = min(range(len(skills)), key=lambda n: math.inf if math.isnan(skills[n]) else skills[n])
    return Standing(
        first["rmse_log_return"], first["skill"], every["pooled"]["skill"], worst + 1, skills[worst]
    )
