"""The picture of a back-test. Import this module inside functions: it imports Matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bitstorm.report import canvas, style

# The scale of the skill is linear up to here, and logarithmic beyond: a good forecast and a bad
# baseline are a hundred times apart.
LINEAR = 0.01


def skill_figure(models: Mapping[str, Any], *, mark: style.Mark) -> Figure:
    """The skill of each model by step over all folds, and by fold over all steps.

    `models` is this part of the back-test's `metrics.json`. The band is the range of the network
    over the folds.
    """
    title = f"Back-test on {mark.subject}: skill against persistence"
    figure = canvas.picture(title, mark=mark, size=(14, 6.5))
    by_step, by_fold = figure.subplots(1, 2)
    for name, parts in models.items():
        steps = sorted(int(part) for part in parts if part != "all")
        cells = [parts[str(step)] for step in steps]
        look = _look(name)
        by_step.plot(steps, [c["pooled"]["skill"] for c in cells], label=name, **look)
        folds = [cell["skill"] for cell in parts["all"]["folds"]]
        by_fold.plot(range(1, len(folds) + 1), folds, marker="o", markersize=4, label=name, **look)
        if name == "network":
            skills = [[fold["skill"] for fold in cell["folds"]] for cell in cells]
            band: dict[str, Any] = {"color": style.FORECAST, "alpha": 0.15, "linewidth": 0}
            by_step.fill_between(steps, [*map(min, skills)], [*map(max, skills)], **band)
    _finish(by_step, "All folds, by step (band: the network's folds)", "step")
    _finish(by_fold, "All steps, by fold", "fold")
    figure.legend(*by_step.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _look(name: str) -> dict[str, Any]:
    known = {"network": (style.FORECAST, 2.2), "persistence": (style.PERSISTENCE, 1.6)}
    if name not in known:
        return {"linewidth": 1.0}
    colour, width = known[name]
    return {"color": colour, "linewidth": width, "zorder": 5}


def _finish(axes: Axes, title: str, label: str) -> None:
    canvas.style_axes(axes, title=title)
    axes.set_yscale("symlog", linthresh=LINEAR)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel(label)
    axes.set_ylabel("skill (1 - MSE / MSE of persistence)")
