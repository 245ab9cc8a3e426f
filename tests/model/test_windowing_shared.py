"""Specs that share blocks: windows at the same points, each the end of the longest one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.model import windowing
from bitstorm.model.scaling import Scaler
from model import blocked


@settings(deadline=None, max_examples=25)
@given(
    longest=st.integers(2, 6),
    holes=st.sets(st.integers(0, 39), max_size=3),
    features=st.sampled_from([("log_return",), ("price",), ("log_return", "price")]),
)
def test_a_shorter_look_back_has_the_same_windows(tmp_path_factory, longest, holes, features):
    price = np.linspace(100, 140, 40) + np.sin(np.arange(40))
    price[list(holes)] = np.nan
    spec = blocked.frame_of(look_back=longest, features=features, target="log_return")
    folder = blocked.write(tmp_path_factory.mktemp("shared") / "blocks", spec, price)
    scaler = Scaler(dict.fromkeys(features, blocked.UNSCALED), blocked.UNSCALED)

    def windows_of(one):
        for columns in blocked.stored(folder, one).columns():
            which = windowing.complete_windows(one, columns)
            windows = windowing.to_windows(one, columns, scaler, which)
            yield windows.to_batch(one.look_back)

    whole = list(windows_of(spec))
    for look_back in range(1, longest):
        shorter = list(windows_of(replace(spec, look_back=look_back, longest=longest)))
        for one, other in zip(shorter, whole, strict=True):
            np.testing.assert_array_equal(one.window, other.window[:, -look_back:])
            np.testing.assert_array_equal(one.target, other.target)
            np.testing.assert_array_equal(one.target_timestamp, other.target_timestamp)
    by_hand = sum(not np.isnan(price[n - longest : n + 2]).any() for n in range(longest, 39))
    if "log_return" in features:
        assert sum(map(len, whole)) == by_hand


@pytest.mark.parametrize(("look_back", "longest", "before"), [(3, 0, 3), (3, 2, 3), (3, 9, 9)])
def test_a_block_has_room_for_the_longest_window(look_back, longest, before):
    spec = replace(blocked.frame_of(look_back=look_back), longest=longest)
    assert (spec.before, spec.length) == (before, before + spec.size + spec.horizon)
