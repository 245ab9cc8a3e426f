"""The pictures of a back-test show the given numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bitstorm.report import canvas
from bitstorm.report.backtest_plots import (
    coverage_figure,
    evidence_figure,
    figures,
    folds_figure,
    skill_figure,
)
from bitstorm.report.style import Mark

HOUR, DAY = 3_600_000, 86_400_000
T0 = 1_704_067_200_000  # 2024-01-01T00:00:00Z
SIMULATED = Mark("simulated:7", "bitcoin", "usd")
COINGECKO = Mark("coingecko", "bitcoin", "usd")
LEVELS = [0.5, 0.8, 0.9, 0.95]


def line(axes: Axes, label: str) -> np.ndarray:
    found = next(found for found in axes.get_lines() if found.get_label() == label)
    return np.asarray(found.get_ydata(), dtype=np.float64)


def folds() -> tuple[list[dict[str, int]], list[dict[str, float]]]:
    edges = ("train_from_ms", "train_until_ms", "validate_until_ms", "test_from_ms")
    days = [(0, 60, 80, 84, 100), (0, 75, 96, 100, 116)]
    made = [
        {"number": number, **dict(zip((*edges, "test_until_ms"), times, strict=True))}
        for number, times in enumerate(([T0 + day * DAY for day in fold] for fold in days), 1)
    ]
    skills = [
        {"skill": 0.01, "lower": -0.02, "upper": 0.04},
        {"skill": -0.03, "lower": -0.05, "upper": -0.01},
    ]
    return made, skills


def models(**skills: list[float]) -> dict[str, Any]:
    return {
        name: {
            "all": {"pooled": {"skill": 9.0}},
            # In the order of the text, as in the file.
            **{str(n): {"pooled": {"skill": values[n - 1]}} for n in sorted(range(1, 12), key=str)},
        }
        for name, values in skills.items()
    }


def skills(size: float) -> list[float]:
    return [size * n for n in range(1, 12)]


def intervals(*, shift: float = 0.0) -> dict[str, Any]:
    table = {
        "overall": [level + shift for level in LEVELS],
        "terciles": [[level + place / 100 for level in LEVELS] for place in range(3)],
    }
    return {
        "levels": LEVELS,
        "around": {"persistence": table, "network": table, "garch_t": table},
        "oracle": {"terciles": {"95": [0.04, 0.03, 0.02, 0.01]}},
    }


def evidence(hours: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "timestamp": T0 + HOUR * np.arange(hours),
            "information": np.linspace(0, np.log(1_000), hours),
            "accuracy": np.linspace(0, -np.log(10), hours),
        }
    )


def all_figures(mark: Mark) -> dict[str, Figure]:
    made, by_fold = folds()
    by_model = models(persistence=skills(0), network=skills(0.001), ar=skills(-0.001))
    metrics = {"folds": by_fold, "models": by_model, "intervals": intervals()}
    return figures(metrics, made, evidence(300), mark=mark)


def test_the_parts_of_the_folds_lie_in_time():
    made, _ = folds()
    figure = folds_figure(*folds(), mark=COINGECKO)
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


def test_skills_are_drawn_in_the_order_of_the_steps():
    made = models(persistence=skills(0), ar=skills(-0.001), network=skills(0.001), ema=skills(-1))
    (axes,) = skill_figure(made, mark=COINGECKO, first="network").axes
    np.testing.assert_allclose(line(axes, "network"), skills(0.001))
    np.testing.assert_allclose(line(axes, "ar"), skills(-0.001))
    assert axes.get_title(loc="left") == "Off the scale, with the worst skill: ema (-11.00)"
    labels = [found.get_label() for found in axes.get_lines()]
    assert labels == ["the price stays as it is", "network", "ar"]


def test_a_single_step_is_the_only_tick():
    one = {"1": {"pooled": {"skill": -0.001}}}
    figure = skill_figure({"network": one, "ar": one}, mark=COINGECKO, first="network")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_many_models_differ_in_colour_or_dashes():
    made = models(network=skills(0.001), **{f"model_{n}": skills(0.0001 * n) for n in range(12)})
    (axes,) = skill_figure(made, mark=COINGECKO, first="network").axes
    looks = {(to_hex(found.get_color()), found.get_linestyle()) for found in axes.get_lines()}
    assert len(looks) == 14


def test_coverage_is_drawn_less_the_level_with_the_noise():
    figure = coverage_figure(intervals(shift=-0.005), mark=COINGECKO)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["around persistence", "around the network", "simulated GARCH(1,1)-t"]
    axes = figure.axes[1]
    for place, regime in enumerate(("calm", "middle", "wild")):
        np.testing.assert_allclose(line(axes, regime), [float(place)] * 4, atol=1e-9)
    np.testing.assert_allclose(line(axes, "all"), [-0.5] * 4)
    (band,) = [found for found in axes.collections if isinstance(found, PolyCollection)]
    heights = np.unique(np.round(np.asarray(band.get_paths()[0].vertices)[:, 1], 9))
    assert heights.tolist() == [-4, -3, -2, -1, 1, 2, 3, 4]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["50 %", "80 %", "90 %", "95 %"]


def test_evidence_is_drawn_in_decades_with_the_line_at_20():
    figure = evidence_figure(evidence(300), mark=COINGECKO, needed=20.0)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    np.testing.assert_allclose(line(axes, "e-information"), np.linspace(0, 3, 300))
    np.testing.assert_allclose(line(axes, "e-accuracy"), np.linspace(0, -1, 300))
    needed = line(axes, "20: proven, with an error rate of 5 %")
    np.testing.assert_allclose(needed, [np.log10(20)] * 2)
    labels = {tick.get_text() for tick in axes.get_yticklabels()}
    assert {"0.1", "1", "10", "100", "1000"} <= labels
    assert axes.get_xlabel() == "time (UTC)"


def test_a_hopeless_forecast_has_readable_decades():
    hopeless = evidence(300).assign(accuracy=-2_000.0)
    figure = evidence_figure(hopeless, mark=COINGECKO, needed=20.0)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert "1e-800" in {tick.get_text() for tick in axes.get_yticklabels()}


@pytest.mark.parametrize("mark", [SIMULATED, COINGECKO])
def test_every_picture_has_the_mark_and_the_title(mark, tmp_path):
    for name, figure in all_figures(mark).items():
        said = [text.get_text() for text in figure.texts]
        assert "Bitcoin in USD" in said[0]
        assert ("SIMULATED market (seed 7): not real prices" in said) is mark.simulated
        assert ("Data provided by CoinGecko" in said) is not mark.simulated
        canvas.save_png(figure, tmp_path / name)


def test_numbers_that_are_missing_leave_gaps(tmp_path):
    nothing = [None] * 4
    unknown = {"overall": nothing, "terciles": [nothing] * 3}
    found = {
        "levels": LEVELS,
        "around": {"persistence": unknown},
        "oracle": {"terciles": {"95": nothing}},
    }
    made, _ = folds()
    lost = [dict.fromkeys(("skill", "lower", "upper"), math.nan)] * 2
    for figure in (
        coverage_figure(found, mark=COINGECKO),
        folds_figure(made, lost, mark=COINGECKO),
        skill_figure(models(network=[math.nan] * 11), mark=COINGECKO, first="network"),
        evidence_figure(evidence(0), mark=COINGECKO, needed=20.0),
    ):
        canvas.save_png(figure, tmp_path / "picture.png")
