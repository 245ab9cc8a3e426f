"""The frame around every Matplotlib picture: axes in UTC and money, banner, attribution, PNG.

Figures are built without pyplot, so nothing keeps them alive and no global state is touched.
Import this module inside functions: it imports Matplotlib.
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
    """A Figure that a notebook shows by itself, whether or not pyplot was ever imported."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def picture(title: str, *, mark: Mark, size: tuple[float, float] = (11, 5.5)) -> Picture:
    """An empty picture of `size` inches with its title and what `mark` has to say."""
    inch = 1 / size[1]
    foot = 0.28 * inch if mark.attribution else 0.0
    # The head holds the title and the banner, the foot the attribution.
    layout = ConstrainedLayoutEngine(rect=(0.005, foot, 0.99, 1 - 0.42 * inch - foot))
    figure = Picture(figsize=size, dpi=DPI, layout=layout, facecolor="white")
    _text(figure, 0.012, 1 - 0.13 * inch, title, size=13, weight="bold", color=INK, va="top")
    if mark.banner:
        _text(
            figure,
            0.988,
            1 - 0.13 * inch,
            mark.banner,
            size=10,
            weight="bold",
            color="white",
            ha="right",
            va="top",
            bbox={"facecolor": WARNING, "edgecolor": "none", "boxstyle": "round,pad=0.3"},
        )
        _text(
            figure,
            0.5,
            0.45,
            "SIMULATED",
            size=9 * min(size),
            weight="bold",
            color=WARNING,
            alpha=0.07,
            rotation=20,
            ha="center",
            va="center",
            zorder=10,
        )
    if mark.attribution:
        _text(figure, 0.988, 0.09 * inch, mark.attribution, size=9, color=QUIET, ha="right")
    return figure


def _text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    figure.text(x, y, text, parse_math=False, **style)


def dress(axes: Axes, *, title: str | None = None) -> None:
    """The common look: light grid, no box, title at the left above the legend's line."""
    axes.grid(color="#dfe3e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK)
    axes.margins(x=0.01)
    if title:
        axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=24)


def legend(axes: Axes) -> None:
    """A legend in one line above the axes, where it covers no data."""
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(-0.008, 1.0),
        ncols=max(1, len(labels)),
        frameon=False,
        borderaxespad=0.2,
        fontsize=9,
        columnspacing=1.4,
        handlelength=1.6,
    )


def time_axis(axes: Axes) -> None:
    """The x axis as dates in UTC, whatever the reader's rcParams say."""
    locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))
    axes.set_xlabel("time (UTC)")


def money_axis(axes: Axes, unit: str, label: str = "price") -> None:
    """The y axis with thousands separators and as many decimals as the ticks need."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_ylabel(f"{label} ({unit})")


def percent_axis(axes: Axes, label: str) -> None:
    """The y axis of fractions, written as percent."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:,.6g} %"))
    axes.set_ylabel(label)


def show(figure: Figure) -> None:
    """Show the picture once: in a notebook's output, or in a window that is waited for.

    Without a notebook and without a screen nothing happens. pyplot is used only here, and keeps
    nothing.
    """
    shell = _notebook()
    if shell is not None:
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


def _notebook() -> Any:
    """The IPython shell of a notebook's kernel, None elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell if hasattr(shell, "kernel") else None


def save_png(figure: Figure, path: Path) -> None:
    """Write the picture; a reader of `path` sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable_io.replacing(path) as stream:
        figure.savefig(stream, format="png", dpi=DPI)
