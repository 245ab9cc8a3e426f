"""Batches of PyTorch's from blocks, against loops over every point."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (scripts/setup --torch): its backend is not tested"
)

pytestmark = pytest.mark.slow

LOOK_BACK, SIZE, FEATURES = 3, 7, 2


def framed(blocks: int, *, seed: int = 1):
    """Blocks whose every number is its own, some places without a window; and the windows by
    their target, point by point."""
    from bitstorm.model.torch_feed import Framed

    drawn = np.random.default_rng(seed)
    points = LOOK_BACK - 1 + SIZE
    series = np.arange(blocks * points * FEATURES, dtype=np.float32)
    series = series.reshape(blocks, points, FEATURES)
    target = np.arange(blocks * SIZE, dtype=np.float32).reshape(blocks, SIZE)
    whole = drawn.random((blocks, SIZE)) < 0.7
    whole[min(2, blocks - 1)] = False
    expected = {}
    for block in range(blocks):
        for place in range(SIZE):
            if whole[block, place]:
                end = LOOK_BACK - 1 + place
                window = [series[block, end - back].tolist() for back in range(LOOK_BACK)][::-1]
                expected[float(target[block, place])] = window
    cut = max(1, blocks // 3)
    pieces = [
        Framed(*(torch.from_numpy(part[at : at + cut]) for part in (series, target, whole)))
        for at in range(0, blocks, cut)
    ]
    return pieces, expected


def served(pieces, *, batch_size: int, **options) -> list[tuple[list, float]]:
    from bitstorm.model import torch_feed

    found, sizes = [], []
    for window, target in torch_feed.batches(
        pieces, look_back=LOOK_BACK, batch_size=batch_size, **options
    ):
        assert (window.dtype, target.dtype) == (torch.float32, torch.float32)
        assert window.shape == (len(target), LOOK_BACK, FEATURES)
        sizes.append(len(target))
        found += zip(window.tolist(), target.tolist(), strict=True)
    assert all(size == batch_size for size in sizes[:-1])
    assert 0 < sizes[-1] <= batch_size
    return found


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_a_pass_serves_every_window_once_in_order_and_keeps_the_short_last_batch(batch_size):
    pieces, expected = framed(10)
    found = served(pieces, batch_size=batch_size)
    assert [target for _, target in found] == sorted(expected)
    for window, target in found:
        assert window == expected[target]


@pytest.mark.parametrize("pool", [1, 12, 10_000])
def test_a_shuffled_pass_serves_the_same_windows_in_an_order_that_the_generator_decides(pool):
    pieces, expected = framed(12)

    def shuffled(seed):
        return served(
            pieces, batch_size=5, generator=torch.Generator().manual_seed(seed), pool=pool
        )

    first = shuffled(1)
    assert sorted(target for _, target in first) == sorted(expected)
    assert all(window == expected[target] for window, target in first)
    assert shuffled(1) == first
    assert shuffled(2) != first
    assert [target for _, target in first] != sorted(expected)
