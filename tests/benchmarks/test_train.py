"""The ways that the benchmark of trainings compares train on the same windows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import train
from bitstorm.core.errors import BitstormError
from model.small_run import feeds, made, new_network

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return feeds(made(tmp_path_factory.mktemp("small")))


class Short:
    """A feed that says that it has more windows than it serves."""

    def __init__(self, feed):
        self.dataset = feed.dataset

    def __len__(self):
        return 99


def test_the_walk_follows_its_past_and_is_landed_whole(tmp_path):
    train.write_walk(tmp_path, 5_000)
    (batch,) = tmp_path.glob("*.csv")
    stamps, prices = np.loadtxt(batch, delimiter=",", skiprows=1, unpack=True)
    assert len(stamps) == 5_000 and set(np.diff(stamps)) == {train.HOUR_MS}
    returns = np.diff(np.log(prices))
    # The weight of the return before it, by least squares; 0 in a walk that nobody can forecast.
    past = np.stack([returns[2:-1], returns[:-3]], axis=1)
    weight, _ = np.linalg.lstsq(past, returns[3:], rcond=None)[0]
    assert weight == pytest.approx(0.4, abs=0.1)


def test_a_pass_as_arrays_has_every_window_once_or_fails(small):
    window, target = train._arrays(small[0], 16)
    np.testing.assert_array_equal(window, small[0].window)
    np.testing.assert_array_equal(target, small[0].target)
    with pytest.raises(BitstormError, match="served 37 windows, expected 99"):
        train._arrays(Short(small[1]), 16)


def test_ours_and_keras_train_as_far_in_as_many_epochs(small, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "TOGETHER", 6)
    ready: Any = SimpleNamespace(feeds=dict(zip(("training", "validation"), small, strict=True)))
    seen = []
    ours, theirs = new_network(seed=1), new_network(seed=1)
    seconds, loss = train._fit(
        ours, ready, tmp_path, 16, epochs=6, each=lambda: seen.append(train._rss())
    )
    assert seconds > 0 and len(seen) == 6 and min(seen) > 10
    arrays = {part: train._arrays(feed, 16) for part, feed in ready.feeds.items()}
    train._keras_fit(theirs, arrays, 16)(1)
    window, target = arrays["validation"]
    other = float(np.mean((np.asarray(theirs(window))[:, 0] - target) ** 2))
    # In another order, with other dropout.
    assert loss == pytest.approx(other, rel=0.5) and max(loss, other) < np.var(target) / 2


def test_the_slope_is_that_of_the_line():
    assert train._slope([3.0, 5.0, 7.0, 9.0]) == pytest.approx(2.0)
