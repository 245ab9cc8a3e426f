"""What every Matplotlib picture has: axes in UTC and money, banner, attribution, PNG.

Figures are built without pyplot and its global state, so nothing keeps them alive. Import this
module inside functions: it imports Matplotlib.
"""

from __future__ import annotations

import io
import sys
from datetime import UTC
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

from bitstorm.core import durable_io
from bitstorm.report.style import INK, QUIET, WARNING, Mark

DPI = 150


class Picture(Figure):
    """A Figure that a notebook shows by itself, also without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def picture(title: str, *, mark: Mark, size: tuple[float, float] = (11, 5.5)) -> Picture:
    """An empty picture of `size` inches with title, and with banner and attribution of `mark`."""
    inch = 1 / size[1]
    foot = 0.28 * inch if mark.attribution else 0.0
    # The title and the banner are at the top, the attribution at the bottom.
    layout = ConstrainedLayoutEngine(rect=(0.005, foot, 0.99, 1 - 0.42 * inch - foot))
    figure = Picture(figsize=size, dpi=DPI, layout=layout, facecolor="white")
    bold: dict[str, Any] = {"parse_math": False, "weight": "bold"}
    top = 1 - 0.13 * inch
    figure.text(0.012, top, title, size=13, color=INK, va="top", **bold)
    if mark.banner:
        box = {"facecolor": WARNING, "edgecolor": "none", "boxstyle": "round,pad=0.3"}
        corner: dict[str, Any] = {"ha": "right", "va": "top", "bbox": box}
        figure.text(0.988, top, mark.banner, size=10, color="white", **corner, **bold)
        across: dict[str, Any] = {"alpha": 0.07, "rotation": 20, "zorder": 10}
        across |= {"ha": "center", "va": "center"}
        figure.text(0.5, 0.45, "SIMULATED", size=9 * min(size), color=WARNING, **across, **bold)
    if mark.attribution:
        figure.text(0.988, 0.09 * inch, mark.attribution, size=9, color=QUIET, ha="right")
    return figure


def style_axes(axes: Axes, *, title: str | None = None) -> None:
    """Apply the common look: light grid, no box, title at the left above the legend."""
    axes.grid(color="#dfe3e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    axes.margins(x=0.01)
    if title:
        axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=24)


def add_legend(axes: Axes) -> None:
    """Add a legend in one line above the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    place = {"loc": "lower left", "bbox_to_anchor": (-0.008, 1.0), "ncols": max(1, len(labels))}
    space = {"borderaxespad": 0.2, "columnspacing": 1.4, "handlelength": 1.6}
    axes.legend(handles, labels, frameon=False, fontsize=9, **place, **space)


def set_time_axis(axes: Axes) -> None:
    """Show the x axis as dates in UTC, for any rcParams."""
    locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.set_xlabel("time (UTC)")


def set_money_axis(axes: Axes, unit: str, label: str = "price") -> None:
    """Show the y axis with thousands separators and as many decimals as the ticks need."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_ylabel(f"{label} ({unit})")


def set_percent_axis(axes: Axes, label: str) -> None:
    """Show the fractions of the y axis as percent."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:,.6g} %"))
    axes.set_ylabel(label)


def show(figure: Figure) -> None:
    """Show the picture in a notebook's output, or in a window until the user closes it.

    Does nothing without a notebook and a screen. Only this function uses pyplot.
    """
    ipython = sys.modules.get("IPython")
    # Only the shell of a notebook has a kernel.
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        from IPython.display import display

        display(figure)
        return
    from matplotlib import pyplot

    pyplot.figure(FigureClass=lambda **_: figure)
    try:
        if figure.canvas.required_interactive_framework is not None:
            pyplot.show()
    finally:
        pyplot.close(figure)


def save_png(figure: Figure, path: Path) -> None:
    """Write the picture; a reader of `path` sees the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable_io.replacing(path) as stream:
        figure.savefig(stream, format="png", dpi=DPI)
