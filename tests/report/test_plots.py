import gc
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import image, pyplot
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure

from bitstorm.core.errors import DataError
from bitstorm.report.canvas import save_png
from bitstorm.report.plots import (
    forecast_figure,
    importance_figure,
    price_figure,
    training_figure,
    volatility_figure,
)
from bitstorm.report.style import Mark

HOLE_AFTER = 249
SIMULATED = Mark("simulated:7", "bitcoin", "usd")
COINGECKO = Mark("coingecko", "bitcoin", "usd")


def line(axes: Axes, label: str) -> np.ndarray:
    found = next(found for found in axes.get_lines() if found.get_label() == label)
    return np.asarray(found.get_ydata(), dtype=np.float64)


def times(axes: Axes, label: str) -> np.ndarray:
    found = next(found for found in axes.get_lines() if found.get_label() == label)
    return np.asarray(found.get_xdata(orig=True)).astype("datetime64[ms]").astype(np.int64)


def broken(values: pd.Series, after: int) -> np.ndarray:
    """The values with a NaN after the one at index `after`."""
    given = values.to_numpy(np.float64)
    return np.concatenate([given[: after + 1], [np.nan], given[after + 1 :]])


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_price_and_moving_averages_break_at_the_hole(prices: pd.DataFrame) -> None:
    (axes,) = price_figure(prices, windows=(7, 24), mark=SIMULATED).axes
    np.testing.assert_array_equal(line(axes, "price"), broken(prices["price"], HOLE_AFTER))
    for window in (7, 24):
        np.testing.assert_array_equal(
            line(axes, f"mean of the last {window}"), broken(prices[f"ma_{window}"], HOLE_AFTER)
        )
    drawn = times(axes, "price")
    np.testing.assert_array_equal(np.delete(drawn, HOLE_AFTER + 1), prices["timestamp"])
    assert np.all(np.diff(drawn) > 0)


def test_carried_forward_points_are_shown_where_they_are(prices: pd.DataFrame) -> None:
    (axes,) = price_figure(prices, windows=(), mark=COINGECKO).axes
    (ticks,) = [c for c in axes.collections if "carried forward" in str(c.get_label())]
    assert isinstance(ticks, LineCollection)
    assert len(ticks.get_segments()) == int(prices["imputed"].sum()) == 4


def test_the_axes_say_utc_and_write_money_with_thousands(prices: pd.DataFrame) -> None:
    figure = price_figure(prices, windows=(7,), mark=COINGECKO)
    (axes,) = figure.axes
    figure.draw_without_rendering()
    assert axes.get_xlabel() == "time (UTC)"
    assert axes.get_ylabel() == "price (USD)"
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels
    assert all("," in label for label in labels), labels


def test_dates_are_utc_whatever_the_readers_settings_say(prices: pd.DataFrame) -> None:
    day = prices[prices["timestamp"] < prices["timestamp"].iloc[0] + 7 * 3_600_000]

    def labels() -> list[str]:
        figure = price_figure(day, windows=(), mark=COINGECKO)
        figure.draw_without_rendering()
        return [tick.get_text() for tick in figure.axes[0].get_xticklabels()]

    usual = labels()
    with pyplot.rc_context({"timezone": "Asia/Tokyo"}):
        assert labels() == usual


def test_volatility_is_drawn_as_given(prices: pd.DataFrame) -> None:
    (axes,) = volatility_figure(prices, windows=(7, 24), mark=SIMULATED).axes
    for window in (7, 24):
        np.testing.assert_array_equal(
            line(axes, f"last {window} changes"), broken(prices[f"volatility_{window}"], HOLE_AFTER)
        )
    assert axes.get_ylim()[0] == 0


def test_the_forecast_shows_levels_band_returns_and_saved_error(forecast: pd.DataFrame) -> None:
    figure = forecast_figure(forecast, mark=SIMULATED, level=0.8, skill=-0.0123, last=30)
    whole, zoom, returns, saved = figure.axes
    hole = HOLE_AFTER - 200
    names = {"actual": "actual", "forecast": "forecast", "the price stays as it is": "persistence"}
    for label, column in names.items():
        np.testing.assert_array_equal(line(whole, label), broken(forecast[column], hole))
        np.testing.assert_array_equal(line(zoom, label), forecast[column].tail(30))
    (band,) = [c for c in zoom.collections if isinstance(c, PolyCollection)]
    assert band.get_label() == "80 % interval"
    corners = np.concatenate([np.asarray(path.vertices)[:, 1] for path in band.get_paths()])
    tail = forecast.tail(30)
    assert set(np.round(corners, 6)) == set(np.round([*tail["lower"], *tail["upper"]], 6))
    (cloud,) = returns.collections
    np.testing.assert_array_equal(
        np.asarray(cloud.get_offsets()),
        forecast[["forecast_log_return", "actual_log_return"]].to_numpy(),
    )
    assert returns.get_xlim() == returns.get_ylim()
    error = forecast["actual_log_return"] - forecast["forecast_log_return"]
    gain, sums = 0.0, []
    for actual, missed in zip(forecast["actual_log_return"], error, strict=True):
        gain += actual**2 - missed**2
        sums.append(gain)
    np.testing.assert_allclose(
        line(saved, "model: rising is better, falling is worse"),
        broken(pd.Series(sums), hole),
        rtol=1e-9,
    )
    assert "(skill -0.0123)" in saved.get_title(loc="left")


def test_the_band_breaks_at_a_hole_too(forecast: pd.DataFrame) -> None:
    zoom = forecast_figure(forecast, mark=SIMULATED, last=200).axes[1]
    (band,) = [c for c in zoom.collections if isinstance(c, PolyCollection)]
    assert len(band.get_paths()) == 2


def test_losses_are_drawn_as_given_and_the_best_epoch_is_marked(history: pd.DataFrame) -> None:
    (axes,) = training_figure(history, mark=COINGECKO, best=3).axes
    np.testing.assert_array_equal(line(axes, "training"), history["loss"])
    np.testing.assert_array_equal(line(axes, "validation"), history["val_loss"])
    (mark,) = [found for found in axes.get_lines() if found.get_label() == "best epoch (3)"]
    assert np.asarray(mark.get_xdata()).tolist() == [3, 3]


def test_simulated_data_is_marked_on_every_picture_real_on_none(
    prices: pd.DataFrame, forecast: pd.DataFrame, history: pd.DataFrame
) -> None:
    for mark in (SIMULATED, COINGECKO):
        for figure in (
            price_figure(prices, windows=(7,), mark=mark),
            volatility_figure(prices, windows=(7,), mark=mark),
            forecast_figure(forecast, mark=mark),
            training_figure(history, mark=mark, best=2),
        ):
            said = texts(figure)
            assert any("SIMULATED" in text for text in said) is mark.simulated
            assert ("Data provided by CoinGecko" in said) is not mark.simulated


@pytest.mark.parametrize("rows", [1, 2])
def test_the_shortest_frames_are_drawn(
    rows: int, prices: pd.DataFrame, forecast: pd.DataFrame, history: pd.DataFrame, tmp_path: Path
) -> None:
    for number, figure in enumerate(
        (
            price_figure(prices.head(rows), windows=(7,), mark=SIMULATED),
            volatility_figure(prices.head(rows), windows=(7,), mark=SIMULATED),
            forecast_figure(forecast.head(rows), mark=SIMULATED),
            training_figure(history.head(rows), mark=SIMULATED, best=1),
        )
    ):
        save_png(figure, tmp_path / f"{number}.png")


def test_a_saved_png_has_a_good_size_and_leaves_nothing_else(
    prices: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "reports" / "price.png"
    for _ in range(2):
        save_png(price_figure(prices, windows=(7, 24), mark=SIMULATED), path)
    pixels = image.imread(path)
    assert pixels.shape[:2] == (825, 1650)
    assert float(pixels[..., :3].std()) > 0.05
    assert [found.name for found in path.parent.iterdir()] == ["price.png"]


def test_pictures_are_unknown_to_pyplot_and_are_freed(prices: pd.DataFrame) -> None:
    figure = price_figure(prices, windows=(7,), mark=SIMULATED)
    kept = weakref.ref(figure)
    assert pyplot.get_fignums() == []
    del figure
    gc.collect()
    assert kept() is None


def test_empty_frames_and_missing_columns_are_refused_in_words(
    forecast: pd.DataFrame, prices: pd.DataFrame, history: pd.DataFrame
) -> None:
    with pytest.raises(DataError, match="the price frame has no column ma_9"):
        price_figure(prices, windows=(9,), mark=SIMULATED)
    with pytest.raises(DataError, match="the forecast frame has no column lower"):
        forecast_figure(forecast.drop(columns="lower"), mark=SIMULATED)
    with pytest.raises(DataError, match="the forecast frame has no row"):
        forecast_figure(forecast.head(0), mark=SIMULATED)
    with pytest.raises(DataError, match="the training history frame has no row"):
        training_figure(history.head(0), mark=SIMULATED, best=1)


def test_the_most_important_setting_is_at_the_top() -> None:
    shares = {"units": 0.25, "learning_rate": 0.625, "dropout": 0.125}
    figure = importance_figure(shares, mark=SIMULATED)
    (axes,) = figure.axes
    figure.draw_without_rendering()
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    boxes = [bar.get_path().get_extents(bar.get_patch_transform()) for bar in axes.patches]
    assert {name: box.x1 for name, box in zip(names, boxes, strict=True)} == shares
    assert names[int(np.argmax([box.y0 for box in boxes]))] == "learning_rate"
    assert [text.get_text() for text in axes.texts] == ["12 %", "25 %", "62 %"]
    assert any("SIMULATED" in text for text in texts(figure))
