"""The table of a back-test."""

from __future__ import annotations

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
)


def test_the_table_has_a_line_for_each_model():
    lines = backtest_lines(RESULT)
    cells = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    assert cells[1:6] == [
        ["snapshot", "indicators 00000001-aaaaaaaaaaaa"],
        ["folds", "3, 1 computed now"],
        ["forecasts", "29,000 a model, from 1,234 origins"],
        ["errors", "RMSE of log returns; skill: 1 - MSE / MSE of persistence"],
        ["files", "/w/backtests/20240207T110000Z-0a1b2c3d"],
    ]
    assert cells[6] == ["model", "RMSE step 1", "skill step 1", "skill steps 1 to 24", "worst fold"]
    assert cells[8:] == [
        ["network", "0.005412", "+0.0000", "-0.0056", "-0.0311 (fold 2)"],
        ["persistence", "0.005412", "+0.0000", "+0.0000", "+0.0000 (fold 1)"],
    ]


def test_the_result_prints_the_skill_of_each_model():
    text = repr(RESULT)
    assert "skill of network      -0.0056" in text and "origins               1,234" in text
