"""The small back-test of `run`: what it takes from the settings, and when it is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prepared
from bitstorm.pipelines.backtest import Backtested
from bitstorm.pipelines.backtest_small import small_backtest, small_backtest_text
from pipelines.priced import impatient, points_of, published, random_walk, small


def test_a_short_series_is_skipped_with_the_reason(tmp_path):
    context = published(small(tmp_path), points_of(random_walk(2)[:24]))
    text = small_backtest_text(small_backtest(impatient(context)))
    assert text.startswith("skipped: found 24 points, expected at least")


@pytest.mark.slow
def test_it_has_two_folds_in_this_process(spark_session, indicators_workspace, workspace_copy):
    settings = ("backtest.folds=7", "backtest.embargo=40", "training.epochs=30")
    context = prepared.context(workspace_copy(indicators_workspace), *settings)
    found = small_backtest(context)
    assert isinstance(found, Backtested)
    assert (found.folds, found.steps, found.volatility) == (2, 1, None)
    skill = found.models["network"].skill_step_1
    assert small_backtest_text(found).startswith(f"2 small folds, skill {skill:+.4f}; ")
    record = json.loads((Path(found.folder) / "backtest.json").read_text())
    assert record["backtest"]["in_process"] and record["training"]["epochs"] == 1
    again = small_backtest(impatient(context))
    assert isinstance(again, Backtested) and again.idle and again.models == found.models
