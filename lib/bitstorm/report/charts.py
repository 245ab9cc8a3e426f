"""The dashboard's Plotly figures: the pictures of `plots`, to zoom and to read off.

Times are Unix milliseconds on date axes, which Plotly shows in UTC. A trace without a colour is
"ink": the page gives it the text's colour, light or dark. Plotly reads texts as markup, so what
comes from outside is escaped. Import this module inside functions: it imports Plotly.
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
from bitstorm.report.style import Mark, returns_reach, share, squared_error_saved, with_breaks

_RANGES = [
    {"count": 1, "label": "1 d", "step": "day", "stepmode": "backward"},
    {"count": 7, "label": "7 d", "step": "day", "stepmode": "backward"},
    {"count": 1, "label": "1 m", "step": "month", "stepmode": "backward"},
    {"count": 6, "label": "6 m", "step": "month", "stepmode": "backward"},
    {"label": "all", "step": "all"},
]
_PERSISTENCE = {
    "name": "the price stays as it is",
    "line": {"color": style.PERSISTENCE, "width": 2},
}


def price_chart(prices: pd.DataFrame, *, windows: Sequence[int], unit: str) -> go.Figure:
    """The price with `ma_W`, and buttons for the range."""
    lines = with_breaks(prices, ["price", *(f"ma_{w}" for w in windows)])
    figure = _figure()
    _line(figure, lines, "price", "price", width=1.2)
    _windows(figure, lines, "ma", windows, "mean of the last {}")
    _time(figure)
    figure.update_xaxes(
        rangeselector={"buttons": _RANGES, "x": 0, "y": 1.02, "yanchor": "bottom"},
    )
    # On a narrow screen the buttons need a line of their own below the mode bar.
    figure.update_layout(margin_t=66)
    _money(figure, unit)
    return figure


def volatility_chart(prices: pd.DataFrame, *, windows: Sequence[int]) -> go.Figure:
    """`volatility_W`, fractions a step."""
    lines = with_breaks(prices, [f"volatility_{w}" for w in windows])
    figure = _figure()
    _windows(figure, lines, "volatility", windows, "last {} changes")
    _time(figure)
    figure.update_yaxes(tickformat=".2~%", rangemode="tozero", title_text="volatility a step")
    return figure


def momentum_chart(prices: pd.DataFrame) -> go.Figure:
    """`drawdown` (fraction below the running maximum) over `rsi_14` (0 to 100)."""
    lines = with_breaks(prices, ["drawdown", "rsi_14"])
    figure = _figure()
    _line(figure, lines, "drawdown", "drawdown", fill="tozeroy", color=style.WARNING)
    _line(figure, lines, "rsi_14", "RSI 14", color=style.FORECAST)
    figure.data[1].update(yaxis="y2")
    figure.update_layout(
        yaxis={"domain": [0.55, 1], "tickformat": ".0%", "title": {"text": "drawdown"}},
        yaxis2={
            "domain": [0, 0.45],
            "range": [0, 100],
            "tickvals": [0, 30, 50, 70, 100],
            "title": {"text": "RSI 14"},
        },
    )
    _time(figure)
    figure.update_xaxes(anchor="y2")
    return figure


def forecast_chart(forecast: pd.DataFrame, *, unit: str, level: float | None) -> go.Figure:
    """Forecast, truth and "the price stays as it is", with the interval's band."""
    names = ["actual", "forecast", "persistence", "lower", "upper"]
    lines = with_breaks(forecast, names)
    figure = _figure()
    # One closed outline for each unbroken stretch: a band drawn between two lines would bridge.
    _guide(
        figure,
        *_outline(lines),
        name="interval" if level is None else f"{share(level, digits=0)} interval",
        line={"width": 0},
        fill="toself",
        fillcolor="rgba(27,132,198,0.2)",
    )
    _line(figure, lines, "persistence", "the price stays as it is", color=style.PERSISTENCE)
    _line(figure, lines, "actual", "actual")
    _line(figure, lines, "forecast", "forecast", color=style.FORECAST, dash="dash")
    _time(figure)
    _money(figure, unit)
    return figure


def returns_chart(forecast: pd.DataFrame) -> go.Figure:
    """Predicted against actual log returns, both axes on one scale."""
    reach = returns_reach(forecast)
    figure = _figure()
    _guide(figure, [0.0, 0.0], [-reach, reach], **_PERSISTENCE)
    _guide(
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
    """The running sum of the squared error saved against persistence."""
    frame = pd.DataFrame(
        {"timestamp": forecast["timestamp"], "saved": squared_error_saved(forecast)}
    )
    figure = _figure()
    _guide(figure, frame["timestamp"].to_numpy(np.float64)[[0, -1]], [0.0, 0.0], **_PERSISTENCE)
    _line(figure, with_breaks(frame, ["saved"]), "saved", "model", color=style.FORECAST)
    _time(figure)
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
        figure.add_scatter(
            x=[float(best)],
            y=[float(row["val_loss"])],
            name=f"best epoch ({best})",
            mode="markers",
            marker={
                "color": style.BETTER,
                "size": 14,
                "symbol": "circle-open",
                "line": {"width": 3},
            },
        )
    few = {"dtick": 1} if epochs.size <= 12 else {"tickformat": "d"}
    figure.update_xaxes(title_text="epoch", **few)
    figure.update_yaxes(title_text="loss (MSE, scaled target)")
    return figure


def stamp(figure: go.Figure, mark: Mark) -> go.Figure:
    """Put the mark into the figure itself, for it goes along when a reader saves the picture."""
    if mark.simulated:
        figure.add_annotation(
            text="SIMULATED",
            xref="paper",
            yref="paper",
            x=0.5,
            y=0.5,
            showarrow=False,
            textangle=-15,
            opacity=0.13,
            font={"size": 52, "color": style.WARNING},
        )
    if mark.attribution:
        figure.add_annotation(
            text=mark.attribution,
            xref="paper",
            yref="paper",
            x=1,
            y=1,
            xanchor="right",
            yanchor="bottom",
            showarrow=False,
            font={"size": 10, "color": style.QUIET},
        )
    return figure


def _figure() -> go.Figure:
    """An empty figure: colours of text, grid and ground come from the page."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        margin={"l": 64, "r": 12, "t": 44, "b": 96},
        legend={
            "orientation": "h",
            "x": 0,
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "title": {"text": ""},
        },
        hovermode="x unified",
        autosize=True,
        height=420,
    )
    return figure


def _windows(
    figure: go.Figure, lines: pd.DataFrame, name: str, windows: Sequence[int], label: str
) -> None:
    """A line for the column `name_W` of each window, each in its own colour."""
    for position, window in enumerate(windows):
        colour = style.window_colour(position)
        _line(figure, lines, f"{name}_{window}", label.format(window), color=colour)


def _line(
    figure: go.Figure,
    lines: pd.DataFrame,
    column: str,
    name: str,
    *,
    fill: str | None = None,
    width: float = 1.5,
    **style: Any,
) -> None:
    """`column` over time; `style` are Plotly's properties of a line."""
    x, y = (lines[key].to_numpy(np.float64) for key in ("timestamp", column))
    line = {"width": width, **style}
    figure.add_scatter(x=x, y=y, name=name, mode="lines", line=line, fill=fill)


def _guide(figure: go.Figure, x: ArrayLike, y: ArrayLike, **style: Any) -> None:
    """A line or an area that says nothing when the reader points at it."""
    figure.add_scatter(x=x, y=y, mode="lines", hoverinfo="skip", **style)


def _outline(lines: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The band between `lower` and `upper` as closed outlines, NaN between the stretches."""
    times = lines["timestamp"].to_numpy(np.float64)
    lower, upper = (lines[name].to_numpy(np.float64) for name in ("lower", "upper"))
    known = np.isfinite(lower) & np.isfinite(upper)
    starts = np.flatnonzero(known & ~np.concatenate([[False], known[:-1]]))
    ends = np.flatnonzero(known & ~np.concatenate([known[1:], [False]])) + 1
    xs: list[np.ndarray] = []
    ys: list[np.ndarray] = []
    for start, end in zip(starts, ends, strict=True):
        part = slice(start, end)
        xs += [times[part], times[part][::-1], np.array([np.nan])]
        ys += [upper[part], lower[part][::-1], np.array([np.nan])]
    if not xs:
        return np.empty(0), np.empty(0)
    return np.concatenate(xs[:-1]), np.concatenate(ys[:-1])


def _time(figure: go.Figure) -> None:
    figure.update_xaxes(type="date", title_text="time (UTC)", hoverformat="%Y-%m-%d %H:%M UTC")


def _money(figure: go.Figure, unit: str) -> None:
    figure.update_yaxes(
        tickformat=",.8~r", hoverformat=",.8~r", title_text=f"price ({escape(unit)})"
    )
