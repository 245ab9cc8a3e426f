"""Batches of PyTorch's, against loops over every point."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (scripts/setup --torch): its backend is not tested"
)

pytestmark = pytest.mark.slow

LOOK_BACK, FEATURES = 3, 2


def groups(*sizes: int) -> tuple[list, list]:
    """Groups of so many windows, no two numbers alike; and (window, target), number by number."""
    drawn = np.random.default_rng(1)
    found, expected = [], []
    for group, size in enumerate(sizes):
        points = size + LOOK_BACK + 4
        values = np.arange(points * FEATURES, dtype=np.float32).reshape(points, FEATURES)
        values += 1000 * group
        starts = drawn.permutation(points - LOOK_BACK)[:size].astype(np.int32)
        targets = -np.arange(size, dtype=np.float32) - 1000 * group
        found.append((values, starts, targets))
        for start, target in zip(starts, targets, strict=True):
            window = [
                [float(values[start + step, feature]) for feature in range(FEATURES)]
                for step in range(LOOK_BACK)
            ]
            expected.append((window, float(target)))
    return found, expected


@pytest.mark.parametrize("batch_size", [1, 4, 5, 1000])
def test_every_window_is_served_once_in_order_and_the_short_last_batch_is_kept(batch_size):
    from bitstorm.model import torch_feed

    given, expected = groups(7, 0, 1, 13, 2)
    found, sizes = [], []
    for window, target in torch_feed.batches(given, look_back=LOOK_BACK, batch_size=batch_size):
        assert (window.dtype, target.dtype) == (torch.float32, torch.float32)
        assert window.shape == (len(target), LOOK_BACK, FEATURES)
        assert window.is_contiguous()
        sizes.append(len(target))
        found += zip(window.tolist(), target.tolist(), strict=True)
    assert found == expected
    assert all(size == batch_size for size in sizes[:-1])
    assert sizes[-1] == 23 - sum(sizes[:-1]) > 0
