"""The lines of a score."""

from __future__ import annotations

import numpy as np

from bitstorm.backtest.forecast_log import Coverage, Score, StepErrors
from bitstorm.cli.render_score import score_lines, status_facts
from bitstorm.evaluation import verdict
from bitstorm.pipelines.forecast_score import Scored


def scored(run: str | None, **values) -> Score:
    nothing = np.empty(0)
    grades = verdict.judge(
        outcomes=nothing, forecasts=nothing, volatility=nothing, horizon=1, frequency="1h",
        data="csv, bitcoin, usd; no outcome yet", fee=10.0, live=True,
    )  # fmt: skip
    usual = {"logged": 1300, "scored": 1200, "waiting": 90, "unobserved": 10, "drift": ()}
    return Score(run=run, grades=grades, **{**usual, "steps": (), "coverage": (), **values})


def test_all_runs_come_first_with_their_errors_by_step():
    steps = (StepErrors(1, 1200, 0.004, 0.0041, 0.0482), StepErrors(24, 80, 0.02, 0.019, -0.108))
    coverage = (Coverage(80, 1200, 0.7925), Coverage(90, 1200, 0.901))
    whole = scored(None, steps=steps, coverage=coverage, drift=("it is other",))
    place = ("workspace", None, "00000009-a", "00000033-b")
    lines = score_lines(Scored(*place, whole, (scored("run-7"),)))
    text = [" ".join(line.split()) for line in lines]
    assert text[:4] == [
        "log 00000009-a",
        "outcomes indicators 00000033-b",
        "all runs",
        "forecasts 1,300 logged, 1,200 scored, 90 wait for their outcome, "
        "10 have no observed price",
    ]
    assert "coverage 79.2 % of 80 %, 90.1 % of 90 %" in text
    assert "drift it is other" in text
    assert "1 1,200 0.004 0.0041 +0.0482" in text and "24 80 0.02 0.019 -0.1080" in text
    last = text[text.index("run run-7") :]
    assert "coverage no outcome with an interval yet" in last


def test_the_status_has_the_log_in_three_lines():
    assert status_facts(None) == [("forecasts", "none yet")]
    found = {
        "logged": 1300,
        "scored": 1200,
        "waiting": 90,
        "coverage": {80: 0.7925},
        "e_values": {"information": 31.62, "accuracy": 0.5},
        "verdict": "Informative.",
        "drift": ("it is other",),
    }
    assert status_facts(found) == [
        ("forecasts", "1,300 steps logged, 1,200 scored"),
        ("", "coverage: 79.2 % of 80 %; e-values: information 31.6, accuracy 0.5"),
        ("", "Informative."),
        ("", "drift: it is other"),
    ]
