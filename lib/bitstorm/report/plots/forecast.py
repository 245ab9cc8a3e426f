"""The pictures of a forecast: the next steps, and the test part.

Each function raises DataError where a column is missing or there is no row, and UsageError for an
unknown theme.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bitstorm.core.time import iso
from bitstorm.report import canvas, style
from bitstorm.report.plots.lines import draw_line, draw_persistence, span_note
from bitstorm.report.style import Mark, ThemeName

_FAN = ("timestamp", "origin", "origin_price", "forecast")
# So many points of the test part show prices.
_LAST = 96
_DASHED: dict[str, Any] = {"linestyle": (0, (4, 1.5))}


@canvas.themed
def fan_figure(
    fan: pd.DataFrame,
    *,
    mark: Mark,
    theme: ThemeName = "light",
    past: pd.DataFrame | None = None,
    model: str = "",
) -> Figure:
    """The forecasts of the next steps with their intervals, and persistence beside them.

    `fan` has a row a step, all of one origin: columns of ForecastSchema, with `lower_L` and
    `upper_L` of each level L in percent (NaN for none), and optionally `actual`, the price that
    came (NaN where it is not known). `past` has `timestamp` and `price` up to the origin.
    """
    style.require_rows(fan, _FAN, of="forecast")
    origin, start = int(fan["origin"].iloc[0]), float(fan["origin_price"].iloc[0])
    by = f" by {model}" if model else ""
    note = f"Forecast{by} of {len(fan):,} steps from {style.moment(iso(origin))}"
    title = f"Forecast of {mark.subject}"
    figure = canvas.picture(title, mark=mark, theme=theme, note=note)
    axes, look = figure.add_subplot(), figure.theme
    first = {"timestamp": origin, "forecast": start, "actual": start}
    levels = sorted(
        (int(found[1]) for name in fan if (found := re.fullmatch(r"lower_(\d+)", str(name)))),
        reverse=True,
    )
    first |= {f"{bound}_{level}": start for level in levels for bound in ("lower", "upper")}
    rows = pd.concat([pd.DataFrame([first]), fan], ignore_index=True)
    time = style.utc(rows["timestamp"])
    for place, level in enumerate(levels, start=1):
        if fan[f"lower_{level}"].notna().any():
            label = f"{level} % interval" if place == 1 else f"{level} %"
            axes.fill_between(
                time, rows[f"lower_{level}"], rows[f"upper_{level}"], linewidth=0,
                color=look.shade(0.5 * place / len(levels)), label=label,
            )  # fmt: skip
    if past is not None:
        style.require(past, ["timestamp", "price"], of="past")
        draw_line(axes, past, "price", "price", color=look.ink)
    axes.plot(time[[0, -1]], [start] * 2, color=look.persistence, label=style.STAYS)
    draw_line(axes, rows, "forecast", "forecast", color=look.forecast, linewidth=2)
    if "actual" in fan.columns and fan["actual"].notna().any():
        dots: dict[str, Any] = {"marker": "o", "markersize": 4, "linewidth": 1}
        draw_line(axes, rows, "actual", "what came", color=look.ink, **dots)
    axes.axvline(time[0], color=look.quiet, linewidth=1, linestyle=":")
    canvas.set_money_axis(axes, mark.unit)
    canvas.set_time_axis(axes)
    canvas.add_legend(axes)
    return figure


@canvas.themed
def test_figure(
    forecast: pd.DataFrame,
    *,
    mark: Mark,
    theme: ThemeName = "light",
    level: float | None = None,
    skill: float | None = None,
) -> Figure:
    """The test part, on data that the model never saw, in three panels.

    A curve of price levels always looks convincing, since yesterday's price is close to today's. So
    only the last 96 points show levels, with the interval of `level` and persistence. The others
    show what the model adds: predicted against actual log returns on one scale, and the squared
    error saved against persistence, of the whole test part.

    `forecast` has all rows and the columns of forecast.csv (times in ms UTC, of the targets); only
    what is drawn is thinned. `skill` is from metrics.json.
    """
    style.require_rows(forecast, style.FORECAST_COLUMNS, of="forecast")
    note = f"{len(forecast):,} points, {span_note(forecast['timestamp'].to_numpy(np.int64))}"
    title = f"Forecast of {mark.subject}, on data it never saw"
    figure = canvas.picture(title, mark=mark, theme=theme, size=(11, 8.5), note=note)
    panels: dict[str, Axes] = figure.subplot_mosaic([["levels", "levels"], ["returns", "saved"]])
    seen = style.thinned(forecast.assign(saved=style.squared_error_saved(forecast)))
    tail = forecast.tail(_LAST)
    band = "interval" if level is None else f"{style.share(level, digits=0)} interval"
    _draw_levels(panels["levels"], tail, mark, band)
    panels["levels"].set_title(f"Prices, the last {len(tail):,} points")
    _draw_returns(panels["returns"], seen, reach=style.returns_reach(forecast))
    _draw_saved(panels["saved"], seen, skill=skill)
    return figure


def _draw_levels(axes: Axes, forecast: pd.DataFrame, mark: Mark, band: str) -> None:
    """Actual price, forecast, persistence and the interval."""
    lines, look = style.with_breaks(forecast, style.LEVELS), canvas.colours(axes)
    axes.fill_between(
        style.utc(lines["timestamp"]), lines["lower"], lines["upper"], label=band,
        color=look.forecast, alpha=0.17, linewidth=0,
    )  # fmt: skip
    draw_line(axes, lines, "persistence", style.STAYS, color=look.persistence, linewidth=1.2)
    draw_line(axes, lines, "actual", "actual", color=look.ink, linewidth=1.2)
    draw_line(axes, lines, "forecast", "forecast", color=look.forecast, **_DASHED)
    canvas.set_money_axis(axes, mark.unit)
    canvas.set_time_axis(axes)
    canvas.add_legend(axes)


def _draw_returns(axes: Axes, forecast: pd.DataFrame, *, reach: float) -> None:
    """Predicted against actual log returns, both axes on one scale, up to `reach`."""
    look = canvas.colours(axes)
    draw_persistence(axes, upright=True)
    axes.plot(
        [-reach, reach], [-reach, reach], color=look.quiet, linestyle="--", linewidth=1,
        label="a perfect forecast",
    )  # fmt: skip
    axes.scatter(
        forecast["forecast_log_return"], forecast["actual_log_return"], s=9, linewidths=0,
        color=look.forecast, alpha=0.35, label="one step",
    )  # fmt: skip
    axes.set_title("Log returns: predicted against actual, on one scale")
    axes.set_xlim(-reach, reach)
    axes.set_ylim(-reach, reach)
    for axis, name in ((axes.xaxis, "predicted"), (axes.yaxis, "actual")):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
        axis.set_label_text(f"{name} log return")
    canvas.add_legend(axes)


def _draw_saved(axes: Axes, forecast: pd.DataFrame, *, skill: float | None) -> None:
    """The running sum of the squared error saved against persistence: the column `saved`."""
    lines = style.with_breaks(forecast, ["saved"])
    measured = "" if skill is None else f" (skill {style.score(skill)})"
    draw_persistence(axes)
    label = "model: rising is better"
    draw_line(axes, lines, "saved", label, color=canvas.colours(axes).forecast)
    axes.set_title(f"Squared error saved against persistence{measured}")
    axes.set_ylabel("running sum, squared log return")
    # Matplotlib's shared exponent would overlap the legend.
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    canvas.set_time_axis(axes)
    canvas.add_legend(axes)
