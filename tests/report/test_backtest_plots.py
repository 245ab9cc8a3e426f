"""The picture of a back-test shows the numbers of its metrics."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from bitstorm.report.backtest_plots import skill_figure
from bitstorm.report.style import Mark

STEPS, FOLDS = 4, 3


def models() -> dict[str, dict[str, dict]]:
    random = np.random.default_rng(1)
    return {
        name: {
            part: {
                "pooled": {"skill": float(random.normal())},
                "folds": [{"skill": float(random.normal())} for _ in range(FOLDS)],
            }
            # In another order than the steps', as in a file with sorted names.
            for part in ("all", *map(str, range(STEPS, 0, -1)))
        }
        for name in ("network", "persistence", "ridge")
    }


def points(axes: Axes, label: str) -> list[tuple[float, float]]:
    line = next(line for line in axes.get_lines() if line.get_label() == label)
    return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def test_each_model_has_its_skill_by_step_and_by_fold():
    shown = models()
    figure = skill_figure(shown, mark=Mark("simulated:7", "bitcoin", "usd"))
    by_step, by_fold = figure.axes
    for name, parts in shown.items():
        by_part = [parts[str(n)]["pooled"]["skill"] for n in (1, 2, 3, 4)]
        assert points(by_step, name) == list(zip([1, 2, 3, 4], by_part, strict=True))
        skills = [fold["skill"] for fold in parts["all"]["folds"]]
        assert points(by_fold, name) == list(zip([1, 2, 3], skills, strict=True))
    (band,) = by_step.collections
    corners = np.asarray(band.get_paths()[0].vertices)
    for step in range(1, STEPS + 1):
        drawn = corners[corners[:, 0] == step][:, 1]
        skills = [fold["skill"] for fold in shown["network"][str(step)]["folds"]]
        assert (drawn.min(), drawn.max()) == (min(skills), max(skills))
    assert "SIMULATED market (seed 7): not real prices" in [t.get_text() for t in figure.texts]
