"""The pictures of the indicators over time.

A frame has `timestamp` (int64 ms UTC, ascending) and columns of IndicatorSchema, with all rows:
only what is drawn is thinned. `step_ms` is the distance of neighbouring rows, by default the median
one; a longer distance is a hole, where lines stop. Each function raises DataError where a column is
missing or there is no row, and UsageError for an unknown theme.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.dates import date2num
from matplotlib.figure import Figure

from bitstorm.core.time import DAY_MS, duration_text
from bitstorm.report import canvas, style
from bitstorm.report.plots.lines import draw_holes, draw_line, draw_windows, span_note
from bitstorm.report.style import Mark, ThemeName

_WEEK_MS = 7 * DAY_MS
# 1970-01-05T00:00:00Z: a bar of whole weeks begins on a Monday, as in `indicators.statistics`.
_MONDAY_MS = 4 * DAY_MS

# Beyond this ratio the low prices of a linear scale lie on its bottom.
_WIDE = 20
# No market has this one, and Matplotlib fails at some.
_TOO_WIDE = 1e12


@canvas.themed
def price_figure(
    frame: pd.DataFrame,
    *,
    windows: Sequence[int],
    mark: Mark,
    theme: ThemeName = "light",
    step_ms: int | None = None,
) -> Figure:
    """The price with its moving averages `ma_W`, and the holes shaded; on a log scale where the
    highest price is more than 20 times the lowest.

    Where `frame` has `imputed`, points without an observation get a tick at the bottom.
    """
    figure, axes, lines = _over_time(
        frame, ["price", *(f"ma_{w}" for w in windows)], mark.subject, mark, theme, step_ms
    )
    # On top, so that no average hides it.
    look: dict[str, Any] = {"color": canvas.colours(axes).ink, "linewidth": 0.8, "zorder": 3}
    draw_line(axes, lines, "price", "price", **look)
    draw_windows(axes, lines, "ma", windows, "mean of the last {}", linewidth=1.7)
    if "imputed" in frame.columns:
        _draw_imputed(axes, frame)
    scale = ""
    low, high = float(frame["price"].min()), float(frame["price"].max())
    if _WIDE * low < high < _TOO_WIDE * low:
        canvas.set_log_scale(axes)
        scale = ", log scale"
    canvas.set_money_axis(axes, f"{mark.unit}{scale}")
    canvas.add_legend(axes)
    return figure


def _over_time(
    frame: pd.DataFrame,
    columns: Sequence[str],
    title: str,
    mark: Mark,
    theme: ThemeName,
    step_ms: int | None,
) -> tuple[Figure, Axes, pd.DataFrame]:
    """The axes of a picture over time with its holes, and the lines to draw there."""
    style.require_rows(frame, ["timestamp", *columns], of="indicators")
    timestamp = frame["timestamp"].to_numpy(np.int64)
    step = style.typical_step(timestamp) if step_ms is None else step_ms
    figure = canvas.picture(title, mark=mark, theme=theme, note=span_note(timestamp))
    axes = figure.add_subplot()
    draw_holes(axes, timestamp, step)
    canvas.set_time_axis(axes)
    lines = style.with_breaks(frame, columns, step_ms=step)
    return figure, axes, style.extremes(lines, columns[0])


def _draw_imputed(axes: Axes, frame: pd.DataFrame) -> None:
    carried = style.utc(frame.loc[frame["imputed"].to_numpy(bool), "timestamp"])
    if carried.size:
        look: dict[str, Any] = {"color": canvas.colours(axes).quiet, "linewidth": 0.8}
        look |= {"label": "no observation (carried forward)"}
        axes.vlines(carried, 0, 0.018, transform=axes.get_xaxis_transform(), **look)


@canvas.themed
def volatility_figure(
    frame: pd.DataFrame,
    *,
    windows: Sequence[int],
    mark: Mark,
    theme: ThemeName = "light",
    step_ms: int | None = None,
    forecast: pd.DataFrame | None = None,
) -> Figure:
    """The volatilities `volatility_W`: fractions of the price a step, drawn as percent.

    `forecast` has `timestamp` (the end of the window that is forecast) and `volatility`, as
    `backtest.outlook.volatility_forecasts` gives it: it goes on behind the newest row.
    """
    columns = [f"volatility_{w}" for w in windows]
    figure, axes, lines = _over_time(
        frame, columns, f"Volatility of {mark.subject}", mark, theme, step_ms
    )
    draw_windows(axes, lines, "volatility", windows, "last {} changes", linewidth=1.1)
    if forecast is not None:
        style.require(forecast, ["timestamp", "volatility"], of="volatility forecast")
        ahead = style.extremes(style.with_breaks(forecast, ["volatility"]), "volatility")
        look = {"color": canvas.colours(axes).ink, "linewidth": 0.9}
        draw_line(axes, ahead, "volatility", "forecast a day before", **look)
    axes.set_ylim(bottom=0)
    canvas.set_percent_axis(axes, "volatility a step (sample sd of the changes)")
    canvas.add_legend(axes)
    return figure


@canvas.themed
def drawdown_figure(frame: pd.DataFrame, *, mark: Mark, theme: ThemeName = "light") -> Figure:
    """How far the price is below its highest so far, with the deepest point."""
    title = f"Drawdown of {mark.subject}"
    figure, axes, lines = _over_time(frame, ["drawdown"], title, mark, theme, None)
    look, time = canvas.colours(axes), style.utc(lines["timestamp"])
    axes.fill_between(time, lines["drawdown"], 0, color=look.warning, alpha=0.25, linewidth=0)
    draw_line(axes, lines, "drawdown", "below the highest price so far", color=look.warning)
    deepest = frame.loc[[frame["drawdown"].idxmin()]] if frame["drawdown"].notna().any() else None
    if deepest is not None:
        value = float(deepest["drawdown"].iloc[0])
        when = style.utc(deepest["timestamp"])
        day = str(when[0].astype("datetime64[D]"))
        label = f"deepest: {style.share(value)} on {day}"
        axes.plot(when, [value], "o", color=look.ink, markersize=5, label=label)
    axes.set_ylim(top=0)
    canvas.set_percent_axis(axes, "below the highest price so far")
    canvas.add_legend(axes)
    return figure


def usual_period(step_ms: int) -> int:
    """The length of a bar in ms: a day; on a grid of days or longer seven steps."""
    return DAY_MS if step_ms < DAY_MS else 7 * step_ms


def bars_of(frame: pd.DataFrame, *, period_ms: int) -> pd.DataFrame:
    """Bars of the observed prices of `frame` (`timestamp`, `price`, optionally `imputed`).

    As `bitstorm stats`: the bar labelled t holds the prices of (t - period, t]. Columns:
    `timestamp`, `open`, `high`, `low`, `close`. A period without a price has no bar.
    """
    style.require_rows(frame, ["timestamp", "price"], of="indicators")
    if "imputed" in frame.columns:
        frame = frame[~frame["imputed"].to_numpy(bool)]
    time = frame["timestamp"].to_numpy(np.int64)
    origin = _MONDAY_MS if period_ms % _WEEK_MS == 0 else 0
    label = pd.Series(time + (origin - time) % period_ms, name="timestamp")
    prices = pd.Series(frame["price"].to_numpy(np.float64)).groupby(label)
    return prices.agg(open="first", high="max", low="min", close="last").reset_index()


@canvas.themed
def candle_figure(
    bars: pd.DataFrame, *, mark: Mark, theme: ThemeName = "light", period_ms: int | None = None
) -> Figure:
    """Candlesticks: from low to high a line, from open to close a body.

    `bars` has `timestamp` (ms UTC, the bar's end), `open`, `high`, `low`, `close`. `period_ms` is
    the length of a bar, by default the median distance. Raises DataError where a column is missing
    or there is no row.
    """
    style.require_rows(bars, ["timestamp", "open", "high", "low", "close"], of="bars")
    end = bars["timestamp"].to_numpy(np.int64)
    period = period_ms or style.typical_step(end) or DAY_MS
    note = f"{len(bars):,} bars of {duration_text(period)}, {span_note(end)}"
    figure = canvas.picture(f"{mark.subject}, bars of {duration_text(period)}", mark=mark,
                            theme=theme, note=note)  # fmt: skip
    axes, look = figure.add_subplot(), figure.theme
    canvas.set_time_axis(axes)
    middle = date2num((end - period // 2).astype("datetime64[ms]"))
    half = 0.36 * period / DAY_MS
    first, high, low, last = (
        bars[name].to_numpy(np.float64) for name in ("open", "high", "low", "close")
    )
    rises = last >= first
    for chosen, colour, label in (
        (rises, look.forecast, "rises: the close is not below the open"),
        (~rises, look.warning, "falls"),
    ):
        x = middle[chosen]
        drawn: dict[str, Any] = {"color": colour, "linewidth": 0.9}
        wicks = np.stack([np.column_stack([x, low[chosen]]), np.column_stack([x, high[chosen]])], 1)
        axes.add_collection(LineCollection(list(wicks), **drawn))
        corners = [(x - half, first), (x + half, first), (x + half, last), (x - half, last)]
        bodies = np.stack([np.column_stack([at, price[chosen]]) for at, price in corners], axis=1)
        axes.add_collection(PolyCollection(list(bodies), label=label, **drawn))
    axes.set_xlim(middle[0] - 2 * half, middle[-1] + 2 * half)
    axes.autoscale_view(scalex=False)
    canvas.set_money_axis(axes, mark.unit)
    canvas.add_legend(axes)
    return figure
