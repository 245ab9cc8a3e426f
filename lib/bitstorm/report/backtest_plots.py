"""The pictures of a back-test: its numbers in, Matplotlib figures out.

As in `plots`: the mark of the data's source, UTC. Import this module inside functions: it imports
Matplotlib.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bitstorm.evaluation.verdict import E_NEEDED
from bitstorm.report import canvas, style

# The parts of a fold: from and until, both as in the record; the embargo lies between.
_PARTS = {
    "training": ("train_from_ms", "train_until_ms", style.WINDOWS[0]),
    "validation": ("train_until_ms", "validate_until_ms", style.WINDOWS[3]),
    "embargo": ("validate_until_ms", "test_from_ms", "#c3cad2"),
    "test": ("test_from_ms", "test_until_ms", style.BETTER),
}
_REGIMES = {
    "calm": (style.WINDOWS[0], "o"),
    "middle": (style.PERSISTENCE, "s"),
    "wild": (style.WARNING, "^"),
    "all": (style.INK, "D"),
}
_CENTRES = {
    "persistence": "around persistence",
    "network": "around the network",
    "garch_t": "simulated GARCH(1,1)-t",
}
_STAYS = "the price stays as it is"
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)))


def figures(
    metrics: Mapping[str, Any],
    folds: Sequence[Mapping[str, Any]],
    evidence: pd.DataFrame,
    *,
    mark: style.Mark,
) -> dict[str, Figure]:
    """All pictures by the names of their files, from metrics.json and the arguments below."""
    return {
        "folds.png": folds_figure(folds, metrics["folds"], mark=mark),
        "skill_by_step.png": skill_figure(metrics["models"], mark=mark, first="network"),
        "coverage.png": coverage_figure(metrics["intervals"], mark=mark),
        "evidence.png": evidence_figure(evidence, mark=mark, needed=E_NEEDED),
    }


def folds_figure(
    folds: Sequence[Mapping[str, Any]], skills: Sequence[Mapping[str, float]], *, mark: style.Mark
) -> Figure:
    """The parts of each fold in time, and beside it the network's skill with its 90 % interval.

    `folds` are of `backtest.json` (times in ms UTC), `skills` of `judgement.fold_skills`.
    """
    figure = canvas.picture(f"Folds of the back-test, {mark.subject}", mark=mark)
    time, skill = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    rows = np.array([fold["number"] for fold in folds])
    for name, (first, last, colour) in _PARTS.items():
        begin, end = (
            np.array([fold[edge] for fold in folds]).astype("datetime64[ms]")
            for edge in (first, last)
        )
        time.barh(rows, end - begin, left=begin, height=0.6, color=colour, label=name)
    canvas.style_axes(time, title="What each fold was fitted and tested on")
    canvas.set_time_axis(time)
    time.set_ylabel("fold")
    time.yaxis.set_major_locator(MaxNLocator(integer=True))
    time.set_ylim(rows.max() + 0.6, rows.min() - 0.6)
    canvas.add_legend(time)
    value, lower, upper = (
        np.array([one[name] for one in skills], float) for name in ("skill", "lower", "upper")
    )
    skill.axvline(0, color=style.PERSISTENCE, linewidth=1.4, label=_STAYS)
    skill.errorbar(
        value, rows, xerr=[value - lower, upper - value], fmt="o", color=style.FORECAST,
        capsize=4, label="network, 90 % interval",
    )  # fmt: skip
    canvas.style_axes(skill, title="Skill over all steps; above 0 is better")
    skill.set_xlabel("skill: 1 - MSE / MSE of persistence")
    skill.xaxis.set_major_locator(MaxNLocator(5))
    canvas.add_legend(skill)
    return figure


def skill_figure(
    models: Mapping[str, Mapping[str, Any]], *, mark: style.Mark, first: str
) -> Figure:
    """The skill of each model by step, all folds together; `models` are of metrics.json. The model
    `first` is the thick line. Models far below persistence are named, not drawn."""
    skills = {
        name: np.array(
            [
                parts[step]["pooled"]["skill"]
                for step in sorted(parts, key=_number)
                if step != "all"
            ],
            dtype=float,
        )
        for name, parts in models.items()
        if name != "persistence"
    }
    worst = {name: float(np.fmin.reduce(values)) for name, values in skills.items()}
    floor = -max(0.05, 4 * float(np.fmax.reduce(np.abs(skills[first]))))
    figure = canvas.picture(f"Skill by step, {mark.subject}", mark=mark)
    axes = figure.add_subplot()
    axes.axhline(0, color=style.QUIET, linewidth=1.4, label=_STAYS)
    drawn = [name for name in skills if not worst[name] < floor]
    for place, name in enumerate(sorted(drawn, key=lambda name: name != first)):
        steps = np.arange(1, len(skills[name]) + 1)
        look: dict[str, Any] = {"color": style.INK, "linewidth": 2.6, "zorder": 5}
        if name != first:
            look = {"color": style.window_colour(place - 1), "linewidth": 1.5}
            look["linestyle"] = _DASHES[(place - 1) // len(style.WINDOWS) % len(_DASHES)]
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, skills[name], label=name.replace("_", " "), marker=marker, **look)
    off = [f"{name.replace('_', ' ')} ({worst[name]:+.2f})" for name in skills if name not in drawn]
    note = f"Off the scale, with the worst skill: {', '.join(off)}" if off else None
    canvas.style_axes(axes, title=note)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("steps ahead")
    axes.set_ylabel("skill: 1 - MSE / MSE of persistence")
    canvas.add_legend(axes)
    return figure


def _number(step: str) -> int:
    return int(step) if step.isdigit() else 0


def coverage_figure(found: Mapping[str, Any], *, mark: style.Mark) -> Figure:
    """How far the coverage is from the nominal level, by regime of the volatility, around each
    centre; the band is the noise of a forecaster who knows the volatility. `found` is the part
    `intervals` of metrics.json."""
    levels = np.array(found["levels"])
    places = np.arange(len(levels))
    chance = 100 * np.array(found["oracle"]["terciles"]["95"], float)
    figure = canvas.picture(f"Coverage of the intervals, {mark.subject}", mark=mark)
    panels = np.atleast_1d(figure.subplots(1, len(found["around"]), sharey=True))
    for axes, (name, table) in zip(panels, found["around"].items(), strict=True):
        axes.axhline(0, color=style.QUIET, linewidth=1)
        band = {"color": style.QUIET, "alpha": 0.18, "linewidth": 0}
        axes.fill_between(places, -chance, chance, label="chance, 95 % of the time", **band)
        parts = dict(zip(_REGIMES, np.array(table["terciles"], float), strict=False))
        parts["all"] = np.array(table["overall"], float)
        for (regime, share), (colour, marker) in zip(parts.items(), _REGIMES.values(), strict=True):
            look = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1.6}
            axes.plot(places, 100 * (share - levels), label=regime, **look)
        canvas.style_axes(axes, title=_CENTRES.get(name, name))
        axes.margins(x=0.05)
        axes.set_xticks(places, [f"{100 * level:g} %" for level in levels])
        axes.set_xlabel("nominal level")
    panels[0].set_ylabel("observed less nominal (percentage points)")
    canvas.add_legend(panels[0])
    # It is wider than its panel, and must not move the next one.
    panels[0].get_legend().set_in_layout(False)
    return figure


def evidence_figure(evidence: pd.DataFrame, *, mark: style.Mark, needed: float) -> Figure:
    """The e-values of the network's forecasts of step 1 over time; `evidence` is of
    `judgement.evidence`, with natural logs. At `needed` a grade is reached."""
    figure = canvas.picture(f"Evidence for the network, {mark.subject}", mark=mark)
    axes = figure.add_subplot()
    seen = style.thinned(evidence)
    time = style.utc(seen["timestamp"])
    looks = {"information": style.FORECAST, "accuracy": style.WARNING}
    for name, colour in looks.items():
        decades = seen[name].to_numpy() / np.log(10)
        axes.plot(time, decades, color=colour, linewidth=1.6, label=f"e-{name}")
    line: dict[str, Any] = {"color": style.INK, "linestyle": (0, (4, 2)), "linewidth": 1.3}
    axes.axhline(np.log10(needed), label=f"{needed:g}: proven, with an error rate of 5 %", **line)
    axes.axhline(0, color=style.QUIET, linewidth=1)
    canvas.style_axes(axes)
    # Decades and not a log axis: an e-value can be too small for a float.
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_decade_text))
    axes.set_ylabel("e-value (log scale)")
    canvas.set_time_axis(axes)
    canvas.add_legend(axes)
    return figure


def _decade_text(decade: float, _: int) -> str:
    return f"{10**decade:g}" if abs(decade) <= 4 else f"1e{decade:.0f}"
