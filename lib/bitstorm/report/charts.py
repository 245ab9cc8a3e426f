"""The dashboard's Plotly figures: the pictures of `plots`, with zoom and values under the pointer.

Times are Unix milliseconds on date axes, which Plotly shows in UTC. A trace without a colour gets
the page's text colour, light or dark. Plotly reads texts as markup, so texts from outside are
escaped. Import this module inside functions: it imports Plotly.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from bitstorm.report import style
from bitstorm.report.style import Mark, share, with_breaks

_RANGES = [
    {"count": count, "label": f"{count} {step[0]}", "step": step, "stepmode": "backward"}
    for count, step in ((1, "day"), (7, "day"), (1, "month"), (6, "month"))
]
_RANGES.append({"label": "all", "step": "all"})
_PERSISTENCE = {
    "name": "the price stays as it is",
    "line": {"color": style.PERSISTENCE, "width": 2},
}


def price_chart(prices: pd.DataFrame, *, windows: Sequence[int], unit: str) -> go.Figure:
    """The price with `ma_W`, and buttons for the range."""
    lines = with_breaks(prices, ["price", *(f"ma_{w}" for w in windows)])
    figure = _figure()
    _draw_line(figure, lines, "price", "price", width=1.2)
    _draw_windows(figure, lines, "ma", windows, "mean of the last {}")
    _set_time_axis(figure)
    buttons = {"buttons": _RANGES, "x": 0, "y": 1.02, "yanchor": "bottom"}
    figure.update_xaxes(rangeselector=buttons)
    # On a narrow screen the buttons need a line of their own below the mode bar.
    figure.update_layout(margin_t=66)
    _set_money_axis(figure, unit)
    return figure


def volatility_chart(prices: pd.DataFrame, *, windows: Sequence[int]) -> go.Figure:
    """`volatility_W`, fractions a step."""
    lines = with_breaks(prices, [f"volatility_{w}" for w in windows])
    figure = _figure()
    _draw_windows(figure, lines, "volatility", windows, "last {} changes")
    _set_time_axis(figure)
    figure.update_yaxes(tickformat=".2~%", rangemode="tozero", title_text="volatility a step")
    return figure


def momentum_chart(prices: pd.DataFrame) -> go.Figure:
    """`drawdown` (fraction below the running maximum) over `rsi_14` (0 to 100)."""
    lines = with_breaks(prices, ["drawdown", "rsi_14"])
    figure = _figure()
    _draw_line(figure, lines, "drawdown", "drawdown", fill="tozeroy", color=style.WARNING)
    _draw_line(figure, lines, "rsi_14", "RSI 14", color=style.FORECAST)
    figure.data[1].update(yaxis="y2")
    rsi = {"range": [0, 100], "tickvals": [0, 30, 50, 70, 100], "title": {"text": "RSI 14"}}
    figure.update_layout(
        yaxis={"domain": [0.55, 1], "tickformat": ".0%", "title": {"text": "drawdown"}},
        yaxis2={"domain": [0, 0.45], **rsi},
    )
    _set_time_axis(figure)
    figure.update_xaxes(anchor="y2")
    return figure


def forecast_chart(forecast: pd.DataFrame, *, unit: str, level: float | None) -> go.Figure:
    """Forecast, actual price and "the price stays as it is", with the interval's band."""
    lines = with_breaks(forecast, style.LEVELS)
    figure = _figure()
    # One closed outline for each stretch without a hole: a band between two lines bridges holes.
    _draw_guide(
        figure,
        *_outline(lines),
        name="interval" if level is None else f"{share(level, digits=0)} interval",
        line={"width": 0},
        fill="toself",
        fillcolor="rgba(27,132,198,0.2)",
    )
    _draw_line(figure, lines, "persistence", "the price stays as it is", color=style.PERSISTENCE)
    _draw_line(figure, lines, "actual", "actual")
    _draw_line(figure, lines, "forecast", "forecast", color=style.FORECAST, dash="dash")
    _set_time_axis(figure)
    _set_money_axis(figure, unit)
    return figure


def returns_chart(forecast: pd.DataFrame, *, reach: float) -> go.Figure:
    """Predicted against actual log returns, both axes on one scale, up to `reach`."""
    figure = _figure()
    _draw_guide(figure, [0.0, 0.0], [-reach, reach], **_PERSISTENCE)
    _draw_guide(
        figure,
        [-reach, reach],
        [-reach, reach],
        name="a perfect forecast",
        line={"color": style.QUIET, "width": 1, "dash": "dash"},
    )
    figure.add_scatter(
        x=forecast["forecast_log_return"].to_numpy(np.float64),
        y=forecast["actual_log_return"].to_numpy(np.float64),
        name="one step of the test part",
        mode="markers",
        marker={"color": style.FORECAST, "size": 5, "opacity": 0.45},
        hovertemplate="predicted %{x:.5f}<br>actual %{y:.5f}<extra></extra>",
    )
    figure.update_xaxes(range=[-reach, reach], title_text="predicted log return")
    figure.update_yaxes(range=[-reach, reach], title_text="actual log return")
    figure.update_layout(hovermode="closest")
    return figure


def saved_chart(forecast: pd.DataFrame) -> go.Figure:
    """The running sum of the squared error saved against persistence: the column `saved`."""
    lines = with_breaks(forecast, ["saved"])
    figure = _figure()
    _draw_guide(
        figure, forecast["timestamp"].to_numpy(np.float64)[[0, -1]], [0.0, 0.0], **_PERSISTENCE
    )
    _draw_line(figure, lines, "saved", "model", color=style.FORECAST)
    _set_time_axis(figure)
    figure.update_yaxes(title_text="running sum, squared log return", exponentformat="power")
    return figure


def training_chart(history: pd.DataFrame, *, best: int | None) -> go.Figure:
    """Training and validation loss of each epoch, with a ring around the epoch `best`."""
    epochs = history["epoch"].to_numpy(np.float64)
    figure = _figure()
    for column, name, line in (
        ("loss", "training", {"width": 1.6}),
        ("val_loss", "validation", {"width": 1.6, "color": style.FORECAST}),
    ):
        losses = history[column].to_numpy(np.float64)
        figure.add_scatter(x=epochs, y=losses, name=name, mode="lines+markers", line=line)
    if best is not None:
        row = history.loc[history["epoch"] == best].iloc[0]
        ring = {"color": style.BETTER, "size": 14, "symbol": "circle-open", "line": {"width": 3}}
        figure.add_scatter(
            x=[float(best)],
            y=[float(row["val_loss"])],
            name=f"best epoch ({best})",
            mode="markers",
            marker=ring,
        )
    few = {"dtick": 1} if epochs.size <= 12 else {"tickformat": "d"}
    figure.update_xaxes(title_text="epoch", **few)
    figure.update_yaxes(title_text="loss (MSE, scaled target)")
    return figure


def add_mark(figure: go.Figure, mark: Mark) -> go.Figure:
    """Put the mark into the figure, so that it stays when a reader saves the picture."""
    paper = {"xref": "paper", "yref": "paper", "showarrow": False}
    if mark.simulated:
        font = {"size": 52, "color": style.WARNING}
        look = {"textangle": -15, "opacity": 0.13, "font": font}
        figure.add_annotation(text="SIMULATED", x=0.5, y=0.5, **look, **paper)
    if mark.attribution:
        look = {"xanchor": "right", "yanchor": "bottom", "font": {"size": 10, "color": style.QUIET}}
        figure.add_annotation(text=mark.attribution, x=1, y=1, **look, **paper)
    return figure


def _figure() -> go.Figure:
    """An empty figure; the page sets the colours of text, grid and background."""
    figure = go.Figure()
    below = {"orientation": "h", "x": 0, "yref": "container", "y": 0, "yanchor": "bottom"}
    figure.update_layout(
        template="none",
        margin={"l": 64, "r": 12, "t": 44, "b": 96},
        legend={**below, "title": {"text": ""}},
        hovermode="x unified",
        autosize=True,
        height=420,
    )
    return figure


def _draw_windows(
    figure: go.Figure, lines: pd.DataFrame, name: str, windows: Sequence[int], label: str
) -> None:
    """A line for the column `name_W` of each window, each in its own colour."""
    for position, window in enumerate(windows):
        colour = style.window_colour(position)
        _draw_line(figure, lines, f"{name}_{window}", label.format(window), color=colour)


def _draw_line(
    figure: go.Figure,
    lines: pd.DataFrame,
    column: str,
    name: str,
    *,
    fill: str | None = None,
    width: float = 1.5,
    **look: Any,
) -> None:
    """Draw `column` over time; `look` are Plotly's properties of a line."""
    x, y = (lines[key].to_numpy(np.float64) for key in ("timestamp", column))
    line = {"width": width, **look}
    figure.add_scatter(x=x, y=y, name=name, mode="lines", line=line, fill=fill)


def _draw_guide(figure: go.Figure, x: ArrayLike, y: ArrayLike, **look: Any) -> None:
    """Draw a line or an area that shows no values under the pointer."""
    figure.add_scatter(x=x, y=y, mode="lines", hoverinfo="skip", **look)


def _outline(lines: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The band between `lower` and `upper` as closed outlines, with NaN between two stretches."""
    names = ("timestamp", "lower", "upper")
    times, lower, upper = (lines[name].to_numpy(np.float64) for name in names)
    edges = np.diff(np.isfinite(lower) & np.isfinite(upper), prepend=False, append=False)
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    for start, end in np.flatnonzero(edges).reshape(-1, 2):
        part = slice(start, end)
        xs += [times[part], times[part][::-1], np.array([np.nan])]
        ys += [upper[part], lower[part][::-1], np.array([np.nan])]
    if not xs:
        return np.empty(0), np.empty(0)
    return np.concatenate(xs[:-1]), np.concatenate(ys[:-1])


def _set_time_axis(figure: go.Figure) -> None:
    figure.update_xaxes(type="date", title_text="time (UTC)", hoverformat="%Y-%m-%d %H:%M UTC")


def _set_money_axis(figure: go.Figure, unit: str) -> None:
    figure.update_yaxes(
        tickformat=",.8~r", hoverformat=",.8~r", title_text=f"price ({escape(unit)})"
    )
