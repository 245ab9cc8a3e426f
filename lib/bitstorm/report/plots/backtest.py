"""The pictures of a back-test: its numbers in, Matplotlib figures out.

Each function raises UsageError for an unknown theme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bitstorm.backtest.scores import PERSISTENCE
from bitstorm.evaluation.verdict import E_NEEDED
from bitstorm.report import canvas, style
from bitstorm.report.plots.lines import draw_persistence, span_note
from bitstorm.report.style import STAYS, Mark, ThemeName

# The parts of a fold: from and until, both as in the record; the embargo lies between.
_PARTS = {
    "training": ("train_from_ms", "train_until_ms"),
    "validation": ("train_until_ms", "validate_until_ms"),
    "embargo": ("validate_until_ms", "test_from_ms"),
    "test": ("test_from_ms", "test_until_ms"),
}
_NETWORK = "network"
_REGIMES = {"calm": "o", "middle": "s", "wild": "^", "all": "D"}
_CENTRES = {
    "persistence": "around persistence",
    "network": "around the network",
    "garch_t": "simulated GARCH(1,1)-t",
}
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)))
# A model far behind the first one would flatten all others: it is named instead.
_LEAST_SKILL, _FAR = 0.05, 4.0
_SKILL = "skill: 1 - MSE / MSE of persistence"


@canvas.themed
def folds_figure(
    folds: Sequence[Mapping[str, Any]],
    skills: Sequence[Mapping[str, float]],
    *,
    mark: Mark,
    theme: ThemeName = "light",
) -> Figure:
    """The parts of each fold in time, and beside it the network's skill with its 90 % interval.

    `folds` are of `backtest.json` (times in ms UTC), `skills` of `judgement.fold_skills`.
    """
    title = f"Folds of the back-test, {mark.subject}"
    note = f"{len(folds)} folds, the test parts of all models are the same"
    figure = canvas.picture(title, mark=mark, theme=theme, note=note)
    time, skill = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    look, rows = figure.theme, np.array([fold["number"] for fold in folds])
    shades = (look.series[0], look.series[3], look.quiet, look.better)
    for (name, edges), colour in zip(_PARTS.items(), shades, strict=True):
        begin, end = (
            np.array([fold[edge] for fold in folds]).astype("datetime64[ms]") for edge in edges
        )
        time.barh(rows, end - begin, left=begin, height=0.6, color=colour, label=name)
    time.grid(axis="y", visible=False)
    time.set_title("What each fold was fitted and tested on")
    canvas.set_time_axis(time)
    time.set_ylabel("fold")
    time.yaxis.set_major_locator(MaxNLocator(integer=True))
    time.set_ylim(rows.max() + 0.6, rows.min() - 0.6)
    canvas.add_legend(time)
    value, lower, upper = (
        np.array([one[name] for one in skills], float) for name in ("skill", "lower", "upper")
    )
    draw_persistence(skill, upright=True)
    skill.errorbar(
        value, rows, xerr=[value - lower, upper - value], fmt="o", color=look.forecast,
        capsize=4, label="network, 90 % interval",
    )  # fmt: skip
    skill.set_title("Skill over all steps; above 0 is better")
    skill.set_xlabel(_SKILL)
    skill.margins(x=0.06)
    skill.xaxis.set_major_locator(MaxNLocator(5))
    canvas.add_legend(skill)
    return figure


def _by_step(models: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
    """This pooled score of each model, by step from 1 on."""
    return {
        model: np.array(
            [parts[step]["pooled"][name] for step in sorted(set(parts) - {"all"}, key=int)], float
        )
        for model, parts in models.items()
    }


@canvas.themed
def skill_figure(
    models: Mapping[str, Mapping[str, Any]], *, mark: Mark, theme: ThemeName = "light"
) -> Figure:
    """The skill of each model by step, all folds together; `models` are of metrics.json. The
    network is the thick line. Models far below persistence are named, not drawn."""
    skills = _by_step(models, "skill")
    skills.pop(PERSISTENCE, None)
    worst = {name: float(np.fmin.reduce(values)) for name, values in skills.items()}
    floor = -max(_LEAST_SKILL, _FAR * float(np.fmax.reduce(np.abs(skills[_NETWORK]))))
    drawn = {name: values for name, values in skills.items() if not worst[name] < floor}
    off = [f"{style.words(name)} ({worst[name]:+.2f})" for name in skills if name not in drawn]
    figure, axes = _steps_axes(f"Skill by step, {mark.subject}", models, mark, theme)
    axes.axhline(0, color=canvas.colours(axes).persistence, linewidth=1.4, label=STAYS)
    _draw_models(axes, drawn)
    if off:
        axes.set_title(f"Off the scale, with the worst skill: {', '.join(off)}")
    axes.set_ylabel(_SKILL)
    _legend_beside(axes)
    return figure


@canvas.themed
def error_figure(
    models: Mapping[str, Mapping[str, Any]], *, mark: Mark, theme: ThemeName = "light"
) -> Figure:
    """The root mean squared error of the log returns by step, of each model, all folds together.

    `models` are as in `skill_figure`. Models with more than twice the error of persistence are
    named, not drawn.
    """
    errors = _by_step(models, "rmse_log_return")
    with np.errstate(invalid="ignore"):
        ratio = {
            name: float(np.fmax.reduce(values / errors[PERSISTENCE]))
            for name, values in errors.items()
        }
    drawn = {name: values for name, values in errors.items() if not ratio[name] > 2}
    off = [f"{style.words(name)} ({ratio[name]:.1f})" for name in errors if name not in drawn]
    figure, axes = _steps_axes(f"Error by step, {mark.subject}", models, mark, theme)
    stays = drawn.pop(PERSISTENCE)
    steps, look = np.arange(1, len(stays) + 1), canvas.colours(axes)
    marker = "o" if len(steps) == 1 else None
    _draw_models(axes, drawn)
    line: dict[str, Any] = {"linewidth": 1.4, "linestyle": _DASHES[1], "zorder": 6}
    axes.plot(steps, stays, color=look.persistence, marker=marker, label=STAYS, **line)
    if off:
        axes.set_title(f"Off the scale, times the error of persistence: {', '.join(off)}")
    axes.set_ylim(bottom=0)
    canvas.set_percent_axis(axes, "RMSE of the log return")
    _legend_beside(axes)
    return figure


def _steps_axes(
    title: str, models: Mapping[str, Any], mark: Mark, theme: ThemeName
) -> tuple[Figure, Axes]:
    """The picture of values by step."""
    rows = next(iter(models.values()))["all"]["pooled"].get("rows")
    note = "" if rows is None else f"{style.count(rows)} forecasts of each model, all folds"
    figure = canvas.picture(title, mark=mark, theme=theme, note=note)
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("steps ahead")
    return figure, axes


def _draw_models(axes: Axes, values: Mapping[str, np.ndarray]) -> None:
    """A line a model; the network's is thick, and the others differ in colour or dashes."""
    look = canvas.colours(axes)
    shades = [colour for colour in look.series if colour != look.persistence]
    for place, name in enumerate(sorted(values, key=lambda name: name != _NETWORK), start=-1):
        steps = np.arange(1, len(values[name]) + 1)
        line: dict[str, Any] = {"color": look.ink, "linewidth": 2.6, "zorder": 5}
        if name != _NETWORK:
            # Neighbours differ in the dashes, too: of two equal lines both are seen.
            turn, at = divmod(place, len(shades))
            colour, dashes = shades[at], _DASHES[(at + turn) % len(_DASHES)]
            line = {"color": colour, "linewidth": 1.5, "linestyle": dashes}
        marker = "o" if len(steps) == 1 else None
        axes.plot(steps, values[name], label=style.words(name), marker=marker, **line)


def _legend_beside(axes: Axes) -> None:
    """The legend at the right: so many models have no place in a line."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)


@canvas.themed
def coverage_figure(found: Mapping[str, Any], *, mark: Mark, theme: ThemeName = "light") -> Figure:
    """How far the coverage is from the nominal level, by regime of the volatility, around each
    centre; the band is the noise of a forecaster who knows the volatility. `found` is the part
    `intervals` of metrics.json."""
    levels = np.array(found["levels"])
    places = np.arange(len(levels))
    chance = 100 * np.array(found["oracle"]["terciles"]["95"], float)
    origins = found.get("origins")
    note = "Regimes: thirds of the volatility"
    note += "" if origins is None else f", {style.count(origins)} origins"
    title = f"Coverage of the intervals, {mark.subject}"
    figure = canvas.picture(title, mark=mark, theme=theme, note=note)
    # First the known ones in their order: a file has the order of the alphabet.
    around = sorted(found["around"], key=lambda name: [*_CENTRES, name].index(name))
    panels = np.atleast_1d(figure.subplots(1, len(around), sharey=True))
    for axes, name in zip(panels, around, strict=True):
        table = found["around"][name]
        look = canvas.colours(axes)
        axes.axhline(0, color=look.quiet, linewidth=1)
        axes.fill_between(
            places, -chance, chance, color=look.quiet, alpha=0.22, linewidth=0,
            label="chance, 95 % of the time",
        )  # fmt: skip
        parts = [*np.array(table["terciles"], float), np.array(table["overall"], float)]
        shades = (look.series[0], look.persistence, look.warning, look.ink)
        for (regime, marker), share, colour in zip(_REGIMES.items(), parts, shades, strict=True):
            dots: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5}
            axes.plot(places, 100 * (share - levels), label=regime, **dots)
        axes.set_title(_CENTRES.get(name, name))
        axes.margins(x=0.08)
        axes.set_xticks(places, [f"{100 * level:g} %" for level in levels])
        axes.set_xlabel("nominal level")
    panels[0].set_ylabel("observed less nominal (percentage points)")
    canvas.add_legend(panels[0])
    # It is wider than its panel, and must not move the next one.
    panels[0].get_legend().set_in_layout(False)
    return figure


@canvas.themed
def evidence_figure(evidence: pd.DataFrame, *, mark: Mark, theme: ThemeName = "light") -> Figure:
    """The e-values of the network's forecasts of step 1 over time; `evidence` is of
    `judgement.evidence`, with natural logs. At the line a grade is reached."""
    timestamp = evidence["timestamp"].to_numpy(np.int64)
    note = f"{len(evidence):,} outcomes"
    note += f", {span_note(timestamp)}" if len(timestamp) else ""
    title = f"Evidence for the network, {mark.subject}"
    figure = canvas.picture(title, mark=mark, theme=theme, note=note)
    axes, look = figure.add_subplot(), figure.theme
    seen = style.thinned(evidence)
    for name, colour in (("information", look.forecast), ("accuracy", look.warning)):
        decades = seen[name].to_numpy() / np.log(10)
        axes.plot(style.utc(seen["timestamp"]), decades, color=colour, label=f"e-{name}")
    line: dict[str, Any] = {"color": look.ink, "linestyle": (0, (4, 2)), "linewidth": 1.3}
    axes.axhline(
        np.log10(E_NEEDED), label=f"{E_NEEDED:g}: proven, with an error rate of 5 %", **line
    )
    axes.axhline(0, color=look.quiet, linewidth=1)
    # Decades and not a log axis: an e-value can be too small for a float.
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(_decade_text))
    axes.set_ylabel("e-value (log scale)")
    canvas.set_time_axis(axes)
    canvas.add_legend(axes)
    return figure


def _decade_text(decade: float, _: int) -> str:
    return f"{10**decade:g}" if abs(decade) <= 4 else f"1e{decade:.0f}"
