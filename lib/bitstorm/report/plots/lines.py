"""Lines over time, as several pictures draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.dates import date2num

from bitstorm.report import canvas, style


def draw_line(axes: Axes, lines: pd.DataFrame, column: str, label: str, **look: Any) -> None:
    """Draw `column` over `timestamp` (int64 ms UTC); `look` are Matplotlib's properties."""
    axes.plot(style.utc(lines["timestamp"]), lines[column], label=label, **look)


def draw_windows(
    axes: Axes, lines: pd.DataFrame, name: str, windows: Sequence[int], label: str, **look: Any
) -> None:
    """A line for the column `name_W` of each window, each in its own colour."""
    for position, window in enumerate(windows):
        look["color"] = canvas.colours(axes).window(position)
        draw_line(axes, lines, f"{name}_{window}", label.format(window), **look)


def draw_persistence(axes: Axes, *, upright: bool = False) -> None:
    """The line at 0 of a picture that compares with persistence."""
    draw = axes.axvline if upright else axes.axhline
    draw(0, color=canvas.colours(axes).persistence, linewidth=1.4, label=style.STAYS)


def draw_holes(axes: Axes, timestamp: np.ndarray, step_ms: int) -> None:
    """Shade the times between two points that are more than `step_ms` apart."""
    left = np.flatnonzero(np.diff(timestamp) > step_ms)
    if left.size:
        begin, end = (
            date2num(timestamp[places].astype("datetime64[ms]")) for places in (left, left + 1)
        )
        quiet = canvas.colours(axes).quiet
        look: dict[str, Any] = {"facecolor": quiet, "edgecolor": quiet, "linewidth": 0.4}
        axes.broken_barh(
            list(zip(begin, end - begin, strict=True)), (0, 1), alpha=0.25, label="no data",
            transform=axes.get_xaxis_transform(), **look,
        )  # fmt: skip


def span_note(timestamp: np.ndarray) -> str:
    """`2024-01-01 to 2024-12-31 UTC`, for the caption."""
    days = np.datetime_as_string(timestamp[[0, -1]].astype("datetime64[ms]"), unit="m")
    first, last = (str(day).replace("T", " ") for day in days)
    return f"{first} to {last} UTC"
