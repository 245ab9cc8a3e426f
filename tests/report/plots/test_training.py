"""The pictures of the training and of a study show the given numbers."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from bitstorm.core.errors import DataError
from bitstorm.report import importance_figure, style, training_figure
from report.drawn import COINGECKO, SIMULATED, THEMES, line, places, texts, x_labels, y_labels


@pytest.mark.parametrize("theme", THEMES)
def test_losses_are_drawn_as_given_and_the_best_epoch_is_marked(history, theme):
    (axes,) = training_figure(history, mark=COINGECKO, best=3, theme=theme).axes
    np.testing.assert_array_equal(line(axes, "training"), history["loss"])
    np.testing.assert_array_equal(line(axes, "validation"), history["val_loss"])
    assert places(axes, "validation").tolist() == history["epoch"].tolist()
    assert places(axes, "best epoch (3)").tolist() == [3, 3]
    assert {"1", "2", "3", "4"} <= set(x_labels(axes))


def test_one_epoch_is_the_only_tick(history):
    figure = training_figure(history.head(1), mark=SIMULATED, best=1)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]
    assert texts(figure)[1].startswith("One epoch. ")


@pytest.mark.parametrize("theme", THEMES)
def test_the_most_important_setting_is_at_the_top(theme):
    shares = {"units": 0.25, "learning_rate": 0.625, "dropout": 0.125}
    figure = importance_figure(shares, mark=SIMULATED, theme=theme)
    (axes,) = figure.axes
    names = y_labels(axes)
    boxes = [bar.get_path().get_extents(bar.get_patch_transform()) for bar in axes.patches]
    assert {name: box.x1 for name, box in zip(names, boxes, strict=True)} == shares
    assert names[int(np.argmax([box.y0 for box in boxes]))] == "learning_rate"
    assert [text.get_text() for text in axes.texts] == ["12 %", "25 %", "62 %"]
    assert {to_hex(text.get_color()) for text in axes.texts} == {style.THEMES[theme].ink}
    assert "SIMULATED" in texts(figure)


def test_without_anything_to_draw_they_say_so(history):
    with pytest.raises(DataError, match="the training history frame has no row"):
        training_figure(history.head(0), mark=SIMULATED, best=1)
    with pytest.raises(DataError, match="needs eight complete trials"):
        importance_figure({}, mark=SIMULATED)
