"""The next steps: their times, prices and intervals, and the best baseline."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bitstorm.backtest import files, outlook
from bitstorm.backtest.outlook import Choice
from bitstorm.core.settings import Training
from bitstorm.model.forecast import Forecasts
from bitstorm.model.runs import Run
from bitstorm.model.series import Series

HOUR = 3_600_000
T0 = 1_700_000_000_000 // HOUR * HOUR


def series_of(price: np.ndarray) -> Series:
    return Series(T0, HOUR, price)


def test_steps_have_their_times_prices_and_intervals():
    price = np.array([100.0, 110.0, 105.0])
    path = np.log([1.01, 0.99])
    width = np.log([[1.1, 1.2], [1.3, 1.5]])
    found = outlook.outlook(series_of(price), Choice("r", "why"), path, width, (0.5, 0.9))
    assert found.origin_ms == T0 + 2 * HOUR
    assert found.times.tolist() == [T0 + 3 * HOUR, T0 + 4 * HOUR]
    assert found.forecast == pytest.approx([106.05, 103.95])
    assert found.lower == pytest.approx(
        np.array([[106.05 / 1.1, 106.05 / 1.2], [103.95 / 1.3, 103.95 / 1.5]])
    )
    assert found.upper == pytest.approx(
        np.array([[106.05 * 1.1, 106.05 * 1.2], [103.95 * 1.3, 103.95 * 1.5]])
    )
    assert found.at(2, 0.9) == {
        "time": "2023-11-15T02:00:00Z",
        "from_price": 105.0,
        "forecast": pytest.approx(103.95),
        "lower": pytest.approx(103.95 / 1.5),
        "upper": pytest.approx(103.95 * 1.5),
    }
    second = found.to_json()["steps"][1]
    assert second["step"] == 2
    assert second["intervals"]["50"] == pytest.approx([103.95 / 1.3, 103.95 * 1.3])


def test_an_imputed_newest_price_is_the_last_observed_one():
    price = np.array([100.0, 110.0, np.nan])
    found = outlook.outlook(
        series_of(price), Choice("r", "w"), np.zeros(1), np.zeros((1, 1)), (0.9,)
    )
    assert (found.origin_price, found.origin_ms) == (110.0, T0 + 2 * HOUR)


@pytest.mark.parametrize("step_ms", [HOUR // 60, HOUR, 24 * HOUR])
def test_intervals_hold_their_level_on_a_random_walk(step_ms):
    returns = np.random.default_rng(4).normal(0, 0.01, 4_000)
    series = Series(T0, step_ms, 100 * np.exp(np.cumsum(returns)))
    widths = outlook.half_widths(series, steps=3, levels=(0.5, 0.9))
    assert widths.shape == (4_000, 3, 2)
    ahead = np.abs(returns[2_001:])
    held = (ahead[:, None] <= widths[2_000:-1, 0]).mean(axis=0)
    assert held == pytest.approx([0.5, 0.9], abs=0.03)


@pytest.mark.parametrize(
    ("step_ms", "expected"),
    [
        (HOUR // 60, (168, 4_320)),
        (HOUR, (168, 4_320)),
        (4 * HOUR, (42, 1_080)),
        (24 * HOUR, (7, 180)),
    ],
)
def test_windows_of_intervals_follow_a_coarser_grid(step_ms, expected):
    rules = outlook.rules_of(step_ms)
    assert (rules.week, rules.months) == expected


def test_the_widths_know_the_volatility_of_a_step_ahead():
    returns = np.random.default_rng(8).normal(0, 0.01, 4_000)
    series = Series(T0, HOUR, 100 * np.exp(np.cumsum(returns)))
    past = pd.DataFrame({"actual": [100.0, 101.0], "forecast": [101.0, 100.0]})
    found = Forecasts(Run(Path("r"), {}), Training(horizon=2), past, past, np.zeros(6))
    widths = outlook.widths_of(series, found, steps=6, levels=(0.5, 0.9))
    # On a random walk the variance of h steps is h times the variance of one.
    assert widths.volatility == pytest.approx(np.full(6, 0.01), rel=0.15)
    assert widths.calibrated == pytest.approx(
        outlook.half_widths(series, steps=6, levels=(0.5, 0.9)), nan_ok=True
    )
    assert (widths.plain.shape, widths.horizon) == ((2,), 2)


def test_a_short_series_has_no_intervals():
    series = series_of(np.exp(np.random.default_rng(1).normal(0, 0.01, 50)))
    assert np.isnan(outlook.half_widths(series, steps=2, levels=(0.9,))).all()


def test_plain_half_widths_fill_the_step_of_the_network():
    calibrated = np.full((3, 2, 2), np.nan)
    calibrated[2] = [[0.1, 0.2], [np.nan, 0.4]]
    widths = outlook.Widths(calibrated, np.array([0.5, 0.9]), horizon=2, volatility=np.zeros(2))
    assert widths.newest().tolist() == [[0.1, 0.2], [0.5, 0.4]]
    assert widths.at(np.array([-1, 0, 2]), 1).tolist() == [0.9, 0.9, 0.4]


def backtest(root, name, errors, *, frequency="1h", steps=24, state=files.FINISHED, written=None):
    folder = root / name
    folder.mkdir(parents=True)
    record = {"state": state, "frequency": frequency, "steps": steps, "written_at": written or name}
    record["baselines"] = ["persistence", "drift", "ar"]
    models = {
        model: {"all": {"pooled": {"rmse_log_return": error}}} for model, error in errors.items()
    }
    (folder / files.RECORD).write_text(json.dumps(record))
    (folder / files.METRICS).write_text(json.dumps({"models": models}))


def test_the_best_baseline_is_that_of_the_newest_back_test(tmp_path):
    assert outlook.best_baseline(tmp_path, frequency="1h", steps=24).model == "persistence"
    errors = {"network": 0.1, "persistence": 0.3, "drift": 0.2, "ar": 0.4}
    backtest(tmp_path, "20260101", errors)
    backtest(tmp_path, "20260102", {**errors, "ar": 0.01}, frequency="1d")
    backtest(tmp_path, "20260103", {**errors, "ar": 0.01}, state=files.RUNNING)
    backtest(tmp_path, "20260104", {**errors, "ar": 0.01}, steps=1)
    # Of outcomes that all are missing.
    backtest(tmp_path, "20260105", dict.fromkeys(errors))
    # Written first, though its name is the last.
    backtest(tmp_path, "20260106", {**errors, "ar": 0.01}, written="20251231")
    found = outlook.best_baseline(tmp_path, frequency="1h", steps=24)
    assert found == Choice("drift", "the best baseline of back-test 20260101")


def test_a_baseline_forecasts_from_the_newest_point():
    returns = np.random.default_rng(2).normal(0.001, 0.01, 300)
    series = series_of(100 * np.exp(np.cumsum(returns)))
    path = outlook.baseline_path(series, "drift", steps=3)
    drift = np.log(series.price[-1] / series.price[0]) / 299
    assert path == pytest.approx(drift * np.arange(1, 4))
    assert outlook.baseline_path(series, "persistence", steps=2).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("step_ms", "day"), [(HOUR, 24), (24 * HOUR, 1)])
def test_volatility_forecasts_are_of_the_day_that_ends(step_ms, day):
    returns = np.random.default_rng(4).normal(0, 0.01, 2_000)
    price = 100 * np.exp(np.cumsum(returns))
    found = outlook.volatility_forecasts(Series(T0, step_ms, price))
    ends = T0 + step_ms * (np.arange(2_000) + day)
    assert found["timestamp"].tolist() == ends.tolist()
    known = found["volatility"].dropna()
    assert 1_000 < len(known) < 1_500
    assert known.median() == pytest.approx(0.01, rel=0.05)
    # No forecast depends on what comes after its own point.
    price[1_801:] *= 2
    other = outlook.volatility_forecasts(Series(T0, step_ms, price))["volatility"]
    assert other[:1_801].equals(found["volatility"][:1_801])
    assert not other[1_801:].equals(found["volatility"][1_801:])


def test_finished_back_tests_come_in_the_order_of_writing(tmp_path):
    assert files.finished(tmp_path) == []
    backtest(tmp_path, "20260103-a", {}, written="2026-01-05T00:00:00Z")
    backtest(tmp_path, "20260103-b", {}, written="2026-01-04T00:00:00Z")
    backtest(tmp_path, "20260104-c", {}, written="2026-01-06T00:00:00Z", state=files.RUNNING)
    (tmp_path / "20260105-d").mkdir()
    found = [one.folder.name for one in files.finished(tmp_path)]
    assert found == ["20260103-a", "20260103-b"]
