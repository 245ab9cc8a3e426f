"""The table of a back-test."""

from __future__ import annotations

from dataclasses import replace

from bitstorm.backtest.scores import Standing
from bitstorm.cli.render_backtest import backtest_lines
from bitstorm.pipelines.backtest import Backtested

RESULT = Backtested(
    source="csv",
    backtest="20240207T110000Z-0a1b2c3d",
    folder="/w/backtests/20240207T110000Z-0a1b2c3d",
    indicators="00000001-aaaaaaaaaaaa",
    folds=3,
    computed=1,
    steps=24,
    origins=1_234,
    rows=29_000,
    seconds=12.3,
    models={
        "network": Standing(0.0054118, 0.00004, -0.0056, 2, -0.0311),
        "persistence": Standing(0.0054119, 0.0, 0.0, 1, 0.0),
    },
    grades={
        "network": {
            "headline": "Informative, but …",
            "test": {"t": 1.0, "p": 0.2},
            "informative": True,
            "more_accurate": False,
            "less_accurate": False,
            "worth_its_costs": False,
        }
    },
    intervals={
        "levels": [0.5, 0.8, 0.9, 0.95],
        "around": {"network": {"overall": [0.501, 0.79, 0.902, None]}},
        "oracle": {"overall": {"95": [0.03, 0.025, 0.021, 0.01]}},
    },
    volatility={
        "models": {
            "log_har": {
                "qlike": 0.659,
                "against": {"garch_t": {"mean": -0.137, "lower": -0.2, "upper": -0.05}},
            },
            "recipe_a": {
                "qlike": 0.651,
                "against": {
                    "log_har": {"mean": -0.008, "lower": -0.02, "upper": 0.004},
                    "garch_t": {"mean": -0.145, "lower": -0.21, "upper": -0.06},
                },
            },
        }
    },
)


def test_the_table_has_a_line_for_each_model():
    lines = backtest_lines(RESULT)
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert cells[0] == ["verdict", "Informative, but …"]
    assert cells[2:8] == [
        ["snapshot", "indicators 00000001-aaaaaaaaaaaa"],
        ["folds", "3, 1 computed now"],
        ["forecasts", "29,000 a model, from 1,234 origins"],
        ["errors", "RMSE of log returns; skill: 1 - MSE / MSE of persistence"],
        [
            "coverage",
            "50.1 % at 50 %, 79.0 % at 80 %, 90.2 % at 90 %, n/a at 95 % "
            "(chance alone: ±2.1 points at 90 %)",
        ],
        ["files", "/w/backtests/20240207T110000Z-0a1b2c3d"],
    ]
    assert cells[8] == [
        "model",
        "RMSE step 1",
        "skill step 1",
        "skill steps 1 to 24",
        "grade at step 1",
    ]
    assert cells[10:12] == [
        ["network", "0.005412", "+0.0000", "-0.0056", "informative"],
        ["persistence", "0.005412", "+0.0000", "+0.0000"],
    ]
    assert cells[13] == [
        "variance of the next day",
        "QLIKE",
        "less log_har, 95 %",
        "less garch_t, 95 %",
    ]
    assert cells[15:] == [
        ["recipe_a", "0.651", "-0.008 (-0.020 to +0.004)", "-0.145 (-0.210 to -0.060)"],
        ["log_har", "0.659", "-0.137 (-0.200 to -0.050)"],
    ]


def test_one_step_has_one_skill():
    rows = [line.split() for line in backtest_lines(replace(RESULT, steps=1, volatility=None))]
    assert rows[8] == [
        "model",
        "RMSE",
        "step",
        "1",
        "skill",
        "step",
        "1",
        "grade",
        "at",
        "step",
        "1",
    ]
    assert rows[10] == ["network", "0.005412", "+0.0000", "informative"]


def test_what_was_not_judged_has_no_line():
    few = replace(RESULT, grades={"network": {"test": None, "headline": "Too few …"}})
    assert "too few forecasts" in backtest_lines(few)[10]
    nothing = replace(RESULT, grades={}, volatility=None)
    assert len(backtest_lines(nothing)) == 12
    assert "No forecast can be judged" in backtest_lines(nothing)[0]


def test_the_result_prints_the_skill_of_each_model():
    text = repr(RESULT)
    assert "skill of network      -0.0056" in text and "origins               1,234" in text
