"""The pictures of the returns against statistics that are computed here."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import StepPatch
from scipy import stats

from bitstorm.core.errors import DataError
from bitstorm.report import autocorrelation_figure, hours_figure, return_figure
from bitstorm.report.plots.returns import observed_returns
from report.drawn import COINGECKO, SIMULATED, THEMES, band, corners, line, places, texts

HOUR = 3_600_000
START = 1_704_067_200_000  # 2024-01-01T00:00:00Z, a Monday
ROWS = 2_000


@pytest.fixture
def frame() -> pd.DataFrame:
    returns = 0.004 * np.random.default_rng(8).standard_t(3, ROWS)
    returns[0] = np.nan
    carried = np.arange(ROWS) % 400 == 100
    return pd.DataFrame(
        {
            "timestamp": START + HOUR * np.arange(ROWS),
            "log_return": np.where(carried, 0.0, returns),
            "imputed": carried,
        }
    )


def test_a_return_from_or_to_a_carried_price_is_not_observed(frame):
    found = observed_returns(frame)
    unknown = [0, *(n + k for n in range(100, ROWS, 400) for k in (0, 1))]
    assert np.flatnonzero(np.isnan(found)).tolist() == unknown
    known = np.delete(np.arange(ROWS), unknown)
    np.testing.assert_array_equal(found[known], frame["log_return"].to_numpy()[known])


@pytest.mark.parametrize("theme", THEMES)
def test_the_histogram_stands_beside_both_fits(frame, theme):
    figure = return_figure(frame, mark=SIMULATED, theme=theme)
    density, _ = figure.axes
    values = observed_returns(frame)
    values = values[np.isfinite(values)]
    (bars,) = [patch for patch in density.patches if isinstance(patch, StepPatch)]
    heights, edges, _ = bars.get_data()
    expected, _ = np.histogram(values, bins=edges)
    np.testing.assert_allclose(heights * np.diff(edges) * len(values), expected)
    assert (edges[0], edges[-1]) == (values.min(), values.max())
    assert bars.get_label() == f"{len(values):,} returns"
    x = places(density, "normal")
    normal = stats.norm(values.mean(), values.std(ddof=1))
    np.testing.assert_allclose(line(density, "normal"), normal.pdf(x))
    freedom, *rest = stats.t.fit(values / values.std())
    label = f"Student-t, {freedom:.1f} degrees of freedom"
    student = stats.t(freedom, *(part * values.std() for part in rest))
    np.testing.assert_allclose(line(density, label), student.pdf(x), rtol=0.01)
    assert density.get_yscale() == "log"
    # The tails of the normal are far below one return in all: they may not stretch the scale.
    assert density.get_ylim()[0] == pytest.approx(0.4 / (len(values) * (edges[1] - edges[0])))


def test_the_quantiles_hold_all_extremes(frame):
    _, quantiles = return_figure(frame, mark=COINGECKO).axes
    values = observed_returns(frame)
    values = np.sort(values[np.isfinite(values)])
    drawn, x = line(quantiles, "normal"), places(quantiles, "normal")
    np.testing.assert_array_equal(drawn[:50], values[:50])
    np.testing.assert_array_equal(drawn[-50:], values[-50:])
    ranks = np.searchsorted(values, drawn)
    fit = stats.norm(values.mean(), values.std(ddof=1))
    np.testing.assert_allclose(x, fit.ppf((ranks + 0.5) / len(values)))
    low, high = quantiles.get_xlim()
    assert -low == high == pytest.approx(1.5 * np.abs(values).max())
    assert quantiles.get_title(loc="left") == "QQ: on the line the fit is right"


def test_quantiles_far_off_are_counted_and_not_shown(frame):
    values = np.clip(0.001 * np.random.default_rng(9).standard_cauchy(ROWS), -0.02, 0.02)
    heavy = frame.assign(log_return=values, imputed=False)
    _, quantiles = return_figure(heavy, mark=COINGECKO).axes
    beyond = int((np.abs(places(quantiles, "Student-t")) > quantiles.get_xlim()[1]).sum())
    assert beyond > 0
    title = f"QQ: on the line the fit is right; {beyond} off the scale"
    assert quantiles.get_title(loc="left") == title


def test_a_price_that_never_moves_has_no_fit(frame):
    still = frame.assign(log_return=0.0)
    density, quantiles = return_figure(still, mark=COINGECKO).axes
    assert density.get_lines()[:] == []
    assert [of.get_label() for of in quantiles.get_lines()] == ["a perfect fit"]
    still_band = autocorrelation_figure(still, mark=COINGECKO)
    still_band.draw_without_rendering()


@pytest.mark.parametrize("theme", THEMES)
def test_autocorrelations_are_of_returns_and_of_sizes(frame, theme):
    figure = autocorrelation_figure(frame, mark=SIMULATED, theme=theme)
    returns, lags = pd.Series(observed_returns(frame)), list(range(1, 169))
    for axes, values in zip(figure.axes, (returns, returns.abs()), strict=True):
        z = values - values.mean()
        expected = [(z * z.shift(lag)).mean() / (z**2).mean() for lag in lags]
        np.testing.assert_allclose(line(axes, "autocorrelation"), expected, rtol=1e-9)
        assert places(axes, "autocorrelation").tolist() == lags
        edges = corners(band(axes, "95 % band without dependence"))
        for lag in (1, 2, 24):
            pairs = (z * z.shift(lag)).notna().sum()
            half = 1.96 * np.sqrt((z**2 * z.shift(lag) ** 2).sum()) / (pairs * (z**2).mean())
            heights = np.unique(np.round(edges[edges[:, 0] == lag, 1], 12))
            np.testing.assert_allclose(heights, [-half, half], rtol=1e-9)
    assert figure.axes[1].get_xlabel() == "lag (steps of 1h)"


@pytest.mark.parametrize("theme", THEMES)
def test_each_cell_is_the_mean_size_of_its_hour_and_weekday(frame, theme):
    axes, bar = hours_figure(frame, mark=SIMULATED, theme=theme).axes
    (shown,) = axes.get_images()
    cells: dict[tuple[int, int], list[float]] = {}
    for time, value in zip(frame["timestamp"], observed_returns(frame), strict=True):
        begin = datetime.fromtimestamp(time / 1000 - 1, UTC)
        if np.isfinite(value):
            cells.setdefault((begin.weekday(), begin.hour), []).append(abs(value))
    assert len(cells) == 7 * 24
    expected = [[100 * np.mean(cells[day, hour]) for hour in range(24)] for day in range(7)]
    np.testing.assert_allclose(np.asarray(shown.get_array()), expected)
    assert [tick.get_text() for tick in axes.get_yticklabels()][0::6] == ["Mon", "Sun"]
    assert [tick.get_text() for tick in axes.get_xticklabels()][0::23] == ["00", "23"]
    assert "%" in bar.get_ylabel()


def test_hours_never_seen_stay_empty(frame):
    axes, _ = hours_figure(frame.head(30), mark=COINGECKO).axes
    (shown,) = axes.get_images()
    # 29 returns, from 00:00 on Monday.
    assert np.isfinite(np.asarray(shown.get_array(), float)).sum() == 29


def test_what_cannot_be_drawn_is_said(frame):
    days = frame.assign(timestamp=START + 24 * HOUR * np.arange(ROWS))
    with pytest.raises(DataError, match="the grid's step is 1d, and hours need one of at most 1h"):
        hours_figure(days, mark=SIMULATED)
    for draw in (return_figure, autocorrelation_figure, hours_figure):
        with pytest.raises(DataError, match="fewer than two observed returns"):
            draw(frame.head(2), mark=SIMULATED)
        assert ("SIMULATED" in texts(draw(frame.head(40), mark=SIMULATED))) is True
        draw(frame.head(3), mark=SIMULATED).draw_without_rendering()
