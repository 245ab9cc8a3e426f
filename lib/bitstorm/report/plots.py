"""The pictures of a report: frames in, Matplotlib figures out, nothing global touched.

Every function takes what `mark` says about the data's source and puts it on the picture. The
time axis is UTC. Lines stop at a hole in the data; they never bridge it. Import this module inside
functions: it imports Matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bitstorm.core.errors import DataError
from bitstorm.report import style
from bitstorm.report.canvas import dress, legend, money_axis, percent_axis, picture, time_axis
from bitstorm.report.style import (
    FORECAST_COLUMNS,
    HISTORY_COLUMNS,
    Mark,
    require,
    returns_reach,
    score,
    share,
    squared_error_saved,
    typical_step,
    utc,
    with_breaks,
)


def price_figure(
    frame: pd.DataFrame, *, windows: Sequence[int], mark: Mark, step_ms: int | None = None
) -> Figure:
    """The price with its moving averages.

    `frame` has `timestamp` (int64 ms, ascending), `price` and `ma_W` for each of `windows`
    (steps of the grid), and perhaps `imputed`, whose points get a tick at the foot. `step_ms` is
    the distance of neighbouring rows, by default the median one. Raises DataError when a column
    is missing.
    """
    columns = ["price", *(f"ma_{w}" for w in windows)]
    require(frame, ["timestamp", *columns], of="price")
    lines = with_breaks(frame, columns, step_ms=step_ms)
    figure = picture(mark.subject, mark=mark)
    axes = figure.add_subplot()
    _line(axes, lines, "price", "price", color=style.INK, linewidth=0.9)
    _windows(axes, lines, "ma", windows, "mean of the last {}", linewidth=1.4)
    _imputed_ticks(axes, frame)
    dress(axes)
    money_axis(axes, mark.unit)
    time_axis(axes)
    legend(axes)
    return figure


def _imputed_ticks(axes: Axes, frame: pd.DataFrame) -> None:
    """Ticks at the foot where nothing was observed and the last price was carried forward."""
    if "imputed" not in frame.columns:
        return
    carried = utc(frame.loc[frame["imputed"].to_numpy(bool), "timestamp"])
    if carried.size:
        axes.vlines(
            carried,
            0,
            0.018,
            transform=axes.get_xaxis_transform(),
            color=style.QUIET,
            linewidth=0.8,
            label="no observation (carried forward)",
        )


def volatility_figure(
    frame: pd.DataFrame, *, windows: Sequence[int], mark: Mark, step_ms: int | None = None
) -> Figure:
    """The volatilities `volatility_W`: fractions of the price a step, drawn as percent.

    Takes what `price_figure` takes. Raises DataError when a column is missing.
    """
    columns = [f"volatility_{w}" for w in windows]
    require(frame, ["timestamp", *columns], of="volatility")
    lines = with_breaks(frame, columns, step_ms=step_ms)
    figure = picture(f"Volatility of {mark.subject}", mark=mark)
    axes = figure.add_subplot()
    _windows(axes, lines, "volatility", windows, "last {} changes", linewidth=1.2)
    dress(axes)
    axes.set_ylim(bottom=0)
    percent_axis(axes, "volatility a step (sample sd of the changes)")
    time_axis(axes)
    legend(axes)
    return figure


def forecast_figure(
    forecast: pd.DataFrame,
    *,
    mark: Mark,
    level: float | None = None,
    skill: float | None = None,
    last: int = 96,
) -> Figure:
    """Forecast and truth on the test part, four ways.

    A curve of price levels always looks convincing, since yesterday's price is close to today's.
    So the levels (the whole test part, and its `last` points with the interval of `level` and
    "the price stays as it is") stand beside two panels that show what the model adds: predicted
    against actual log returns on one scale, and the squared error saved against persistence.

    `forecast` has the columns of forecast.csv: `timestamp` (int64 ms, of the target), `actual`,
    `forecast`, `persistence`, `lower`, `upper` (money), `actual_log_return` and
    `forecast_log_return`. `skill` is that of metrics.json, of all points: `forecast` may be
    thinned. Raises DataError when a column is missing or there is no row.
    """
    _require_rows(forecast, FORECAST_COLUMNS, of="forecast")
    figure = picture(f"Forecast of {mark.subject}, on data it never saw", mark=mark, size=(14, 9))
    (whole, zoom), (returns, saved) = figure.subplots(2, 2)
    step = typical_step(forecast["timestamp"].to_numpy(np.int64))
    _levels(whole, forecast, step=step, mark=mark, title="Levels, the whole test part")
    tail = forecast.tail(last)
    _levels(
        zoom,
        tail,
        step=step,
        mark=mark,
        title=f"Levels, the last {len(tail):,} points",
        band="interval" if level is None else f"{share(level, digits=0)} interval",
    )
    _returns(returns, forecast)
    _saved(saved, forecast, skill=skill)
    return figure


def _levels(
    axes: Axes,
    forecast: pd.DataFrame,
    *,
    step: int,
    mark: Mark,
    title: str,
    band: str | None = None,
) -> None:

    names = ["actual", "forecast", "persistence", "lower", "upper"]
    lines = with_breaks(forecast, names, step_ms=step)
    if band:
        axes.fill_between(
            utc(lines["timestamp"]),
            lines["lower"],
            lines["upper"],
            color=style.FORECAST,
            alpha=0.15,
            linewidth=0,
            label=band,
        )
    stays = "the price stays as it is"
    _line(axes, lines, "persistence", stays, color=style.PERSISTENCE, linewidth=1.2)
    _line(axes, lines, "actual", "actual", color=style.INK, linewidth=1.1)
    dashed: dict[str, Any] = {
        "color": style.FORECAST,
        "linewidth": 1.1,
        "linestyle": (0, (4, 1.5)),
    }
    _line(axes, lines, "forecast", "forecast", **dashed)
    dress(axes, title=title)
    money_axis(axes, mark.unit)
    time_axis(axes)
    legend(axes)


def _returns(axes: Axes, forecast: pd.DataFrame) -> None:
    """Predicted against actual log returns, both axes on one scale."""
    reach = returns_reach(forecast)
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
    dress(axes, title="Log returns: predicted against actual, on one scale")
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    axes.set_xlabel("predicted log return")
    axes.set_ylabel("actual log return")
    legend(axes)


def _saved(axes: Axes, forecast: pd.DataFrame, *, skill: float | None) -> None:
    """The running sum of the squared error saved against persistence."""
    frame = pd.DataFrame(
        {"timestamp": forecast["timestamp"], "saved": squared_error_saved(forecast)}
    )
    found = "" if skill is None else f" (skill {score(skill)})"
    axes.axhline(0, color=style.PERSISTENCE, linewidth=1.4, label="the price stays as it is")
    label = "model: rising is better, falling is worse"
    _line(axes, with_breaks(frame, ["saved"]), "saved", label, color=style.FORECAST, linewidth=1.3)
    dress(axes, title=f"Squared error saved against persistence{found}")
    axes.set_ylabel("running sum, squared log return")
    # Matplotlib's shared exponent would stand on the legend's line.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    time_axis(axes)
    legend(axes)


def training_figure(history: pd.DataFrame, *, mark: Mark, best: int) -> Figure:
    """Training and validation loss of each epoch, and a line at the epoch `best`.

    `history` has `epoch` (from 1), `loss` and `val_loss` (mean squared error of the scaled
    target). Raises DataError when a column is missing or there is no row.
    """
    _require_rows(history, HISTORY_COLUMNS, of="training history")
    epochs = history["epoch"].to_numpy(np.int64)
    figure = picture("Training", mark=mark, size=(9, 5))
    axes = figure.add_subplot()
    dots: dict[str, Any] = {"marker": "o", "markersize": 4}
    axes.plot(epochs, history["loss"], color=style.INK, label="training", **dots)
    axes.plot(epochs, history["val_loss"], color=style.FORECAST, label="validation", **dots)
    best_label = f"best epoch ({best})"
    axes.axvline(best, color=style.BETTER, linestyle=":", linewidth=2, label=best_label)
    dress(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (mean squared error, scaled target)")
    legend(axes)
    return figure


def _line(axes: Axes, lines: pd.DataFrame, column: str, label: str, **style: Any) -> None:
    """`column` over time; `style` are Matplotlib's properties of a line."""
    axes.plot(utc(lines["timestamp"]), lines[column], label=label, **style)


def _windows(
    axes: Axes,
    lines: pd.DataFrame,
    name: str,
    windows: Sequence[int],
    label: str,
    *,
    linewidth: float,
) -> None:
    """A line for the column `name_W` of each window, each in its own colour."""
    for position, window in enumerate(windows):
        drawn = {"color": style.window_colour(position), "linewidth": linewidth}
        _line(axes, lines, f"{name}_{window}", label.format(window), **drawn)


def _require_rows(frame: pd.DataFrame, columns: Sequence[str], *, of: str) -> None:
    require(frame, columns, of=of)
    if frame.empty:
        raise DataError(f"the {of} frame has no row; there is nothing to draw")
