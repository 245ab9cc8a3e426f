"""The pictures of a report: frames in, Matplotlib figures out, nothing global touched.

Every function takes what `mark` says about the data's source and puts it on the picture. The
time axis is UTC. Lines stop at a hole in the data; they never bridge it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bitstorm.report import palette
from bitstorm.report.mark import Mark
from bitstorm.report.numbers import score, share
from bitstorm.report.series import (
    require,
    returns_reach,
    skill,
    squared_error_saved,
    typical_step,
    utc,
    with_breaks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORECAST_COLUMNS = (
    "timestamp",
    "actual",
    "forecast",
    "persistence",
    "lower",
    "upper",
    "actual_log_return",
    "forecast_log_return",
)
HISTORY_COLUMNS = ("epoch", "loss", "val_loss")


def price_figure(
    frame: pd.DataFrame, *, windows: Sequence[int], mark: Mark, step_ms: int | None = None
) -> Figure:
    """The price with its moving averages.

    `frame` has `timestamp` (int64 ms, ascending), `price` and `ma_W` for each of `windows`
    (steps of the grid), and perhaps `imputed`, whose points get a tick at the foot. `step_ms` is
    the distance of neighbouring rows, by default the median one. Raises DataError when a column
    is missing.
    """
    from bitstorm.report.canvas import dress, legend, money_axis, picture, time_axis

    columns = ["price", *(f"ma_{w}" for w in windows)]
    require(frame, ["timestamp", *columns], of="price")
    lines = with_breaks(frame, columns, step_ms=step_ms)
    figure = picture(mark.subject, mark=mark)
    axes = figure.add_subplot()
    times = utc(lines["timestamp"])
    axes.plot(times, lines["price"], color=palette.INK, linewidth=0.9, label="price")
    for position, window in enumerate(windows):
        axes.plot(
            times,
            lines[f"ma_{window}"],
            color=palette.window_colour(position),
            linewidth=1.4,
            label=f"mean of the last {window}",
        )
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
            color=palette.QUIET,
            linewidth=0.8,
            label="no observation (carried forward)",
        )


def volatility_figure(
    frame: pd.DataFrame, *, windows: Sequence[int], mark: Mark, step_ms: int | None = None
) -> Figure:
    """The volatilities `volatility_W`: fractions of the price a step, drawn as percent.

    Takes what `price_figure` takes. Raises DataError when a column is missing.
    """
    from bitstorm.report.canvas import dress, legend, percent_axis, picture, time_axis

    columns = [f"volatility_{w}" for w in windows]
    require(frame, ["timestamp", *columns], of="volatility")
    lines = with_breaks(frame, columns, step_ms=step_ms)
    figure = picture(f"Volatility of {mark.subject}", mark=mark)
    axes = figure.add_subplot()
    for position, window in enumerate(windows):
        axes.plot(
            utc(lines["timestamp"]),
            lines[f"volatility_{window}"],
            color=palette.window_colour(position),
            linewidth=1.2,
            label=f"last {window} changes",
        )
    dress(axes)
    axes.set_ylim(bottom=0)
    percent_axis(axes, "volatility a step (sample sd of the changes)")
    time_axis(axes)
    legend(axes)
    return figure


def forecast_figure(
    forecast: pd.DataFrame, *, mark: Mark, level: float | None = None, last: int = 96
) -> Figure:
    """Forecast and truth on the test part, four ways.

    A curve of price levels always looks convincing, since yesterday's price is close to today's.
    So the levels (the whole test part, and its `last` points with the interval of `level` and
    "the price stays as it is") stand beside two panels that show what the model adds: predicted
    against actual log returns on one scale, and the squared error saved against persistence.

    `forecast` has the columns of forecast.csv: `timestamp` (int64 ms, of the target), `actual`,
    `forecast`, `persistence`, `lower`, `upper` (money), `actual_log_return` and
    `forecast_log_return`. Raises DataError when a column is missing or there is no row.
    """
    from bitstorm.report.canvas import picture

    require(forecast, FORECAST_COLUMNS, of="forecast")
    if forecast.empty:
        _no_rows("forecast")
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
    _saved(saved, forecast, step=step)
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
    from bitstorm.report.canvas import dress, legend, money_axis, time_axis

    names = ["actual", "forecast", "persistence", "lower", "upper"]
    lines = with_breaks(forecast, names, step_ms=step)
    times = utc(lines["timestamp"])
    if band:
        axes.fill_between(
            times,
            lines["lower"],
            lines["upper"],
            color=palette.FORECAST,
            alpha=0.15,
            linewidth=0,
            label=band,
        )
    axes.plot(
        times,
        lines["persistence"],
        color=palette.PERSISTENCE,
        linewidth=1.2,
        label="the price stays as it is",
    )
    axes.plot(times, lines["actual"], color=palette.INK, linewidth=1.1, label="actual")
    axes.plot(
        times,
        lines["forecast"],
        color=palette.FORECAST,
        linewidth=1.1,
        linestyle=(0, (4, 1.5)),
        label="forecast",
    )
    dress(axes, title=title)
    money_axis(axes, mark.unit)
    time_axis(axes)
    legend(axes)


def _returns(axes: Axes, forecast: pd.DataFrame) -> None:
    """Predicted against actual log returns, both axes on one scale."""
    from bitstorm.report.canvas import dress, legend

    actual = forecast["actual_log_return"].to_numpy(np.float64)
    predicted = forecast["forecast_log_return"].to_numpy(np.float64)
    reach = returns_reach(forecast)
    axes.axvline(0, color=palette.PERSISTENCE, linewidth=1.4, label="the price stays as it is")
    axes.plot(
        [-reach, reach],
        [-reach, reach],
        color=palette.QUIET,
        linestyle="--",
        linewidth=1,
        label="a perfect forecast",
    )
    axes.scatter(
        predicted,
        actual,
        s=9,
        color=palette.FORECAST,
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


def _saved(axes: Axes, forecast: pd.DataFrame, *, step: int) -> None:
    """The running sum of the squared error saved against persistence."""
    from matplotlib.ticker import FuncFormatter

    from bitstorm.report.canvas import dress, legend, time_axis

    frame = pd.DataFrame(
        {"timestamp": forecast["timestamp"], "saved": squared_error_saved(forecast)}
    )
    lines = with_breaks(frame, ["saved"], step_ms=step)
    reached = skill(forecast)
    found = "" if reached is None else f" (skill {score(reached)})"
    axes.axhline(0, color=palette.PERSISTENCE, linewidth=1.4, label="the price stays as it is")
    axes.plot(
        utc(lines["timestamp"]),
        lines["saved"],
        color=palette.FORECAST,
        linewidth=1.3,
        label="model: rising is better, falling is worse",
    )
    dress(axes, title=f"Squared error saved against persistence{found}")
    axes.set_ylabel("running sum, squared log return")
    # Matplotlib's shared exponent would stand on the legend's line.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    time_axis(axes)
    legend(axes)


def training_figure(history: pd.DataFrame, *, mark: Mark, best: int | None = None) -> Figure:
    """Training and validation loss of each epoch, and `best`: else that of the least validation
    loss.

    `history` has `epoch` (from 1), `loss` and `val_loss` (mean squared error of the scaled
    target). Raises DataError when a column is missing or there is no row.
    """
    from matplotlib.ticker import MaxNLocator

    from bitstorm.report.canvas import dress, legend, picture

    require(history, HISTORY_COLUMNS, of="training history")
    if history.empty:
        _no_rows("training history")
    epochs = history["epoch"].to_numpy(np.int64)
    figure = picture("Training", mark=mark, size=(9, 5))
    axes = figure.add_subplot()
    axes.plot(
        epochs, history["loss"], color=palette.INK, marker="o", markersize=4, label="training"
    )
    axes.plot(
        epochs,
        history["val_loss"],
        color=palette.FORECAST,
        marker="o",
        markersize=4,
        label="validation",
    )
    best = best_epoch(history) if best is None else best
    if best is not None:
        axes.axvline(
            best, color=palette.BETTER, linestyle=":", linewidth=2, label=f"best epoch ({best})"
        )
    dress(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (mean squared error, scaled target)")
    legend(axes)
    return figure


def best_epoch(history: pd.DataFrame) -> int | None:
    """The first epoch of the smallest finite validation loss; None when there is no such loss."""
    losses = history["val_loss"].to_numpy(np.float64)
    if not np.isfinite(losses).any():
        return None
    return int(
        history["epoch"].to_numpy()[np.nanargmin(np.where(np.isinf(losses), np.nan, losses))]
    )


def save_png(figure: Figure, path: Path) -> None:
    """Write the picture as PNG; a reader of `path` sees the old file or the whole new one."""
    from bitstorm.report.canvas import save_png as save

    save(figure, path)


def _no_rows(name: str) -> None:
    from bitstorm.errors import DataError

    raise DataError(f"the {name} frame has no row; there is nothing to draw")
