"""What every picture has: theme, banner, caption, dates, and the files."""

from __future__ import annotations

import gc
import itertools
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image, pyplot, rcParams
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from bitstorm.core.errors import UsageError
from bitstorm.report import canvas, price_figure, style, training_figure
from report.drawn import COINGECKO, SIMULATED, THEMES, texts, x_labels

HOUR, DAY = 3_600_000, 86_400_000
START = 1_704_067_200_000  # 2024-01-01T00:00:00Z


def luminance(colour: str) -> float:
    """By WCAG 2.2."""
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("name", THEMES)
def test_texts_and_lines_stand_out_from_the_paper(name):
    theme = style.THEMES[name]
    for text in (theme.ink, theme.quiet):
        assert contrast(text, theme.paper) >= 4.5
    lines = (theme.forecast, theme.persistence, theme.warning, theme.better, *theme.series)
    assert [colour for colour in lines if contrast(colour, theme.paper) < 3] == []
    assert contrast("#000000", theme.warning) >= 4.5  # the banner
    assert len(set(theme.series)) == 6
    assert (theme.shade(0), theme.shade(1)) == (theme.paper, theme.forecast.lower())


@pytest.mark.parametrize("name", THEMES)
def test_a_picture_has_the_colours_of_its_theme_when_drawn(name, prices):
    theme, before = style.THEMES[name], dict(rcParams)
    figure = price_figure(prices, windows=(7,), mark=SIMULATED, theme=name)
    with pyplot.rc_context({"text.color": "red", "xtick.labelcolor": "red", "grid.color": "red"}):
        labels = x_labels(figure.axes[0])
    (axes,) = figure.axes
    assert len(labels) > 2
    shown = [figure.texts[0], axes.xaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    legend = axes.get_legend()
    assert legend is not None
    shown += legend.get_texts()
    assert {to_hex(text.get_color()) for text in shown} == {theme.ink}
    assert to_hex(figure.get_facecolor()) == to_hex(axes.get_facecolor()) == theme.paper
    assert {to_hex(line.get_color()) for line in axes.get_xgridlines()} == {theme.grid}
    assert dict(rcParams) == before


def test_another_theme_is_refused_with_the_known_ones(prices):
    with pytest.raises(UsageError, match="theme: found 'blue', expected one of light, dark"):
        price_figure(prices, windows=(), mark=SIMULATED, theme="blue")  # type: ignore[arg-type]


def test_caption_and_banner_say_unit_and_source(prices, history):
    pictures = [price_figure(prices, windows=(7,), mark=mark) for mark in (SIMULATED, COINGECKO)]
    assert texts(pictures[0]) == [
        "Bitcoin in USD",
        "2024-01-01 00:00 to 2024-01-19 15:00 UTC. Prices in USD. Source: simulated:7 (the "
        "built-in simulated market).",
        "SIMULATED market (seed 7): not real prices",
        "SIMULATED",
    ]
    assert texts(pictures[1]) == [
        "Bitcoin in USD",
        "2024-01-01 00:00 to 2024-01-19 15:00 UTC. Prices in USD. Data provided by CoinGecko.",
    ]
    unknown = training_figure(history, mark=style.Mark("unknown", "bitcoin", "eur"), best=1)
    assert texts(unknown)[1] == "4 epochs. Prices in EUR. Source: unknown."


@settings(deadline=None, max_examples=15)
@given(
    step=st.sampled_from([1_000, 60_000, HOUR, 24 * HOUR]),
    count=st.integers(2, 4_000),
    start=st.integers(START - 10**11, START),
)
def test_dates_are_readable_at_every_span(step, count, start):
    figure = canvas.picture("Dates", mark=COINGECKO, theme="light")
    axes = figure.add_subplot()
    axes.plot(style.utc(pd.Series([start, start + step * (count - 1)])), [0, 1])
    canvas.set_time_axis(axes)
    labels = [tick for tick in ticks(axes) if tick.get_text()]
    assert 2 <= len(labels) <= 12
    boxes = [label.get_window_extent() for label in labels]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize(
    ("span", "labels", "rest"),
    [
        (10 * 60_000, ["12:50", "12:55", "13:00"], "29 Feb 2024"),
        (3 * HOUR, ["10:00", "10:30", "11:00", "11:30", "12:00", "12:30", "13:00"], "29 Feb 2024"),
        (2 * DAY, ["12:00", "28 Feb", "12:00", "29 Feb", "12:00"], "29 Feb 2024"),
        (21 * DAY, ["09 Feb", "13 Feb", "17 Feb", "21 Feb", "25 Feb", "29 Feb", "01 Mar"], "2024"),
        (150 * DAY, ["Oct", "Nov", "Dec", "2024", "Feb", "Mar"], ""),
        (12 * 365 * DAY, [str(year) for year in range(2010, 2026, 2)], ""),
    ],
)
def test_the_dates_of_a_span_are_these(span, labels, rest):
    end = 1_709_211_600_000  # 2024-02-29T13:00:00Z
    figure = canvas.picture("Dates", mark=COINGECKO, theme="light")
    axes = figure.add_subplot()
    axes.plot(style.utc(pd.Series([end - span, end])), [0, 1])
    canvas.set_time_axis(axes)
    assert x_labels(axes) == labels
    assert axes.xaxis.get_major_formatter().get_offset() == rest


def ticks(axes: Axes) -> list:
    x_labels(axes)
    low, high = axes.get_xlim()
    return [tick.label1 for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]


def test_dates_are_utc_whatever_the_readers_settings_say(prices):
    day = prices.head(7)

    def labels() -> list[str]:
        return x_labels(price_figure(day, windows=(), mark=COINGECKO).axes[0])

    usual = labels()
    with pyplot.rc_context({"timezone": "Asia/Tokyo"}):
        assert labels() == usual
    assert "01:00" in usual


def test_files_are_whole_alone_and_the_same_each_time(prices, tmp_path: Path):
    contents = []
    for _ in range(2):
        figure = price_figure(prices, windows=(7, 24), mark=SIMULATED, theme="dark")
        assert canvas.save({"price": figure}, tmp_path / "reports") == ("price.png", "price.svg")
        files = sorted((tmp_path / "reports").iterdir())
        assert [file.name for file in files] == ["price.png", "price.svg"]
        contents.append([file.read_bytes() for file in files])
    assert contents[0] == contents[1]
    pixels = image.imread(tmp_path / "reports" / "price.png")
    assert pixels.shape[:2] == (825, 1650)
    assert to_hex(pixels[0, 0]) == style.DARK.paper
    svg = contents[0][1].decode()
    assert ">mean of the last 24</text>" in svg and "SIMULATED" in svg
    assert "<dc:date>" not in svg


def test_a_failed_write_leaves_the_old_picture(prices, tmp_path: Path):
    figure = price_figure(prices, windows=(7,), mark=SIMULATED)
    canvas.save({"price": figure}, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # A label that is no text stops the drawing.
    figure.axes[0].set_xticks([0.0], [r"$\nothing$"])
    with pytest.raises(ValueError, match="nothing"):
        canvas.save({"price": figure}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_pictures_are_unknown_to_pyplot_and_are_freed(prices):
    figure = price_figure(prices, windows=(7,), mark=SIMULATED)
    kept = weakref.ref(figure)
    assert pyplot.get_fignums() == []
    del figure
    gc.collect()
    assert kept() is None
