"""The fan of the next steps and the picture of the test part show the given numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection

from bitstorm import report
from bitstorm.core.errors import DataError
from bitstorm.report import fan_figure
from bitstorm.report.style import STAYS
from report.drawn import (
    COINGECKO,
    DAY_MS,
    SIMULATED,
    THEMES,
    band,
    broken,
    corners,
    line,
    places,
    texts,
    times,
)

HOLE_AFTER = 249
HOUR = 3_600_000
ORIGIN = 1_704_067_200_000  # 2024-01-01T00:00:00Z
STEPS = 24


@pytest.fixture
def fan() -> pd.DataFrame:
    random = np.random.default_rng(3)
    steps = np.arange(1, STEPS + 1)
    frame = pd.DataFrame(
        {
            "timestamp": ORIGIN + HOUR * steps,
            "step": steps,
            "origin": ORIGIN,
            "origin_price": 42_000.0,
            "forecast": 42_000 + random.normal(0, 50, STEPS),
        }
    )
    for level in (50, 95):
        frame[f"lower_{level}"] = frame["forecast"] - level * np.sqrt(steps)
        frame[f"upper_{level}"] = frame["forecast"] + level * np.sqrt(steps)
    return frame


@pytest.mark.parametrize("theme", THEMES)
def test_the_fan_opens_at_the_newest_price_beside_persistence(fan, prices, theme):
    past = prices.tail(30)[["timestamp", "price"]]
    figure = fan_figure(fan, mark=SIMULATED, past=past, model="ridge", theme=theme)
    (axes,) = figure.axes
    np.testing.assert_array_equal(line(axes, "price"), past["price"])
    np.testing.assert_array_equal(line(axes, "forecast"), [42_000.0, *fan["forecast"]])
    assert times(axes, "forecast").tolist() == [ORIGIN + HOUR * n for n in range(STEPS + 1)]
    assert line(axes, STAYS).tolist() == [42_000.0] * 2
    assert times(axes, STAYS).tolist() == [ORIGIN, ORIGIN + HOUR * STEPS]
    for level, label in ((50, "50 %"), (95, "95 % interval")):
        drawn = corners(band(axes, label))
        for row in fan.itertuples():
            heights = drawn[np.isclose(drawn[:, 0], row.timestamp / DAY_MS, rtol=0), 1]
            bounds = [getattr(row, f"{bound}_{level}") for bound in ("lower", "upper")]
            np.testing.assert_allclose([heights.min(), heights.max()], bounds)
    # The wide one is below the narrow one, and paler.
    areas = [area for area in axes.collections if isinstance(area, PolyCollection)]
    assert [area.get_label() for area in areas] == ["95 % interval", "50 %"]
    assert texts(figure)[1].startswith(
        "Forecast by ridge of 24 steps from 2024-01-01 00:00 UTC. Prices in USD."
    )
    assert "what came" not in [of.get_label() for of in axes.get_lines()]


@pytest.mark.parametrize("theme", THEMES)
def test_what_came_is_drawn_as_far_as_it_is_known(fan, theme):
    actual = np.where(fan["step"] <= 5, fan["forecast"] + 7, np.nan)
    (axes,) = fan_figure(fan.assign(actual=actual), mark=COINGECKO, theme=theme).axes
    np.testing.assert_array_equal(line(axes, "what came"), [42_000.0, *actual])


def test_a_fan_without_intervals_has_no_band(fan):
    fan[["lower_50", "upper_50", "lower_95", "upper_95"]] = np.nan
    (axes,) = fan_figure(fan, mark=COINGECKO).axes
    assert [area for area in axes.collections if isinstance(area, PolyCollection)] == []


@pytest.mark.parametrize("theme", THEMES)
def test_the_test_part_shows_prices_returns_and_saved_error(forecast, theme):
    figure = report.test_figure(forecast, mark=SIMULATED, level=0.8, skill=-0.0123, theme=theme)
    levels, returns, saved = figure.axes
    for label, column in (("actual", "actual"), ("forecast", "forecast"), (STAYS, "persistence")):
        np.testing.assert_array_equal(line(levels, label), forecast[column].tail(96))
    tail = forecast.tail(96)
    heights = corners(band(levels, "80 % interval"))[:, 1]
    assert set(np.round(heights, 6)) == set(np.round([*tail["lower"], *tail["upper"]], 6))
    (cloud,) = returns.collections
    np.testing.assert_array_equal(
        np.asarray(cloud.get_offsets()),
        forecast[["forecast_log_return", "actual_log_return"]].to_numpy(),
    )
    assert returns.get_xlim() == returns.get_ylim()
    assert places(returns, "a perfect forecast").tolist() == list(returns.get_xlim())
    gain, sums = 0.0, []
    for actual, predicted in forecast[["actual_log_return", "forecast_log_return"]].to_numpy():
        gain += actual**2 - (actual - predicted) ** 2
        sums.append(gain)
    np.testing.assert_allclose(
        line(saved, "model: rising is better"), broken(pd.Series(sums), HOLE_AFTER - 200), rtol=1e-9
    )
    assert "(skill -0.0123)" in saved.get_title(loc="left")
    assert levels.get_title(loc="left") == "Prices, the last 96 points"


def test_lines_and_band_break_at_a_hole(forecast):
    few = forecast.head(96)
    levels = report.test_figure(few, mark=SIMULATED).axes[0]
    np.testing.assert_array_equal(line(levels, "actual"), broken(few["actual"], HOLE_AFTER - 200))
    assert len(band(levels, "interval").get_paths()) == 2


@pytest.mark.parametrize("mark", [SIMULATED, COINGECKO])
def test_short_frames_are_drawn_and_simulated_ones_marked(fan, forecast, mark):
    for figure in (
        fan_figure(fan.head(1), mark=mark, past=fan.head(0).assign(price=0.0)),
        report.test_figure(forecast.head(1), mark=mark),
        report.test_figure(forecast.head(2), mark=mark),
    ):
        figure.draw_without_rendering()
        assert ("SIMULATED" in texts(figure)) is mark.simulated


def test_empty_frames_and_missing_columns_are_refused(fan, forecast):
    with pytest.raises(DataError, match="the forecast frame has no column lower"):
        report.test_figure(forecast.drop(columns="lower"), mark=SIMULATED)
    with pytest.raises(DataError, match="the forecast frame has no row"):
        report.test_figure(forecast.head(0), mark=SIMULATED)
    with pytest.raises(DataError, match="the forecast frame has no column origin_price"):
        fan_figure(fan.drop(columns="origin_price"), mark=SIMULATED)
    with pytest.raises(DataError, match="the past frame has no column price"):
        fan_figure(fan, mark=SIMULATED, past=fan)
