"""The pictures of the training and of the search for settings.

Each function raises DataError where there is nothing to draw, and UsageError for an unknown theme.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bitstorm.core.errors import DataError
from bitstorm.report import canvas, style
from bitstorm.report.style import Mark, ThemeName


@canvas.themed
def training_figure(
    history: pd.DataFrame, *, mark: Mark, best: int, theme: ThemeName = "light"
) -> Figure:
    """Training and validation loss of each epoch, and a line at the epoch `best`.

    `history` has `epoch` (from 1), `loss` and `val_loss` (mean squared error of the scaled target).
    """
    style.require_rows(history, style.HISTORY_COLUMNS, of="training history")
    epochs = history["epoch"].to_numpy(np.int64)
    note = f"{len(epochs):,} epochs" if len(epochs) > 1 else "One epoch"
    title = f"Training on {mark.subject}"
    figure = canvas.picture(title, mark=mark, theme=theme, size=(9, 4.6), note=note)
    axes, look = figure.add_subplot(), figure.theme
    axes.plot(epochs, history["loss"], "o-", markersize=4, color=look.ink, label="training")
    axes.plot(
        epochs, history["val_loss"], "s-", markersize=4, color=look.forecast, label="validation"
    )
    best_label = f"best epoch ({best})"
    axes.axvline(best, color=look.better, linestyle=":", linewidth=2, label=best_label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.margins(x=0.03)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss (mean squared error, scaled target)")
    canvas.add_legend(axes)
    return figure


@canvas.themed
def importance_figure(
    importance: Mapping[str, float], *, mark: Mark, theme: ThemeName = "light"
) -> Figure:
    """A bar for each setting of a study, the most important one at the top.

    `importance` has the weight of each in whether a trial is in the better half; the sum is 1.
    """
    if not importance:
        raise DataError("the study has no importance yet: it needs eight complete trials")
    names = sorted(importance, key=lambda name: importance[name])
    title = f"What makes a good trial, {mark.subject}"
    figure = canvas.picture(title, mark=mark, theme=theme, size=(9, 4))
    axes, look = figure.add_subplot(), figure.theme
    bars = axes.barh(names, [importance[name] for name in names], color=look.forecast, height=0.6)
    labels = [style.share(importance[name], digits=0) for name in names]
    axes.bar_label(bars, labels, padding=4, color=look.ink)
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.08)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: style.share(value, digits=0)))
    axes.set_xlabel("weight in whether a trial is in the better half")
    return figure
