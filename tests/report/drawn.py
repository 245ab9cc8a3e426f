"""What the tests of pictures read off their artists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from bitstorm.report.style import Mark, ThemeName

SIMULATED = Mark("simulated:7", "bitcoin", "usd")
COINGECKO = Mark("coingecko", "bitcoin", "usd")
THEMES: tuple[ThemeName, ...] = ("light", "dark")
DAY_MS = 86_400_000


def found(axes: Axes, label: str) -> Any:
    """The line with this label."""
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return line


def line(axes: Axes, label: str) -> np.ndarray:
    return np.asarray(found(axes, label).get_ydata(), dtype=np.float64)


def places(axes: Axes, label: str) -> np.ndarray:
    return np.asarray(found(axes, label).get_xdata(), dtype=np.float64)


def times(axes: Axes, label: str) -> np.ndarray:
    stamps = np.asarray(found(axes, label).get_xdata(orig=True))
    return stamps.astype("datetime64[ms]").astype(np.int64)


def broken(values: pd.Series, after: int) -> np.ndarray:
    """The values with a NaN after the one at index `after`."""
    given = values.to_numpy(np.float64)
    return np.concatenate([given[: after + 1], [np.nan], given[after + 1 :]])


def band(axes: Axes, label: str) -> PolyCollection:
    """The area with this label."""
    areas = [area for area in axes.collections if isinstance(area, PolyCollection)]
    (area,) = [area for area in areas if area.get_label() == label]
    return area


def corners(area: PolyCollection) -> np.ndarray:
    """The corners of an area, float64 (n, 2)."""
    return np.concatenate([np.asarray(path.vertices) for path in area.get_paths()])


def texts(figure: Figure) -> list[str]:
    """The texts beside the axes."""
    return [text.get_text() for text in figure.texts]


def x_labels(axes: Axes) -> list[str]:
    draw(axes)
    return [tick.get_text() for tick in axes.get_xticklabels()]


def y_labels(axes: Axes) -> list[str]:
    draw(axes)
    return [tick.get_text() for tick in axes.get_yticklabels()]


def draw(axes: Axes) -> None:
    """Draw the whole figure: only then are there texts at the ticks."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
