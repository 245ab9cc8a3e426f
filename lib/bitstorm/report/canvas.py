"""What every Matplotlib picture has: theme, banner, caption, axes in UTC and money, PNG and SVG.

Figures are built without pyplot and its global state, so nothing keeps them alive. Import this
module inside functions: it imports Matplotlib.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC
from functools import cache, wraps
from importlib import resources
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullFormatter

from bitstorm.core import durable_io
from bitstorm.core.errors import UsageError
from bitstorm.report import style
from bitstorm.report.style import Mark, Theme

P = ParamSpec("P")

# Letters of a legend on an inch of axes that are not laid out yet, and the width of a handle.
_LETTERS, _HANDLE = 17, 6


@cache
def _settings(theme: Theme) -> dict[str, Any]:
    """Matplotlib's settings of a picture: the style sheet, and the theme's colours."""
    with resources.as_file(resources.files("bitstorm.report") / "bitstorm.mplstyle") as sheet:
        found = dict(matplotlib.rc_params_from_file(sheet, use_default_template=False))
    by_colour = {
        theme.paper: ("figure.facecolor", "axes.facecolor", "savefig.facecolor"),
        theme.grid: ("grid.color",),
        theme.quiet: ("axes.edgecolor", "xtick.color", "ytick.color"),
        theme.ink: (
            "text.color", "axes.labelcolor", "axes.titlecolor", "xtick.labelcolor",
            "ytick.labelcolor",
        ),
    }  # fmt: skip
    return found | {name: colour for colour, names in by_colour.items() for name in names}


def _in_theme(theme: Theme) -> AbstractContextManager[None]:
    """Under a theme's settings, whatever the reader's own are."""
    found: AbstractContextManager[None] = matplotlib.style.context(["default", _settings(theme)])
    return found


class Picture(Figure):
    """A Figure that keeps its theme when it is drawn, and that a notebook shows by itself."""

    theme: Theme = style.LIGHT

    def draw(self, renderer: Any) -> None:
        # Matplotlib makes ticks as late as here.
        with _in_theme(self.theme):
            super().draw(renderer)

    def savefig(self, *args: Any, **options: Any) -> None:
        with _in_theme(self.theme):
            super().savefig(*args, **options)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def themed(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Run a figure function under the settings of its keyword `theme`, `light` or `dark`.

    Raises UsageError for another name.
    """

    @wraps(draw)
    def drawn(*args: P.args, **options: P.kwargs) -> Figure:
        with _in_theme(theme_of(options.get("theme", "light"))):
            return draw(*args, **options)

    return drawn


def theme_of(name: object) -> Theme:
    """The theme of this name. Raises UsageError where there is none."""
    if name not in style.THEMES:
        raise UsageError(f"theme: found {name!r}, expected one of {', '.join(style.THEMES)}")
    return style.THEMES[str(name)]


def colours(axes: Axes) -> Theme:
    """The colours of the picture that these axes belong to."""
    figure = axes.get_figure(root=True)
    return figure.theme if isinstance(figure, Picture) else style.LIGHT


def picture(
    title: str,
    *,
    mark: Mark,
    theme: style.ThemeName,
    size: tuple[float, float] = (11, 5.5),
    note: str = "",
) -> Picture:
    """An empty picture of `size` inches: the title at the top, and at the bottom the caption, which
    is `note`, unit and source. A simulated market is named in a banner, and across."""
    look, inch = theme_of(theme), 1 / size[1]
    layout = ConstrainedLayoutEngine(rect=(0.005, 0.3 * inch, 0.99, 1 - 0.72 * inch))
    figure = Picture(figsize=size, layout=layout)
    figure.theme = look
    plain: dict[str, Any] = {"parse_math": False}
    bold, top = {**plain, "weight": "bold"}, 1 - 0.13 * inch
    figure.text(0.012, top, title, size=13, va="top", **bold)
    said = [note, f"Prices in {mark.unit}", mark.attribution or f"Source: {mark.origin}"]
    caption = ". ".join(filter(None, said)) + "."
    figure.text(0.012, 0.1 * inch, caption, size=8.5, color=look.quiet, **plain)
    if mark.banner:
        box = {"facecolor": look.warning, "edgecolor": "none", "boxstyle": "round,pad=0.3"}
        corner: dict[str, Any] = {"ha": "right", "va": "top", "bbox": box, "color": "black"}
        figure.text(0.988, top, mark.banner, size=10, **corner, **bold)
        across: dict[str, Any] = {"alpha": 0.09, "rotation": 20, "zorder": 10}
        across |= {"ha": "center", "va": "center", "color": look.warning}
        figure.text(0.5, 0.45, "SIMULATED", size=9 * min(size), **across, **bold)
    return figure


def add_legend(axes: Axes) -> None:
    """Add a legend in one line above the axes, where it covers no data; in more lines where it is
    too wide and the axes have no title."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    room = _LETTERS * axes.get_position().width * axes.figure.bbox.width / axes.figure.dpi
    columns = len(labels)
    while columns > 1 and _letters(labels, columns) > room and not axes.get_title(loc="left"):
        columns -= 1
    axes.legend(handles, labels, loc="lower left", bbox_to_anchor=(-0.008, 1.0), ncols=columns)


def _letters(labels: Sequence[str], columns: int) -> int:
    """The width of a legend with so many columns, in letters."""
    parts = np.array_split([len(label) + _HANDLE for label in labels], columns)
    return sum(max(part) for part in parts)


# Of ticks a year, a month, a day, an hour, a minute and a second apart.
_TICKS = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
# Of the first tick of a longer unit.
_FIRST_TICKS = ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"]
# At the end of the axis.
_REST = ["", "%Y", "%Y", "%d %b %Y", "%d %b %Y", "%d %b %Y"]


def set_time_axis(axes: Axes) -> None:
    """Show the x axis as dates in UTC: each tick as short as the span allows, the rest below."""
    locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(
            locator, tz=UTC, formats=_TICKS, zero_formats=_FIRST_TICKS, offset_formats=_REST
        )
    )
    axes.set_xlabel("time (UTC)")


def set_money_axis(axes: Axes, unit: str, label: str = "price") -> None:
    """Show the y axis with thousands separators and as many decimals as the ticks need."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.set_ylabel(f"{label} ({unit})")


def set_log_scale(axes: Axes) -> None:
    """Make the y axis logarithmic, with labels at its decades alone."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(NullFormatter())


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


def save(pictures: Mapping[str, Figure], folder: Path) -> tuple[str, ...]:
    """Write each picture as `NAME.png` and `NAME.svg`; returns the files' names.

    A reader sees an old file or the complete new one. The same picture gives the same bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, figure in pictures.items():
        for kind in ("png", "svg"):
            names.append(f"{name}.{kind}")
            # Neither the date nor the version of Matplotlib.
            metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
            with durable_io.replacing(folder / names[-1]) as stream:
                figure.savefig(stream, format=kind, metadata=metadata)
            # The layout is the same for both, and slow.
            figure.set_layout_engine("none")
    return tuple(names)
