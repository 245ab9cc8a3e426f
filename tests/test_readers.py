"""The pictures of the indicators, from a snapshot: no Spark, the numbers of its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bitstorm
from bitstorm.core.errors import UsageError
from landed import HOUR
from pipelines.priced import START, points_of, published, random_walk, small
from report.drawn import broken, line, texts, times

DAYS = 25
PRICES = random_walk(5)[:600]
HOLE = 300


@pytest.fixture(scope="module")
def indicators(tmp_path_factory: pytest.TempPathFactory) -> bitstorm.Indicators:
    """600 hours with a hole of ten; an imputed point; averages of two hours."""
    steps = np.arange(len(PRICES))
    steps[HOLE:] += 10
    points = points_of(PRICES, steps=steps)
    points.loc[100, "imputed"] = True
    points["ma_2"] = points["price"].rolling(2).mean().astype(float)
    points["volatility_3"] = points["price"].pct_change().rolling(3).std().astype(float)
    points["drawdown"] = (points["price"] / points["price"].cummax() - 1).astype(float)
    root = tmp_path_factory.mktemp("read")
    published(small(root), points)
    return bitstorm.open_workspace(root, quiet=True).indicators


def test_price_volatility_and_drawdown_are_those_of_the_rows(indicators):
    rows = indicators.to_pandas()
    for draw, label, column in (
        (indicators.plot_price, "price", "price"),
        (indicators.plot_price, "mean of the last 2", "ma_2"),
        (indicators.plot_volatility, "last 3 changes", "volatility_3"),
        (indicators.plot_drawdown, "below the highest price so far", "drawdown"),
    ):
        (axes,) = draw(theme="dark").axes
        np.testing.assert_array_equal(line(axes, label), broken(rows[column], HOLE - 1))


def test_the_forecast_of_the_volatility_ends_a_day_later(indicators):
    (axes,) = indicators.plot_volatility().axes
    last = START + (len(PRICES) + 9 + 24) * HOUR
    assert times(axes, "forecast a day before")[-1] == last
    # Too few points for a fit: nothing is drawn, and nothing fails.
    assert np.isnan(line(axes, "forecast a day before")).all()


@pytest.mark.parametrize(("period", "bars"), [(None, 7), ("4h", 7), ("1w", 5)])
def test_candles_are_of_any_period(indicators, period, bars):
    figure = indicators.plot_candles(period, last=7)
    shown = period or "1d"
    assert texts(figure)[0] == f"Bitcoin in USD, bars of {shown}"
    assert texts(figure)[1].startswith(f"{bars} bars of {shown}, ")
    with pytest.raises(UsageError, match="period: "):
        indicators.plot_candles("often")
    with pytest.raises(UsageError, match="last: found 0, expected at least 1"):
        indicators.plot_candles(last=0)


def test_returns_are_those_that_were_observed(indicators):
    density, _ = indicators.plot_returns().axes
    # None from the first point, over the hole, and from and to the imputed point.
    assert density.patches[0].get_label() == f"{len(PRICES) - 4} returns"
    first, second = indicators.plot_autocorrelation().axes
    returns = pd.Series(np.diff(np.log(PRICES), prepend=np.nan))
    returns[[HOLE, 100, 101]] = np.nan
    z = returns - returns.mean()
    grid = pd.Series(np.nan, range(len(PRICES) + 10))
    grid[:HOLE], grid[HOLE + 10 :] = z[:HOLE], z[HOLE:].to_numpy()
    expected = [(grid * grid.shift(lag)).mean() / (z**2).mean() for lag in range(1, 153)]
    np.testing.assert_allclose(line(first, "autocorrelation"), expected, rtol=1e-3, atol=1e-6)
    assert len(line(second, "autocorrelation")) == 610 // 4
    cells, _ = indicators.plot_hours().axes
    (shown,) = cells.get_images()
    assert np.asarray(shown.get_array()).shape == (7, 24)


def test_no_snapshot_no_picture(tmp_path: Path) -> None:
    empty = bitstorm.open_workspace(tmp_path / "new", quiet=True).indicators
    with pytest.raises(bitstorm.StoreError, match="run `bitstorm indicators` first"):
        empty.plot_price()
