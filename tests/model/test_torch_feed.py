"""Batches of PyTorch's, against loops over every point and beside those of TensorFlow's."""

from __future__ import annotations

import numpy as np
import pytest

from bitstorm.errors import ModelError
from bitstorm.model import windows
from model import blocked

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (scripts/setup --torch): its backend is not tested"
)

pytestmark = pytest.mark.slow


def irregular(tmp_path, frame, *, points: int = 3_000, files: int = 5):
    """A feed over a random walk with holes and imputed prices, and a feature with gaps."""
    drawn = np.random.default_rng(7)
    price = 100 * np.exp(np.cumsum(drawn.normal(0, 0.01, points)))
    price[drawn.random(points) < 0.003] = np.nan
    price[700:900] = np.nan
    rsi = drawn.uniform(0, 100, points)
    rsi[drawn.random(points) < 0.002] = np.nan
    extra = {"rsi": rsi} if "rsi" in frame.features else None
    imputed = drawn.random(points) < 0.1
    folder = blocked.write(
        tmp_path / "blocks", frame, price, imputed=imputed, extra=extra, files=files
    )
    return blocked.feed(folder, frame, first=50, last=points - 40)


def served(feed, **settings) -> list[tuple[np.ndarray, np.ndarray]]:
    with feed.epoch(**settings) as batches:
        return [(np.asarray(window), np.asarray(target)) for window, target in batches]


def torch_feed_of(feed):
    from bitstorm.model.torch_feed import TorchFeed

    return TorchFeed(feed)


@pytest.mark.parametrize(
    ("features", "horizon", "target"),
    [(("log_return",), 1, "log_return"), (("rsi", "price", "log_return"), 3, "price")],
)
def test_windows_and_their_order_are_those_of_tensorflow_shuffled_or_not(
    tmp_path, features, horizon, target
):
    frame = blocked.frame_of(
        look_back=5, horizon=horizon, features=features, target=target, size=64
    )
    feed = irregular(tmp_path, frame)
    ours = torch_feed_of(feed)
    assert len(ours) == len(feed) > 1_000
    firsts = []
    for settings in ({}, {"seed": 3, "number": 0}, {"seed": 3, "number": 1}):
        found = served(ours, batch_size=100, **settings)
        expected = served(feed, batch_size=100, **settings)
        assert [len(t) for _, t in found] == [len(t) for _, t in expected]
        assert len(found[-1][1]) == len(feed) % 100 > 0
        for (window, target), (their_window, their_target) in zip(found, expected, strict=True):
            assert (window.dtype, target.dtype) == (np.float32, np.float32)
            assert np.array_equal(window, their_window)
            assert np.array_equal(target, their_target)
        firsts.append(found[0][1].tolist())
    assert firsts[0] != firsts[1] != firsts[2] != firsts[0]


def test_batches_come_as_tensors_of_pytorch(tmp_path):
    feed = irregular(tmp_path, blocked.frame_of(look_back=5, size=64))
    with torch_feed_of(feed).epoch(batch_size=10) as batches:
        window, target = next(batches)
    assert isinstance(window, torch.Tensor) and isinstance(target, torch.Tensor)
    assert (window.shape, target.shape) == ((10, 5, 1), (10,))


def test_shards_share_no_window_and_take_the_same_steps(tmp_path):
    frame = blocked.frame_of(look_back=5, size=64)
    # Prices that can be told apart.
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 3_001), files=5)
    feed = blocked.feed(folder, frame)
    shares = [
        [t for _, t in served(torch_feed_of(feed.shard(k, 3)), batch_size=50, seed=1)]
        for k in range(3)
    ]
    assert len({len(share) for share in shares}) == 1
    prices = np.concatenate([target for share in shares for target in share])
    assert len(np.unique(prices)) == len(prices) == 150 * (len(feed) // 150)


def test_a_reader_is_closed_with_its_epoch_even_in_the_middle(tmp_path, monkeypatch):
    from petastorm.reader import Reader

    feed = irregular(tmp_path, blocked.frame_of(look_back=5, size=64))
    stopped = []
    stop = Reader.stop
    monkeypatch.setattr(Reader, "stop", lambda self: stopped.append(1) or stop(self))
    with torch_feed_of(feed).epoch(batch_size=10, seed=1) as batches:
        next(batches)
        assert stopped == []
    assert stopped == [1]


def test_a_file_that_vanishes_or_is_damaged_in_mid_pass_is_one_clear_sentence(
    tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(windows, "GROUPED_BLOCKS", 1)
    frame = blocked.frame_of(look_back=4, size=32)
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 8_000), files=60)
    feed = torch_feed_of(blocked.feed(folder, frame))
    last = sorted(folder.iterdir())[-1]
    content = last.read_bytes()

    def broken_by(spoil) -> str:
        with feed.epoch(batch_size=4) as batches, pytest.raises(ModelError) as caught:
            next(batches)
            spoil()
            for _ in batches:
                pass
        last.write_bytes(content)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert f"{last.name}" in broken_by(last.unlink)
    assert "cannot be read" in broken_by(lambda: last.write_bytes(content[: len(content) // 2]))
    # petastorm would log beside what it raises.
    assert caplog.text == ""
    last.unlink()
    with feed.epoch(batch_size=4) as batches, pytest.raises(ModelError, match=r"1 of 60 .* gone"):
        next(batches)
