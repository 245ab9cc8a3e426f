"""Groups of windows → batches, against taking every window out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.model import windowing
from bitstorm.model.windowing import Windows

COLUMNS = ("target", "price", "target_timestamp", "target_price")


def groups(sizes: list[int], *, look_back: int, features: int) -> tuple[list[Windows], list[tuple]]:
    """Groups of so many windows, no two numbers alike; and (window, …), window by window."""
    drawn = np.random.default_rng(1)
    found, expected = [], []
    for number, size in enumerate(sizes):
        points = size + look_back + 4
        values = np.arange(points * features, dtype=np.float32).reshape(points, features)
        values += 1000 * number
        starts = drawn.permutation(points - look_back + 1)[:size].astype(np.int32)
        columns = [
            (np.arange(size) + 1000 * number + place * 100_000).astype(
                np.int64 if name == "target_timestamp" else np.float32
            )
            for place, name in enumerate(COLUMNS)
        ]
        found.append(Windows(values, starts, *columns))
        for row, start in enumerate(starts):
            window = [
                [float(values[start + step, feature]) for feature in range(features)]
                for step in range(look_back)
            ]
            expected.append((window, *(column[row].item() for column in columns)))
    return found, expected


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 15), max_size=6),
    batch_size=st.integers(1, 40),
    look_back=st.integers(1, 5),
    features=st.integers(1, 3),
)
def test_batches_hold_every_window_once_in_order(sizes, batch_size, look_back, features):
    given_groups, expected = groups(sizes, look_back=look_back, features=features)
    found: list[tuple] = []
    lengths = []
    for batch in windowing.batches(given_groups, look_back=look_back, batch_size=batch_size):
        assert batch.window.dtype == np.float32
        assert batch.window.shape == (len(batch), look_back, features)
        assert batch.window.flags.c_contiguous
        lengths.append(len(batch))
        found += zip(
            batch.window.tolist(), *(getattr(batch, n).tolist() for n in COLUMNS), strict=True
        )
    assert found == expected
    whole, rest = divmod(sum(sizes), batch_size)
    assert lengths == [batch_size] * whole + [rest] * (rest > 0)


@pytest.mark.parametrize("points", [0, 1, 2])
def test_fewer_points_than_the_look_back_are_an_empty_batch(points):
    empty = np.empty(0, np.float32)
    values, starts = np.zeros((points, 2), np.float32), np.empty(0, np.int32)
    group = Windows(values, starts, empty, empty, empty.astype(np.int64), empty)
    assert group.to_batch(3).window.shape == (0, 3, 2)
    assert list(windowing.batches([group], look_back=3, batch_size=4)) == []


def test_a_batch_does_not_keep_the_columns_of_its_group_alive():
    (group,), _ = groups([10], look_back=2, features=1)
    batch = next(windowing.batches([group], look_back=2, batch_size=4))
    assert all(getattr(batch, name).base is None for name in COLUMNS)
    assert not np.shares_memory(batch.window, group.values)
