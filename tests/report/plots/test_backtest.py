"""The pictures of a back-test show the given numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bitstorm.report import (
    coverage_figure,
    error_figure,
    evidence_figure,
    folds_figure,
    skill_figure,
)
from bitstorm.report.style import STAYS, Mark, ThemeName
from report.backtested import DAY, LEVELS, evidence, folds, intervals, models, skills
from report.drawn import (
    COINGECKO,
    SIMULATED,
    THEMES,
    band,
    corners,
    line,
    places,
    texts,
    times,
    x_labels,
    y_labels,
)


def all_figures(mark: Mark, theme: ThemeName) -> list[Figure]:
    made, by_fold = folds()
    by_model = models(persistence=skills(0), network=skills(0.001), ar=skills(-0.001))
    return [
        folds_figure(made, by_fold, mark=mark, theme=theme),
        skill_figure(by_model, mark=mark, theme=theme),
        error_figure(by_model, mark=mark, theme=theme),
        coverage_figure(intervals(), mark=mark, theme=theme),
        evidence_figure(evidence(300), mark=mark, theme=theme),
    ]


@pytest.mark.parametrize("theme", THEMES)
def test_the_parts_of_the_folds_lie_in_time(theme):
    made, _ = folds()
    figure = folds_figure(*folds(), mark=COINGECKO, theme=theme)
    figure.draw_without_rendering()
    time, _ = figure.axes
    drawn = {bars.get_label(): bars for bars in time.containers}
    assert list(drawn) == ["training", "validation", "embargo", "test"]
    assert len({to_hex(bars[0].get_facecolor()) for bars in drawn.values()}) == 4
    for label, first, last in (
        ("training", "train_from_ms", "train_until_ms"),
        ("validation", "train_until_ms", "validate_until_ms"),
        ("embargo", "validate_until_ms", "test_from_ms"),
        ("test", "test_from_ms", "test_until_ms"),
    ):
        # Matplotlib counts days.
        bars = [(bar.get_x(), bar.get_width()) for bar in drawn[label]]
        expected = [(fold[first] / DAY, (fold[last] - fold[first]) / DAY) for fold in made]
        np.testing.assert_allclose(bars, expected)
    assert time.get_ylim()[0] > time.get_ylim()[1], "the first fold is at the top"


def test_the_skill_of_each_fold_has_its_interval():
    _, skill = folds_figure(*folds(), mark=COINGECKO).axes
    (bars,) = skill.containers
    points, _, (ranges,) = bars
    np.testing.assert_allclose(points.get_xydata(), [[0.01, 1], [-0.03, 2]])
    ends = [np.asarray(segment)[:, 0] for segment in ranges.get_segments()]
    np.testing.assert_allclose(ends, [[-0.02, 0.04], [-0.05, -0.01]])
    assert places(skill, STAYS).tolist() == [0, 0]


@pytest.mark.parametrize("theme", THEMES)
def test_skills_are_drawn_in_the_order_of_the_steps(theme):
    made = models(persistence=skills(0), ar=skills(-0.001), network=skills(0.001), ema=skills(-1))
    (axes,) = skill_figure(made, mark=COINGECKO, theme=theme).axes
    np.testing.assert_allclose(line(axes, "network"), skills(0.001))
    np.testing.assert_allclose(line(axes, "ar"), skills(-0.001))
    assert places(axes, "ar").tolist() == list(range(1, 12))
    assert axes.get_title(loc="left") == "Off the scale, with the worst skill: ema (-11.00)"
    assert [found.get_label() for found in axes.get_lines()] == [STAYS, "network", "ar"]


@pytest.mark.parametrize("theme", THEMES)
def test_errors_are_drawn_beside_those_of_persistence(theme):
    made = models(
        ema=skills(-0.5), network=skills(0.001), persistence=skills(0), seasonal_naive_24=skills(-1)
    )
    figure = error_figure(made, mark=COINGECKO, theme=theme)
    (axes,) = figure.axes
    roots = 0.01 * np.sqrt(np.arange(1, 12))
    np.testing.assert_allclose(line(axes, STAYS), roots)
    np.testing.assert_allclose(line(axes, "network"), roots * np.sqrt(1 - np.array(skills(0.001))))
    # 1 + 0.5 * 11 times the squared error of persistence.
    assert axes.get_title(loc="left") == (
        "Off the scale, times the error of persistence: ema (2.5), seasonal naive 24 (3.5)"
    )
    assert axes.get_ylim()[0] == 0
    assert all(label.endswith(" %") for label in y_labels(axes))
    assert texts(figure)[1].startswith("1,234 forecasts of each model, all folds. Prices in USD.")


@pytest.mark.parametrize("draw", [skill_figure, error_figure])
def test_a_single_step_is_the_only_tick(draw):
    figure = draw(models(network=[-0.001], persistence=[0.0]), mark=COINGECKO)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


@pytest.mark.parametrize("theme", THEMES)
def test_many_models_differ_in_colour_or_dashes(theme):
    made = models(network=skills(0.001), **{f"model_{n}": skills(0.0001 * n) for n in range(14)})
    (axes,) = skill_figure(made, mark=COINGECKO, theme=theme).axes
    dashes: list[Any] = axes.get_lines()
    looks = {(to_hex(of.get_color()), str(of._dash_pattern)) for of in dashes}
    assert len(looks) == 16


@pytest.mark.parametrize("theme", THEMES)
def test_coverage_is_drawn_less_the_level_with_the_noise(theme):
    figure = coverage_figure(intervals(shift=-0.005), mark=COINGECKO, theme=theme)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["around persistence", "around the network", "simulated GARCH(1,1)-t"]
    axes = figure.axes[1]
    for place, regime in enumerate(("calm", "middle", "wild")):
        np.testing.assert_allclose(line(axes, regime), [float(place)] * 4, atol=1e-9)
    np.testing.assert_allclose(line(axes, "all"), [-0.5] * 4)
    heights = np.unique(np.round(corners(band(axes, "chance, 95 % of the time"))[:, 1], 9))
    assert heights.tolist() == [-4, -3, -2, -1, 1, 2, 3, 4]
    assert x_labels(axes) == ["50 %", "80 %", "90 %", "95 %"]


def test_the_centres_have_one_order_whatever_the_file_has():
    found = intervals()
    found["around"] = dict(sorted(found["around"].items())) | {
        "another": found["around"]["network"]
    }
    figure = coverage_figure(found, mark=COINGECKO)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [
        "around persistence", "around the network", "simulated GARCH(1,1)-t", "another",
    ]  # fmt: skip


@pytest.mark.parametrize("theme", THEMES)
def test_evidence_is_drawn_in_decades_with_the_line_at_20(theme):
    figure = evidence_figure(evidence(300), mark=COINGECKO, theme=theme)
    (axes,) = figure.axes
    np.testing.assert_allclose(line(axes, "e-information"), np.linspace(0, 3, 300))
    np.testing.assert_allclose(line(axes, "e-accuracy"), np.linspace(0, -1, 300))
    assert times(axes, "e-accuracy").tolist() == evidence(300)["timestamp"].tolist()
    needed = line(axes, "20: proven, with an error rate of 5 %")
    np.testing.assert_allclose(needed, [np.log10(20)] * 2)
    assert {"0.1", "1", "10", "100", "1000"} <= set(y_labels(axes))
    assert axes.get_xlabel() == "time (UTC)"


def test_a_hopeless_forecast_has_readable_decades():
    hopeless = evidence(300).assign(accuracy=-2_000.0)
    (axes,) = evidence_figure(hopeless, mark=COINGECKO).axes
    assert "1e-800" in y_labels(axes)


@pytest.mark.parametrize("mark", [SIMULATED, COINGECKO])
def test_every_picture_has_the_mark_and_the_title(mark):
    for figure in (figure for theme in THEMES for figure in all_figures(mark, theme)):
        said = texts(figure)
        assert "Bitcoin in USD" in said[0]
        assert ("SIMULATED market (seed 7): not real prices" in said) is mark.simulated
        assert ("Data provided by CoinGecko" in said[1]) is not mark.simulated


def test_numbers_that_are_missing_leave_gaps():
    nothing = [None] * 4
    unknown = {"overall": nothing, "terciles": [nothing] * 3}
    found = {
        "levels": LEVELS,
        "around": {"persistence": unknown},
        "oracle": {"terciles": {"95": nothing}},
    }
    made, _ = folds()
    lost = [dict.fromkeys(("skill", "lower", "upper"), math.nan)] * 2
    unknown_skills = models(network=[math.nan] * 11, persistence=[math.nan] * 11)
    for figure in (
        coverage_figure(found, mark=COINGECKO),
        folds_figure(made, lost, mark=COINGECKO),
        skill_figure(unknown_skills, mark=COINGECKO),
        error_figure(unknown_skills, mark=COINGECKO),
        evidence_figure(evidence(0), mark=COINGECKO),
    ):
        figure.draw_without_rendering()
