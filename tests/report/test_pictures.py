"""Which pictures there are; and that `bitstorm.report` names every one without Matplotlib."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bitstorm
from bitstorm import report
from bitstorm.report import pictures
from report import backtested
from report.drawn import SIMULATED, line, texts

HOUR = 3_600_000
ALWAYS = [
    "autocorrelation", "candles", "drawdown", "forecast", "price", "returns", "test", "training",
    "volatility",
]  # fmt: skip


@pytest.mark.parametrize(
    ("frequency", "hours", "period"), [("1h", ["hours"], "1d"), ("1d", [], "1w")]
)
def test_a_report_has_these_pictures(prices, forecast, metrics, history, frequency, hours, period):
    step = 24 if frequency == "1d" else 1
    points = prices.assign(
        log_return=np.log(prices["price"].astype(float)).diff(),
        timestamp=prices["timestamp"] * step,
    )
    assert set(pictures.columns_of((7, 24))) <= set(points.columns)
    ahead = points[["timestamp"]].assign(volatility=0.004)
    found = pictures.report_pictures(
        points,
        whole=points,
        forecast=forecast,
        metrics=metrics | {"frequency": frequency},
        history=history,
        windows=(7, 24),
        volatility=ahead,
    )
    assert sorted(found) == sorted([*ALWAYS, *hours])
    assert {"SIMULATED" in texts(figure) for figure in found.values()} == {True}
    (fan,) = found["forecast"].axes
    np.testing.assert_array_equal(line(fan, "price"), points["price"].tail(72))
    np.testing.assert_array_equal(line(fan, "forecast"), [42_123.456, 42_130.5, 42_135.5, 42_140.5])
    assert f"bars of {period}" in texts(found["candles"])[0]


def test_a_backtest_has_these_pictures():
    folds, skills = backtested.folds()
    models = backtested.models(persistence=backtested.skills(0), network=backtested.skills(0.001))
    metrics = {"folds": skills, "models": models, "intervals": backtested.intervals()}
    found = pictures.backtest_pictures(metrics, folds, backtested.evidence(300), mark=SIMULATED)
    assert list(found) == ["folds", "skill_by_step", "error_by_step", "coverage", "evidence"]


def test_every_figure_function_is_named_once():
    assert report.__all__ == sorted(report.__all__)
    for name in report.__all__:
        assert getattr(report, name).__name__ == name
    assert set(report.__all__) <= set(dir(report))
    with pytest.raises(AttributeError, match=r"'bitstorm\.report' has no attribute 'pie_figure'"):
        report.pie_figure  # noqa: B018 - the access itself raises


@pytest.mark.slow
def test_matplotlib_is_loaded_at_the_first_figure():
    code = (
        "import sys, bitstorm, bitstorm.report, bitstorm.interface\n"
        "assert 'matplotlib' not in sys.modules\n"
        "bitstorm.report.price_figure\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    library = Path(bitstorm.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": library}
    )
    assert (done.returncode, done.stderr) == (0, "")
