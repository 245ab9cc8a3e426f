"""The page's parts of a back-test, against its record and its metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bitstorm.report.page_backtest import Backtest, backtest_part, volatility_part

DAY = 86_400_000


def cell(skill: float) -> dict[str, Any]:
    return {"rows": 1_200, "skill": skill}


def model(skill: float) -> dict[str, Any]:
    """Two steps and two folds; the second fold has a hundredth more."""
    parts = {step: {"pooled": cell(skill + int(step) / 1_000)} for step in ("1", "10", "2")}
    folds = {"folds": [cell(skill), cell(skill + 0.01)]}
    return {**parts, "all": {"pooled": cell(skill), **folds}}


@pytest.fixture
def backtest() -> Backtest:
    times = ("train_from", "train_until", "validate_until", "test_from", "test_until")
    folds = [
        {
            "number": number,
            **{f"{name}_ms": (10 * number + place) * DAY for place, name in enumerate(times)},
            "epochs": 6,
            "seconds": 14.5,
        }
        for number in (1, 2)
    ]
    table = {"overall": [0.5], "terciles": [[0.4], [0.5], [0.6]], "cells": [[0.9]], "crps": [1.0]}
    return Backtest(
        "20240101T000000Z-abcdef12",
        {
            "folds": folds,
            "frequency": "1h",
            "steps": 3,
            "prices": "P",
            "indicators": "I",
            "backtest": {"scheme": "expanding", "embargo": 84},
            "training": {"epochs": 30},
            "written_at": "2024-01-01T00:00:00.500Z",
        },
        {
            "models": {"network": model(0.02), "persistence": model(0.0)},
            "folds": [{"skill": 0.02, "lower": -0.1, "upper": 0.1}] * 2,
            "grades": {"network": {"headline": "No proven worth.", "data": "made"}},
            "intervals": {"levels": [0.5], "around": {"network": table}, "oracle": {"x": 1}},
        },
        pd.DataFrame(
            {"timestamp": [DAY, 2 * DAY], "information": [0.0, np.log(20)], "accuracy": [-1, -2e3]}
        ),
        pd.DataFrame({"timestamp": [DAY], "realised": [np.nan], "forecast": [0.004]}),
        24,
    )


def test_models_folds_and_coverage_are_those_of_the_files(backtest: Backtest) -> None:
    part = backtest_part(backtest)
    assert part["name"] == backtest.name
    # In the order of the numbers: 1, 2, 10.
    assert part["models"]["network"]["skill"] == pytest.approx([0.021, 0.022, 0.03])
    assert part["folds"][1] == {
        "number": 2,
        "train_from": 20 * DAY,
        "train_until": 21 * DAY,
        "validate_until": 22 * DAY,
        "test_from": 23 * DAY,
        "test_until": 24 * DAY,
        "skill": 0.02,
        "lower": -0.1,
        "upper": 0.1,
        "models": [["network", pytest.approx(0.03)], ["persistence", pytest.approx(0.01)]],
        "epochs": 6,
        "seconds": 14.5,
    }
    assert part["coverage"] == {
        "levels": [0.5],
        "around": {"network": {"overall": [0.5], "terciles": [[0.4], [0.5], [0.6]]}},
        "oracle": {"x": 1},
    }
    assert dict(part["facts"]) == {
        "verdict": "No proven worth.",
        "data": "made",
        "forecasts": "1,200 a model, steps 1 to 3",
        "grid": "1h",
        "folds": "2, expanding, embargo 84 steps",
        "training": "epochs a fold, at most: 30",
        "prices snapshot": "P",
        "indicators snapshot": "I",
        "written": "2024-01-01 00:00:00.500 UTC",
    }


def test_evidence_is_in_decades_and_the_line_is_at_twenty(backtest: Backtest) -> None:
    part = backtest_part(backtest)
    assert part["needed"] == 20
    assert part["evidence"]["timestamp"] == [DAY, 2 * DAY]
    assert part["evidence"]["information"] == pytest.approx([0, np.log10(20)])
    assert part["evidence"]["accuracy"] == pytest.approx([-0.4342945, -868.589])
    for none in (None, pd.DataFrame(columns=part["evidence"])):
        assert backtest_part(replace(backtest, evidence=none))["evidence"] is None


def test_the_volatility_of_the_past_is_the_back_tests(backtest: Backtest) -> None:
    metrics: dict[str, Any] = {"outlook": {"steps": [], "volatility": []}}
    assert volatility_part(metrics, backtest) == {
        "horizon": 24,
        "past": {"timestamp": [DAY], "realised": [None], "forecast": [0.004]},
        "ahead": [],
    }
    gone = volatility_part(metrics, replace(backtest, volatility=None))
    assert gone == {"horizon": None, "past": None, "ahead": []}
