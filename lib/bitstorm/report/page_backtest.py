"""The parts of the page that come from a back-test: folds, skills, coverage, evidence, and the
volatility's forecast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.core.time import parse_instant
from bitstorm.evaluation.verdict import E_NEEDED
from bitstorm.report import style
from bitstorm.report.page_values import columns_of
from bitstorm.report.summary import Metrics

_NETWORK = "network"
_TIMES = ("train_from", "train_until", "validate_until", "test_from", "test_until")


@dataclass(frozen=True)
class Backtest:
    """A finished back-test: its name, backtest.json, metrics.json, `judgement.evidence` and
    `judgement.day_volatility` over the next `horizon` steps; these two are None where there is no
    file of them."""

    name: str
    record: Mapping[str, Any]
    metrics: Mapping[str, Any]
    evidence: pd.DataFrame | None
    volatility: pd.DataFrame | None
    horizon: int


def backtest_part(found: Backtest) -> dict[str, Any]:
    """The whole part `backtest`."""
    models, record = found.metrics["models"], found.record
    intervals = found.metrics["intervals"]
    return {
        "name": found.name,
        "models": {name: _by_step(parts) for name, parts in models.items()},
        "folds": [
            {
                "number": fold["number"],
                **{name: fold[f"{name}_ms"] for name in _TIMES},
                **found.metrics["folds"][place],
                "models": [
                    [name, parts["all"]["folds"][place]["skill"]] for name, parts in models.items()
                ],
                "epochs": fold["epochs"],
                "seconds": fold["seconds"],
            }
            for place, fold in enumerate(record["folds"])
        ],
        "coverage": {
            "levels": intervals["levels"],
            "around": {
                name: {part: table[part] for part in ("overall", "terciles")}
                for name, table in intervals["around"].items()
            },
            "oracle": intervals["oracle"],
        },
        "evidence": _evidence(found.evidence),
        "needed": E_NEEDED,
        "facts": _facts(found),
    }


def _by_step(parts: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """The skill of each step, all folds together."""
    steps = sorted((part for part in parts if part != "all"), key=int)
    return {"skill": [parts[step]["pooled"]["skill"] for step in steps]}


def _evidence(evidence: pd.DataFrame | None) -> dict[str, list[float | None]] | None:
    """As decimal logarithms: an e-value can be too small for a float. None without an outcome."""
    if evidence is None or evidence.empty:
        return None
    names = ["information", "accuracy"]
    return columns_of(
        evidence.assign(**{name: evidence[name] / np.log(10) for name in names}), names
    )


def _facts(found: Backtest) -> list[tuple[str, str]]:
    record, plan = found.record, found.record["backtest"]
    judged = found.metrics["grades"].get(_NETWORK) or {}
    pooled = found.metrics["models"][_NETWORK]["all"]["pooled"]
    return [
        ("verdict", str(judged.get("headline", style.NONE))),
        # `run` makes a small back-test of one epoch: its verdict is not the one of the forecast.
        ("training", f"epochs a fold, at most: {style.count(record['training']['epochs'])}"),
        ("data", str(judged.get("data", style.NONE))),
        ("forecasts", f"{style.count(pooled['rows'])} a model, steps 1 to {record['steps']}"),
        ("grid", str(record["frequency"])),
        ("folds", f"{len(record['folds'])}, {plan['scheme']}, embargo {plan['embargo']} steps"),
        ("prices snapshot", str(record["prices"])),
        ("indicators snapshot", str(record["indicators"])),
        ("written", style.moment(record.get("written_at"))),
    ]


def volatility_part(metrics: Metrics, backtest: Backtest | None) -> dict[str, Any]:
    """The volatility that the back-test forecast and what came, and the forecast of the next
    steps."""
    outlook = metrics["outlook"]
    ahead = zip(outlook["steps"], outlook["volatility"], strict=True)
    past = None if backtest is None else backtest.volatility
    return {
        "horizon": None if backtest is None or past is None else backtest.horizon,
        "past": None if past is None else columns_of(past, ["realised", "forecast"]),
        "ahead": [
            {"time_ms": parse_instant(step["time"]), "sigma": sigma}
            for step, sigma in ahead
            if sigma is not None
        ],
    }
