"""The pictures of the returns: their distribution, their autocorrelation, their hours.

A frame has `timestamp` (int64 ms UTC, ascending) and `log_return`, and optionally `imputed`: a
return from or to a carried price is not observed, and does not count. All rows count. Each function
raises DataError where a column is missing or too few returns are observed, and UsageError for an
unknown theme.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bitstorm.core.errors import DataError
from bitstorm.core.time import HOUR_MS, duration_text
from bitstorm.evaluation import distributions
from bitstorm.report import canvas, style
from bitstorm.report.plots.lines import span_note
from bitstorm.report.style import Mark, ThemeName

_BINS = 120
_QUANTILES = 200
_EXTREMES = 50
_LAGS = 168
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
# The epoch was a Thursday.
_DAY_OF_EPOCH = 3


def observed_returns(frame: pd.DataFrame) -> np.ndarray:
    """`log_return`, float64 (n,), NaN where it is unknown or not observed."""
    style.require_rows(frame, ["timestamp", "log_return"], of="indicators")
    returns = frame["log_return"].to_numpy(np.float64, copy=True)
    if "imputed" in frame.columns:
        carried = frame["imputed"].to_numpy(bool)
        returns[carried | np.concatenate([[False], carried[:-1]])] = np.nan
    if np.isfinite(returns).sum() < 2:
        raise DataError("found fewer than two observed returns; expected more: collect more prices")
    return returns


def _picture(title: str, frame: pd.DataFrame, mark: Mark, theme: ThemeName) -> canvas.Picture:
    timestamp = frame["timestamp"].to_numpy(np.int64)
    step = duration_text(style.typical_step(timestamp))
    note = f"Log returns of {step}, {span_note(timestamp)}"
    return canvas.picture(f"{title}, {mark.subject}", mark=mark, theme=theme, note=note)


@canvas.themed
def return_figure(frame: pd.DataFrame, *, mark: Mark, theme: ThemeName = "light") -> Figure:
    """The distribution of the log returns against the normal and Student's t that fit them: a
    histogram on a log scale, and the quantiles of the returns over those of the two."""
    returns = observed_returns(frame)
    values = np.sort(returns[np.isfinite(returns)])
    fits = distributions.fits(values)
    figure = _picture("Returns", frame, mark, theme)
    density, quantiles = figure.subplots(1, 2, width_ratios=(3, 2))
    look = figure.theme
    shades = {"normal": look.persistence, "Student-t": look.forecast}
    heights, edges = np.histogram(values, bins=_BINS, density=True)
    density.stairs(
        heights, edges, fill=True, color=look.quiet, alpha=0.45, label=f"{len(values):,} returns"
    )
    x = np.linspace(edges[0], edges[-1], 401)
    for name, fit in fits.items():
        freedom = f", {fit.args[0]:.1f} degrees of freedom" if name == "Student-t" else ""
        density.plot(x, fit.pdf(x), color=shades[name], label=f"{name}{freedom}")
    # One return in a bin is the smallest height.
    least = 1 / (len(values) * max(edges[1] - edges[0], 1e-12))
    canvas.set_log_scale(density)
    density.set_ylim(0.4 * least, 3 * max(heights.max(), least))
    _set_percent_ticks(density.xaxis, "log return")
    density.set_title("Histogram")
    density.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    density.set_ylabel("density (log scale)")
    canvas.add_legend(density)
    _draw_quantiles(quantiles, values, fits, shades)
    return figure


def _draw_quantiles(
    axes: Axes, values: np.ndarray, fits: Mapping[str, Any], shades: Mapping[str, str]
) -> None:
    """Ordered returns over the quantiles of each fit; all of the extremes are drawn."""
    n = len(values)
    # Every one near the ends, and ever fewer towards the middle, where they lie close together.
    ends = np.arange(min(_EXTREMES, n))
    inner = np.geomspace(1, max(n / 2, 1), _QUANTILES).astype(np.int64) - 1
    near = np.concatenate([ends, inner])
    places = np.unique(np.concatenate([near, n - 1 - near]))
    axes.plot(
        values[[0, -1]], values[[0, -1]], color=canvas.colours(axes).quiet, linewidth=1,
        label="a perfect fit",
    )  # fmt: skip
    # The outermost quantiles of heavy tails would flatten all others.
    reach, beyond = max(1.5 * float(np.abs(values[[0, -1]]).max()), 1e-9), 0
    for name, marker in (("normal", "s"), ("Student-t", "o")):
        if name in fits:
            expected = fits[name].ppf((places + 0.5) / n)
            beyond += int((np.abs(expected) > reach).sum())
            look: dict[str, Any] = {"color": shades[name], "markersize": 2.8, "label": name}
            axes.plot(expected, values[places], marker, **look)
    axes.set_xlim(-reach, reach)
    _set_percent_ticks(axes.xaxis, "quantile of the fit")
    _set_percent_ticks(axes.yaxis, "log return")
    off = f"; {beyond} off the scale" if beyond else ""
    axes.set_title(f"QQ: on the line the fit is right{off}")
    canvas.add_legend(axes)


def _set_percent_ticks(axis: Axis, label: str) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    axis.set_major_locator(MaxNLocator(6))
    axis.set_label_text(label)


@canvas.themed
def autocorrelation_figure(
    frame: pd.DataFrame, *, mark: Mark, theme: ThemeName = "light"
) -> Figure:
    """The autocorrelation of the returns and of their sizes, by lag in steps up to 168 or a quarter
    of the rows; and the band that holds it with 95 % where there is none."""
    observed, timestamp = observed_returns(frame), frame["timestamp"].to_numpy(np.int64)
    step = style.typical_step(timestamp)
    # On the grid, so that a lag over a hole counts its steps.
    place = (timestamp - timestamp[0]) // step
    returns = np.full(place[-1] + 1, np.nan)
    returns[place] = observed
    lags = list(range(1, max(1, min(_LAGS, len(returns) // 4)) + 1))
    figure = _picture("Autocorrelation", frame, mark, theme)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, values, title in zip(
        panels,
        (returns, np.abs(returns)),
        ("Returns; by chance 1 lag of 20 is outside the band", "Sizes of the returns"),
        strict=True,
    ):
        found, band = distributions.autocorrelation(values, lags)
        look = canvas.colours(axes)
        axes.fill_between(
            lags, -band, band, color=look.quiet, alpha=0.25, linewidth=0,
            label="95 % band without dependence",
        )  # fmt: skip
        axes.axhline(0, color=look.quiet, linewidth=1)
        axes.vlines(lags, 0, found, color=look.forecast, linewidth=1.2)
        axes.plot(lags, found, "o", color=look.forecast, markersize=2.6, label="autocorrelation")
        axes.set_title(title)
        axes.set_ylabel("autocorrelation")
        canvas.add_legend(axes)
    panels[1].xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 2.4, 4.8, 5, 10]))
    panels[1].set_xlabel(f"lag (steps of {duration_text(step)})")
    return figure


@canvas.themed
def hours_figure(frame: pd.DataFrame, *, mark: Mark, theme: ThemeName = "light") -> Figure:
    """The mean size of the returns, in percent a step, by hour (UTC) and weekday.

    Hour 12 has the steps that end after 12:00, up to 13:00. Raises DataError where a step is longer
    than an hour.
    """
    returns = observed_returns(frame)
    timestamp = frame["timestamp"].to_numpy(np.int64)
    step = style.typical_step(timestamp)
    if step > HOUR_MS:
        raise DataError(
            f"the grid's step is {duration_text(step)}, and hours need one of at most 1h: set "
            "grid.frequency=1h and compute the indicators again"
        )
    known = np.isfinite(returns)
    hours = (timestamp[known] - 1) // HOUR_MS
    place = (hours // 24 + _DAY_OF_EPOCH) % 7 * 24 + hours % 24
    count = np.bincount(place, minlength=7 * 24)
    with np.errstate(invalid="ignore"):
        sizes = np.bincount(place, np.abs(returns[known]), minlength=7 * 24) / count
    figure = _picture("Size of the returns by hour and weekday", frame, mark, theme)
    axes = figure.add_subplot()
    shown = axes.imshow(100 * sizes.reshape(7, 24), aspect="auto", cmap="cividis")
    axes.grid(visible=False)
    axes.set_xticks(range(24), [f"{hour:02d}" for hour in range(24)])
    axes.set_yticks(range(7), _DAYS)
    axes.set_xlabel("hour of the day (UTC): 12 is 12:00 to 13:00")
    bar = figure.colorbar(shown, ax=axes, pad=0.015, aspect=30)
    bar.outline.set_visible(False)
    bar.set_label("mean size of the log return (%)")
    return figure
