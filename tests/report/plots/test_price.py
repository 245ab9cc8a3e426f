"""The pictures over time show the given numbers."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex

from bitstorm.core.errors import DataError
from bitstorm.report import candle_figure, drawdown_figure, price_figure, style, volatility_figure
from bitstorm.report.plots.price import bars_of
from report.drawn import (
    COINGECKO,
    DAY_MS,
    SIMULATED,
    THEMES,
    band,
    broken,
    corners,
    draw,
    found,
    line,
    texts,
    times,
    y_labels,
)

HOLE_AFTER = 249
HOUR = 3_600_000
MONDAY = 1_704_067_200_000  # 2024-01-01T00:00:00Z


@pytest.mark.parametrize("theme", THEMES)
def test_price_and_averages_break_at_the_hole_which_is_shaded(prices, theme):
    (axes,) = price_figure(prices, windows=(7, 24), mark=SIMULATED, theme=theme).axes
    np.testing.assert_array_equal(line(axes, "price"), broken(prices["price"], HOLE_AFTER))
    for window in (7, 24):
        np.testing.assert_array_equal(
            line(axes, f"mean of the last {window}"), broken(prices[f"ma_{window}"], HOLE_AFTER)
        )
    drawn = times(axes, "price")
    np.testing.assert_array_equal(np.delete(drawn, HOLE_AFTER + 1), prices["timestamp"])
    assert np.all(np.diff(drawn) > 0)
    shaded = np.unique(corners(band(axes, "no data"))[:, 0])
    edges = prices["timestamp"].iloc[[HOLE_AFTER, HOLE_AFTER + 1]]
    np.testing.assert_allclose(shaded, edges / DAY_MS)
    assert to_hex(found(axes, "price").get_color()) == style.THEMES[theme].ink


def test_carried_forward_points_are_shown_where_they_are(prices):
    (axes,) = price_figure(prices, windows=(), mark=COINGECKO).axes
    (ticks,) = [c for c in axes.collections if "carried forward" in str(c.get_label())]
    assert isinstance(ticks, LineCollection)
    places = [segment[0][0] for segment in ticks.get_segments()]
    carried = prices.loc[prices["imputed"], "timestamp"]
    np.testing.assert_allclose(places, carried / DAY_MS)


@pytest.mark.parametrize(("windows", "lines"), [((7, 24), 1), (tuple(range(2, 14)), 3)])
def test_a_legend_of_many_windows_stays_inside_the_picture(prices, windows, lines):
    for window in windows:
        prices[f"ma_{window}"] = prices["price"]
    figure = price_figure(prices, windows=windows, mark=COINGECKO)
    (axes,) = figure.axes
    draw(axes)
    legend = axes.get_legend()
    assert legend is not None
    box = legend.get_window_extent()
    assert box.x1 < figure.bbox.x1 and box.y0 >= axes.get_window_extent().y1
    assert len({round(text.get_window_extent().y0) for text in legend.get_texts()}) == lines
    assert axes.get_window_extent().width > 0.85 * figure.bbox.width


def test_the_axes_say_utc_and_write_money_with_thousands(prices):
    (axes,) = price_figure(prices, windows=(7,), mark=COINGECKO).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time (UTC)", "price (USD)")
    labels = y_labels(axes)
    assert labels and all("," in label for label in labels), labels


def test_prices_of_many_sizes_have_a_log_scale(prices):
    (axes,) = price_figure(prices, windows=(), mark=COINGECKO).axes
    assert axes.get_yscale() == "linear"
    prices.loc[7, "price"] = np.float32(2_000)
    (axes,) = price_figure(prices, windows=(), mark=COINGECKO).axes
    assert (axes.get_yscale(), axes.get_ylabel()) == ("log", "price (USD, log scale)")
    assert "10,000" in y_labels(axes)


def test_of_many_rows_all_extremes_are_drawn_and_holes_stay_true():
    rows = 12_001
    timestamp = MONDAY + HOUR * np.arange(rows)
    timestamp[7_000:] += 2 * HOUR
    timestamp[9_000:] += 40 * HOUR
    price = 100 + np.random.default_rng(1).normal(size=rows).cumsum()
    price[[1_234, 8_000]] = [200.0, 1.5]
    frame = pd.DataFrame({"timestamp": timestamp, "price": price, "ma_2": price + 1})
    (axes,) = price_figure(frame, windows=(2,), mark=COINGECKO).axes
    drawn, when = line(axes, "price"), times(axes, "price")
    known = np.isfinite(drawn)
    assert 2_500 < known.sum() <= 5_010
    at = np.searchsorted(timestamp, when[known])
    np.testing.assert_array_equal(timestamp[at], when[known])
    np.testing.assert_array_equal(price[at], drawn[known])
    np.testing.assert_array_equal(line(axes, "mean of the last 2")[known], price[at] + 1)
    assert {1_234, 8_000, 6_999, 7_000, 8_999, 9_000, rows - 1} <= set(at)
    assert (~known).sum() == 2
    edges = np.unique(corners(band(axes, "no data"))[:, 0])
    np.testing.assert_allclose(edges, timestamp[[6_999, 7_000, 8_999, 9_000]] / DAY_MS)


@pytest.mark.parametrize("theme", THEMES)
def test_volatility_is_drawn_with_the_forecast_behind_its_end(prices, theme):
    ahead = pd.DataFrame(
        {
            "timestamp": prices["timestamp"].iloc[-10:] + 24 * HOUR,
            "volatility": np.linspace(0.003, 0.006, 10),
        }
    )
    (axes,) = volatility_figure(
        prices, windows=(7, 24), mark=SIMULATED, forecast=ahead, theme=theme
    ).axes
    for window in (7, 24):
        np.testing.assert_array_equal(
            line(axes, f"last {window} changes"), broken(prices[f"volatility_{window}"], HOLE_AFTER)
        )
    np.testing.assert_array_equal(line(axes, "forecast a day before"), ahead["volatility"])
    np.testing.assert_array_equal(times(axes, "forecast a day before"), ahead["timestamp"])
    assert axes.get_ylim()[0] == 0
    assert all(label.endswith(" %") for label in y_labels(axes))


@pytest.mark.parametrize("theme", THEMES)
def test_the_deepest_point_of_the_drawdown_is_named(prices, theme):
    prices.loc[123, "drawdown"] = -0.375
    (axes,) = drawdown_figure(prices, mark=SIMULATED, theme=theme).axes
    np.testing.assert_array_equal(
        line(axes, "below the highest price so far"), broken(prices["drawdown"], HOLE_AFTER)
    )
    label = "deepest: -37.5 % on 2024-01-06"
    assert line(axes, label).tolist() == [-0.375]
    assert times(axes, label).tolist() == [prices["timestamp"].iloc[123]]
    assert axes.get_ylim()[1] == 0


@settings(deadline=None, max_examples=40)
@given(
    hours=st.sets(st.integers(0, 600), min_size=1, max_size=60),
    period=st.sampled_from([1, 4, 24, 7 * 24, 5 * 24]),
    data=st.data(),
)
def test_bars_hold_what_was_observed_up_to_their_label(hours, period, data):
    rows = sorted(hours)
    price = data.draw(st.lists(st.integers(1, 50), min_size=len(rows), max_size=len(rows)))
    carried = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    frame = pd.DataFrame(
        {"timestamp": [MONDAY + HOUR * n for n in rows], "price": price, "imputed": carried}
    )
    origin = MONDAY if period % (7 * 24) == 0 else 0
    expected: dict[int, list[float]] = {}
    for time, value, skip in zip(frame["timestamp"], price, carried, strict=True):
        if not skip:
            label = origin + -(-(time - origin) // (period * HOUR)) * period * HOUR
            expected.setdefault(label, []).append(float(value))
    bars = bars_of(frame, period_ms=period * HOUR)
    assert bars.to_numpy(float).tolist() == [
        [label, values[0], max(values), min(values), values[-1]]
        for label, values in sorted(expected.items())
    ]


@pytest.mark.parametrize("theme", THEMES)
def test_a_candle_has_wick_and_body_in_the_middle_of_its_bar(theme):
    bars = pd.DataFrame(
        {
            "timestamp": [MONDAY + DAY_MS * day for day in (1, 2, 4)],
            "open": [100.0, 110, 90],
            "high": [120.0, 112, 95],
            "low": [95.0, 80, 85],
            "close": [110.0, 90, 90],
        }
    )
    figure = candle_figure(bars, mark=COINGECKO, theme=theme, period_ms=DAY_MS)
    (axes,) = figure.axes
    wicks = [c for c in axes.collections if isinstance(c, LineCollection)]
    bodies = [c for c in axes.collections if isinstance(c, PolyCollection)]
    middle = MONDAY / DAY_MS + np.array([0.5, 1.5, 3.5])
    for chosen, wick, body in zip(([0, 2], [1]), wicks, bodies, strict=True):
        segments = np.array(wick.get_segments())
        np.testing.assert_allclose(segments[:, :, 0], middle[chosen, None] + [0, 0])
        np.testing.assert_array_equal(segments[:, :, 1], bars.loc[chosen, ["low", "high"]])
        for row, path in zip(chosen, body.get_paths(), strict=True):
            box = path.get_extents()
            assert (box.x0 + box.x1) / 2 == pytest.approx(middle[row])
            assert box.x1 - box.x0 == pytest.approx(0.72)
            assert [box.y0, box.y1] == sorted(bars.loc[row, ["open", "close"]])
    colours = [to_hex(body.get_facecolor()[0]) for body in bodies]
    look = style.THEMES[theme]
    assert colours == [look.forecast.lower(), look.warning.lower()]
    assert figure.texts[0].get_text() == "Bitcoin in USD, bars of 1d"
    low, high = axes.get_ylim()
    assert low < 80 and high > 120


def test_missing_columns_and_rows_are_named(prices):
    with pytest.raises(DataError, match="the indicators frame has no column ma_9"):
        price_figure(prices, windows=(9,), mark=SIMULATED)
    with pytest.raises(DataError, match="the bars frame has no column high, low"):
        candle_figure(prices.assign(open=1, close=1), mark=SIMULATED)
    with pytest.raises(DataError, match="the indicators frame has no row"):
        drawdown_figure(prices.head(0), mark=SIMULATED)


@pytest.mark.parametrize(("rows", "mark"), [*itertools.product([1, 2], [SIMULATED, COINGECKO])])
def test_the_shortest_frames_are_drawn_and_marked(prices, rows, mark):
    few = prices.head(rows)
    for figure in (
        price_figure(few, windows=(7,), mark=mark),
        volatility_figure(few, windows=(7,), mark=mark),
        drawdown_figure(few, mark=mark),
        candle_figure(bars_of(few, period_ms=HOUR), mark=mark),
    ):
        figure.draw_without_rendering()
        assert ("SIMULATED" in texts(figure)) is mark.simulated
