"""Which run is promoted, and which model forecasts the next steps."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bitstorm.backtest import gate
from bitstorm.backtest.gate import Decision, Match
from bitstorm.backtest.outlook import Choice
from bitstorm.core.errors import ModelError
from bitstorm.core.settings import Training
from bitstorm.model import runs
from bitstorm.model.forecast import Forecasts
from bitstorm.model.series import Series

HOUR = 3_600_000
BASELINE = Choice("persistence", "the simplest baseline")


def market(hours: int = 900) -> Series:
    returns = np.random.default_rng(3).normal(0, 0.005, hours)
    return Series(0, HOUR, 40_000 * np.exp(np.cumsum(returns)))


def run_of(checkpoints, name, **record):
    folder = checkpoints / name
    folder.mkdir(parents=True)
    return runs.write(folder, {"frequency": "1h", **record}, state=runs.FINISHED)


def forecasts_of(run, series, errors, *, first=600):
    """A run whose log returns are the true ones plus these errors."""
    places = np.arange(first, len(series.price))
    origin, actual = series.price[places - 1], series.price[places]
    test = pd.DataFrame(
        {
            "timestamp": places * HOUR,
            "origin": origin,
            "forecast": actual * np.exp(errors[places]),
            "actual": actual,
        }
    )
    return Forecasts(run, Training(), test, test, np.zeros(24))


def test_a_match_is_diebold_and_marianos_test_of_clipped_errors():
    random = np.random.default_rng(1)
    rows = pd.DataFrame(random.normal(0, 0.01, (200, 2)), columns=["actual", "forecast"])
    rows["volatility"] = random.uniform(0.004, 0.02, 200)
    other = pd.Series(random.normal(0, 0.002, 200))
    other[7] = np.nan
    found = gate.match("run x", rows, other, horizon=1)
    kept = rows.drop(7)
    z, ours, theirs = (
        np.clip(values / kept["volatility"], -5, 5)
        for values in (kept["actual"], kept["forecast"], other.drop(7))
    )
    gains = (z - theirs) ** 2 - (z - ours) ** 2
    # For one step ahead it is the test of a mean, with the variance over n and then n - 1.
    expected = stats.ttest_1samp(gains, 0.0, alternative="less")
    assert found.count == 199
    assert found.t == pytest.approx(expected.statistic, rel=1e-12)
    assert found.p_worse == pytest.approx(expected.pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("matches", "promoted", "why"),
    [
        ([Match("persistence", 500, 0.3, 0.6)], True, "promoted: not less accurate than persist"),
        ([Match("persistence", 500, -2.0, 0.02)], False, "less accurate than persistence on 500"),
        (
            [Match("persistence", 500, 1.0, 0.8), Match("run a", 400, -3.0, 0.001)],
            False,
            "less accurate than run a on 400 forecasts (t = -3.00)",
        ),
        ([Match("persistence", 29, 9.0, 1.0)], False, "29 forecasts that do not overlap are too"),
    ],
)
def test_a_run_is_promoted_unless_a_rival_is_better(matches, promoted, why):
    found = gate.decide("r", tuple(matches), horizon=1, indicators="i", decided_at="now")
    assert found.promoted is promoted
    assert why in found.why


def test_overlapping_outcomes_are_not_counted_as_many():
    matches = (Match("persistence", 59, 1.0, 0.8),)
    found = gate.decide("r", matches, horizon=2, indicators="i", decided_at="now")
    assert "29 forecasts that do not overlap" in found.why


def test_a_decision_is_read_as_it_was_kept(tmp_path):
    run = run_of(tmp_path, "a")
    assert gate.decision_on(run) is None
    decision = Decision("a", True, "promoted: …", "i", "now", (Match("persistence", 40, 1.0, 0.9),))
    gate.keep(run.folder, decision)
    assert gate.decision_on(run) == decision
    (run.folder / gate.DECISION).write_text('{"run": "a"}')
    with pytest.raises(ModelError, match=r"gate\.json cannot be read .* delete it"):
        gate.decision_on(run)


class Chooser:
    """Runs with errors of given sizes, and a count of how often each was loaded."""

    def __init__(self, checkpoints):
        self.checkpoints, self.series, self.errors = checkpoints, market(), {}
        self.loaded: list[str] = []
        self.unreadable = ""

    def add(self, name, size):
        noise = np.random.default_rng(len(self.errors)).normal(0, size, len(self.series.price))
        self.errors[name] = noise
        return run_of(self.checkpoints, name)

    def load(self, run):
        self.loaded.append(run.name)
        if run.name == self.unreadable:
            raise ModelError("trained on other steps")
        return forecasts_of(run, self.series, self.errors[run.name])

    def choose(self):
        self.loaded.clear()
        found, choice = gate.choose(
            runs.newest(self.checkpoints),
            self.checkpoints,
            load=self.load,
            baseline=lambda: BASELINE,
            series=self.series,
            indicators="i",
        )
        return found.run.name, choice.model


def test_a_better_run_becomes_champion_and_a_worse_one_does_not(tmp_path):
    chooser = Chooser(tmp_path)
    chooser.add("a", 0.004)  # persistence errs by 0.005
    assert chooser.choose() == ("a", "a")
    chooser.add("b", 0.003)
    assert chooser.choose() == ("b", "b")
    assert chooser.loaded == ["b", "a"]
    # Better than persistence, not as good as the champion.
    chooser.add("c", 0.004)
    assert chooser.choose() == ("b", "b")
    reason = json.loads((tmp_path / "c" / gate.DECISION).read_text())["why"]
    assert reason.startswith("not promoted: less accurate than run b")


def test_a_decision_is_made_once(tmp_path):
    chooser = Chooser(tmp_path)
    chooser.add("a", 0.004)
    chooser.choose()
    kept = (tmp_path / "a" / gate.DECISION).read_bytes()
    assert chooser.choose() == ("a", "a")
    assert chooser.loaded == ["a"]
    assert (tmp_path / "a" / gate.DECISION).read_bytes() == kept


def test_without_a_promoted_run_the_baseline_forecasts(tmp_path):
    chooser = Chooser(tmp_path)
    chooser.add("a", 0.02)
    assert chooser.choose() == ("a", "persistence")


def test_a_champion_of_other_indicators_is_no_rival(tmp_path):
    chooser = Chooser(tmp_path)
    chooser.add("a", 0.003)
    chooser.choose()
    chooser.add("b", 0.004)
    chooser.unreadable = "a"
    assert chooser.choose() == ("b", "b")


def test_grades_are_of_the_test_part(tmp_path):
    series = market()
    errors = np.random.default_rng(2).normal(0, 0.001, len(series.price))
    run = run_of(tmp_path, "a")
    found = gate.grades_of(forecasts_of(run, series, errors), series, data="made", fee=10.0)
    assert found.count == 300
    assert found.data == "made, 1970-01-26T00:00:00Z to 1970-02-07T11:00:00Z"
    assert found.more_accurate and found.informative
