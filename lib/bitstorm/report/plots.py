"""The pictures of a report: frames in, Matplotlib figures out, without global state.

Each picture shows the `mark` of the data's source. The time axis is UTC. Lines stop at a hole in
the data. Import this module inside functions: it imports Matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bitstorm.core.errors import DataError
from bitstorm.report import canvas, style


def price_figure(
    frame: pd.DataFrame, *, windows: Sequence[int], mark: style.Mark, step_ms: int | None = None
) -> Figure:
    """The price with its moving averages.

    `frame` has `timestamp` (int64 ms, ascending), `price`, `ma_W` for each of `windows` (steps of
    the grid), and optionally `imputed`, whose points get a tick at the bottom. `step_ms` is the
    distance of neighbouring rows, by default the median one. Raises DataError where a column is
    missing.
    """
    columns = ["price", *(f"ma_{w}" for w in windows)]
    style.require(frame, ["timestamp", *columns], of="price")
    lines = style.with_breaks(frame, columns, step_ms=step_ms)
    figure = canvas.picture(mark.subject, mark=mark)
    axes = figure.add_subplot()
    _draw_line(axes, lines, "price", "price", color=style.INK, linewidth=0.9)
    _draw_windows(axes, lines, "ma", windows, "mean of the last {}", linewidth=1.4)
    _draw_imputed(axes, frame)
    canvas.style_axes(axes)
    canvas.set_money_axis(axes, mark.unit)
    canvas.set_time_axis(axes)
    canvas.add_legend(axes)
    return figure


def _draw_imputed(axes: Axes, frame: pd.DataFrame) -> None:
    """Ticks at the bottom where the last price was carried forward, if the frame has `imputed`."""
    if "imputed" not in frame.columns:
        return
    carried = style.utc(frame.loc[frame["imputed"].to_numpy(bool), "timestamp"])
    if carried.size:
        look: dict[str, Any] = {"color": style.QUIET, "linewidth": 0.8}
        look |= {"label": "no observation (carried forward)"}
        axes.vlines(carried, 0, 0.018, transform=axes.get_xaxis_transform(), **look)


def volatility_figure(
    frame: pd.DataFrame, *, windows: Sequence[int], mark: style.Mark, step_ms: int | None = None
) -> Figure:
    """The volatilities `volatility_W`: fractions of the price a step, drawn as percent.

    Arguments and errors are as in `price_figure`.
    """
    columns = [f"volatility_{w}" for w in windows]
    style.require(frame, ["timestamp", *columns], of="volatility")
    lines = style.with_breaks(frame, columns, step_ms=step_ms)
    figure = canvas.picture(f"Volatility of {mark.subject}", mark=mark)
    axes = figure.add_subplot()
    _draw_windows(axes, lines, "volatility", windows, "last {} changes", linewidth=1.2)
    canvas.style_axes(axes)
    axes.set_ylim(bottom=0)
    canvas.set_percent_axis(axes, "volatility a step (sample sd of the changes)")
    canvas.set_time_axis(axes)
    canvas.add_legend(axes)
    return figure


def forecast_figure(
    forecast: pd.DataFrame,
    *,
    mark: style.Mark,
    level: float | None = None,
    skill: float | None = None,
    last: int = 96,
) -> Figure:
    """Forecast and actual price on the test part, in four panels.

    A curve of price levels always looks convincing, since yesterday's price is close to today's.
    So two panels show levels (the whole test part, and its `last` points with the interval of
    `level` and "the price stays as it is"), and two show what the model adds: predicted against
    actual log returns on one scale, and the squared error saved against persistence.

    `forecast` has all rows and the columns of forecast.csv (times in ms UTC, of the targets); only
    what is drawn is thinned. `skill` is from metrics.json. Raises DataError where a column is
    missing or there is no row.
    """
    _require_rows(forecast, style.FORECAST_COLUMNS, of="forecast")
    figure = canvas.picture(
        f"Forecast of {mark.subject}, on data it never saw", mark=mark, size=(14, 9)
    )
    (whole, zoom), (returns, saved) = figure.subplots(2, 2)
    seen = style.thinned(forecast.assign(saved=style.squared_error_saved(forecast)))
    _draw_levels(whole, seen, mark, "Levels, the whole test part")
    tail = forecast.tail(last)
    band = "interval" if level is None else f"{style.share(level, digits=0)} interval"
    _draw_levels(zoom, tail, mark, f"Levels, the last {len(tail):,} points", band)
    _draw_returns(returns, seen, reach=style.returns_reach(forecast))
    _draw_saved(saved, seen, skill=skill)
    return figure


def _draw_levels(
    axes: Axes, forecast: pd.DataFrame, mark: style.Mark, title: str, band: str | None = None
) -> None:
    """Actual price, forecast and persistence, and the interval where `band` names it."""
    lines = style.with_breaks(forecast, style.LEVELS)
    if band:
        look: dict[str, Any] = {"color": style.FORECAST, "alpha": 0.15, "linewidth": 0}
        time = style.utc(lines["timestamp"])
        axes.fill_between(time, lines["lower"], lines["upper"], label=band, **look)
    stays = "the price stays as it is"
    _draw_line(axes, lines, "persistence", stays, color=style.PERSISTENCE, linewidth=1.2)
    _draw_line(axes, lines, "actual", "actual", color=style.INK, linewidth=1.1)
    dashed: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (4, 1.5))}
    _draw_line(axes, lines, "forecast", "forecast", color=style.FORECAST, **dashed)
    canvas.style_axes(axes, title=title)
    canvas.set_money_axis(axes, mark.unit)
    canvas.set_time_axis(axes)
    canvas.add_legend(axes)


def _draw_returns(axes: Axes, forecast: pd.DataFrame, *, reach: float) -> None:
    """Predicted against actual log returns, both axes on one scale, up to `reach`."""
    diagonal: dict[str, Any] = {"color": style.QUIET, "linestyle": "--", "linewidth": 1}
    axes.axvline(0, color=style.PERSISTENCE, linewidth=1.4, label="the price stays as it is")
    axes.plot([-reach, reach], [-reach, reach], label="a perfect forecast", **diagonal)
    axes.scatter(
        forecast["forecast_log_return"],
        forecast["actual_log_return"],
        s=9,
        color=style.FORECAST,
        alpha=0.35,
        linewidths=0,
        label="one step of the test part",
    )
    canvas.style_axes(axes, title="Log returns: predicted against actual, on one scale")
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_xlabel("predicted log return")
    axes.set_ylabel("actual log return")
    canvas.add_legend(axes)


def _draw_saved(axes: Axes, forecast: pd.DataFrame, *, skill: float | None) -> None:
    """The running sum of the squared error saved against persistence: the column `saved`."""
    lines = style.with_breaks(forecast, ["saved"])
    measured = "" if skill is None else f" (skill {style.score(skill)})"
    axes.axhline(0, color=style.PERSISTENCE, linewidth=1.4, label="the price stays as it is")
    label = "model: rising is better, falling is worse"
    _draw_line(axes, lines, "saved", label, color=style.FORECAST, linewidth=1.3)
    canvas.style_axes(axes, title=f"Squared error saved against persistence{measured}")
    axes.set_ylabel("running sum, squared log return")
    # Matplotlib's shared exponent would overlap the legend.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    canvas.set_time_axis(axes)
    canvas.add_legend(axes)


def training_figure(history: pd.DataFrame, *, mark: style.Mark, best: int) -> Figure:
    """Training and validation loss of each epoch, and a line at the epoch `best`.

    `history` has `epoch` (from 1), `loss` and `val_loss` (mean squared error of the scaled
    target). Raises DataError where a column is missing or there is no row.
    """
    _require_rows(history, style.HISTORY_COLUMNS, of="training history")
    epochs = history["epoch"].to_numpy(np.int64)
    figure = canvas.picture("Training", mark=mark, size=(9, 5))
    axes = figure.add_subplot()
    dots: dict[str, Any] = {"marker": "o", "markersize": 4}
    axes.plot(epochs, history["loss"], color=style.INK, label="training", **dots)
    axes.plot(epochs, history["val_loss"], color=style.FORECAST, label="validation", **dots)
    best_label = f"best epoch ({best})"
    axes.axvline(best, color=style.BETTER, linestyle=":", linewidth=2, label=best_label)
    canvas.style_axes(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (mean squared error, scaled target)")
    canvas.add_legend(axes)
    return figure


def importance_figure(importance: Mapping[str, float], *, mark: style.Mark) -> Figure:
    """A bar for each setting of a study, the most important one at the top.

    `importance` has the weight of each in whether a trial is in the better half; the sum is 1.
    """
    names = sorted(importance, key=lambda name: importance[name])
    shares = [importance[name] for name in names]
    figure = canvas.picture("What makes a good trial", mark=mark, size=(9, 4))
    axes = figure.add_subplot()
    bars = axes.barh(names, shares, color=style.FORECAST, height=0.6)
    labels = [style.share(share, digits=0) for share in shares]
    axes.bar_label(bars, labels, padding=4, color=style.INK)
    canvas.style_axes(axes)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.share(value, digits=0)))
    axes.set_xlabel("weight in whether a trial is in the better half")
    return figure


def _draw_line(axes: Axes, lines: pd.DataFrame, column: str, label: str, **look: Any) -> None:
    """Draw `column` over time; `look` are Matplotlib's properties of a line."""
    axes.plot(style.utc(lines["timestamp"]), lines[column], label=label, **look)


def _draw_windows(
    axes: Axes, lines: pd.DataFrame, name: str, windows: Sequence[int], label: str, **look: Any
) -> None:
    """A line for the column `name_W` of each window, each in its own colour."""
    for position, window in enumerate(windows):
        look["color"] = style.window_colour(position)
        _draw_line(axes, lines, f"{name}_{window}", label.format(window), **look)


def _require_rows(frame: pd.DataFrame, columns: Sequence[str], *, of: str) -> None:
    style.require(frame, columns, of=of)
    if frame.empty:
        raise DataError(f"the {of} frame has no row; there is nothing to draw")
