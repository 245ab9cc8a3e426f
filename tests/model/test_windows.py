"""The feed, against loops over every point, from Spark's blocks to the batches."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import sys
import time
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest

from bitstorm.errors import ModelError
from bitstorm.model import blocks, dataset, windows
from bitstorm.model.framing import Batch, Frame
from bitstorm.model.scaling import Scale, Scaler
from bitstorm.transform.blocks import Blocks, in_blocks
from model import blocked
from model.blocked import STEP

pytestmark = pytest.mark.slow

START = 444_444  # grid index
SCALER = Scaler(
    {"price": Scale(950.0, 37.0), "rsi": Scale(50.0, 7.0), "log_return": Scale(0.001, 0.02)},
    Scale(0.5, 0.03),
)
SCHEMA = "index bigint, timestamp bigint, price float, imputed boolean, rsi double"


def irregular(seed: int) -> list[tuple]:
    """Thirty segments of 0 to 14 points, each with imputed points and missing indicators; the
    holes between them are of one point to many more than a block."""
    chance = random.Random(seed)
    rows, index = [], START
    for _ in range(30):
        warm_up = chance.choice([0, 0, 2, 20])
        for position in range(chance.randrange(15)):
            price = float(np.float32(chance.uniform(900, 1000)))
            missing = position < warm_up or chance.random() < 0.05
            rsi = None if missing else chance.uniform(0, 100)
            imputed = position > 0 and chance.random() < 0.2
            rows.append((index, index * STEP, price, imputed, rsi))
            index += 1
        index += chance.randrange(1, 50)
    return rows


def brute_force(rows, frame: Frame) -> dict[int, tuple]:
    """(price, target_price, scaled target, window) by the target's time."""
    place = {row[0]: row for row in rows}

    def value(name: str, index: int) -> float | None:
        row, before = place.get(index), place.get(index - 1)
        if row is None:
            return None
        if name == "log_return":
            return None if before is None else math.log(row[2] / before[2])
        return row[{"price": 2, "rsi": 4}[name]]

    found = {}
    for end, _, price, _, _ in rows:
        window = []
        for index in range(end - frame.look_back + 1, end + 1):
            for name in frame.features:
                one, scale = value(name, index), SCALER.features[name]
                window.append(None if one is None else (one - scale.shift) / scale.scale)
        ahead = [place.get(index) for index in range(end + 1, end + frame.horizon + 1)]
        if None in window or None in ahead or ahead[-1][3]:
            continue
        then = ahead[-1][2]
        learnt = math.log(then / price) if frame.target == "log_return" else then
        learnt = (learnt - SCALER.target.shift) / SCALER.target.scale
        found[(end + frame.horizon) * STEP] = (price, then, learnt, window)
    return found


def from_spark(spark, rows, frame: Frame, cache, **limits):
    """As the pipelines do it, the points in any order and spread over partitions."""
    points = spark.createDataFrame(random.Random(1).sample(rows, len(rows)), SCHEMA)
    cut = Blocks(frame.size, before=frame.before, after=frame.horizon)
    return dataset.stored(
        spark,
        frame,
        lambda: blocks.to_rows(in_blocks(points.repartition(3), cut), frame, files=3),
        cache=cache,
        source={"rows": len(rows)},
        limit_bytes=2**20,
        **limits,
    )


@pytest.mark.parametrize(
    ("features", "look_back", "horizon", "target", "size"),
    [
        (["price"], 4, 1, "log_return", 8),
        (["rsi", "price"], 3, 2, "price", 16),
        (["log_return", "rsi"], 1, 5, "log_return", 5),
        (["log_return"], 7, 1, "log_return", 64),
    ],
)
def test_windows_and_targets_equal_a_loop_over_every_point(
    spark_session, tmp_path, features, look_back, horizon, target, size
):
    rows = irregular(seed=look_back)
    frame = Frame(look_back, horizon, tuple(features), target, STEP, size)
    expected = brute_force(rows, frame)
    with from_spark(spark_session, rows, frame, tmp_path) as stored:
        feed = windows.make_feed(stored, SCALER)
        assert len(feed) == len(expected) > 10
        assert (feed.look_back, feed.features) == (look_back, len(features))
        batches = list(feed.batches(batch_size=7))
        assert {len(batch) for batch in batches[:-1]} == {7}
        whole = {
            field.name: np.concatenate([getattr(batch, field.name) for batch in batches])
            for field in dataclasses.fields(Batch)
        }
        kinds = {name: str(column.dtype) for name, column in whole.items()}
        assert kinds.pop("target_timestamp") == "int64"
        assert set(kinds.values()) == {"float32"}
        assert sorted(whole["target_timestamp"].tolist()) == sorted(expected)
        for place, time in enumerate(whole["target_timestamp"].tolist()):
            price, then, learnt, window = expected[time]
            # Stored prices are float32: nothing is lost on the way.
            assert whole["price"][place] == price
            assert whole["target_price"][place] == then
            assert whole["target"][place] == pytest.approx(learnt, rel=1e-6)
            assert whole["window"][place].ravel() == pytest.approx(np.float32(window), rel=1e-6)

        # The parts share them out, and each knows its number before it has served one.
        times = sorted(expected)
        cuts = [None, times[len(times) // 3], times[len(times) // 2] + 1, None]
        for after, until in itertools.pairwise(cuts):
            part = windows.make_feed(stored, SCALER, after_ms=after, until_ms=until)
            wanted = [
                t for t in times if (after is None or t > after) and (until is None or t <= until)
            ]
            assert len(part) == len(wanted)
            served = [b.target_timestamp for b in part.batches(batch_size=1000)]
            assert sorted(np.concatenate(served).tolist()) == wanted

        # The newest window needs no target; a cut just before leaves none.
        last = max(row[0] for row in rows)
        for index in range(last - 12, last + 2):
            window = feed.newest(index * STEP)
            here = brute_force([*rows, *_flat_after(index, horizon, rows)], frame)
            known = here.get((index + horizon) * STEP)
            assert (window is None) == (known is None)
            if known is not None:
                got = window.gathered(look_back).window[0].ravel()
                assert got == pytest.approx(np.float32(known[3]), rel=1e-6)


def _flat_after(index, horizon, rows):
    """Observed points after the index where there are none, and in place of imputed ones."""
    return [(n, n * STEP, 950.0, False, None) for n in range(index + 1, index + horizon + 1)]


def test_the_target_of_a_point_equals_a_loop_over_every_point(spark_session):
    rows = irregular(seed=5)
    place = {row[0]: row for row in rows}
    for horizon, target in ((1, "log_return"), (3, "price")):
        frame = Frame(2, horizon, ("price",), target, STEP)
        points = spark_session.createDataFrame(rows, SCHEMA)
        cut = Blocks(8, after=horizon)
        found = blocks.with_target(in_blocks(points, cut), frame).where(cut.owned()).collect()
        assert len(found) == len(rows)
        known = 0
        for row in found:
            ahead = [place.get(row["index"] + n) for n in range(1, horizon + 1)]
            then = None if None in ahead else ahead[-1]
            assert row["target_timestamp"] == (None if then is None else then[1])
            if then is None or then[3]:
                assert row["target"] is None
                continue
            known += 1
            expected = math.log(then[2] / row["price"]) if target == "log_return" else then[2]
            assert row["target"] == pytest.approx(expected, rel=1e-12)
        assert 0 < known < len(rows)


def test_blocks_are_made_in_one_shuffle_and_always_come_out_the_same(spark_session, tmp_path):
    rows, frame = irregular(seed=9), Frame(3, 1, ("price", "rsi"), "price", STEP, 16)
    points = spark_session.createDataFrame(rows, SCHEMA)
    made = blocks.to_rows(in_blocks(points, Blocks(16, before=3, after=1)), frame, files=3)
    plan = made._jdf.queryExecution().executedPlan().toString()
    assert plan.count("Exchange hashpartitioning") == plan.count("Exchange ") == 1
    assert "Python" not in plan
    files = []
    for cache in (tmp_path / "a", tmp_path / "b"):
        with from_spark(spark_session, rows, frame, cache) as stored:
            paths = sorted(stored.folder.glob("*.parquet"))
            files.append([pq.read_table(path).to_pylist() for path in paths])
            assert sum(path.stat().st_size for path in paths) > 0
            lengths = {len(row["price"]) for file in files[-1] for row in file}
            assert lengths == {frame.length}
    assert repr(files[0]) == repr(files[1])  # NaN is not equal to itself
    assert len(files[0]) > 1


ROWS = 400


@pytest.fixture
def counted(tmp_path):
    """A feed of windows that can be told apart: the price at index k is k + 1, with some holes."""
    frame = blocked.frame_of(look_back=4, size=32)
    price = np.arange(1.0, ROWS + 1)
    price[[60, 61, 200]] = np.nan
    folder = blocked.write(tmp_path / "blocks", frame, price, files=5)
    return blocked.feed(folder, frame)


WHOLE = [
    k for k in range(4, ROWS) if not {k - n for n in range(5)} & {60, 61, 200}
]  # indexes of targets


def targets(batches, *, look_back: int = 4) -> list[int]:
    """The targets' indexes in their order, with their windows looked at."""
    found = []
    for window, target in batches:
        window, target = np.asarray(window), np.asarray(target)
        assert window.shape == (len(target), look_back, 1)
        for place in range(look_back):
            assert window[:, place, 0].tolist() == (target - look_back + place).tolist()
        found.extend(int(value) - 1 for value in target)
    return found


def one_epoch(feed, **settings) -> list[int]:
    with feed.epoch(**settings) as batches:
        return targets(batches)


def test_a_pass_serves_every_window_once_and_keeps_the_short_last_batch(counted):
    assert len(counted) == len(WHOLE)
    with counted.epoch(batch_size=64) as batches:
        sizes = [len(target) for _, target in batches]
    assert sizes == [64] * (len(WHOLE) // 64) + [len(WHOLE) % 64]
    assert sorted(one_epoch(counted, batch_size=64)) == WHOLE
    whole = counted.dataset(batch_size=64)
    assert whole.element_spec[0].shape.as_list() == [None, 4, 1]
    assert sorted(targets(whole)) == WHOLE


def test_every_epoch_has_an_order_of_its_own_that_seed_and_number_decide(counted):
    first = [one_epoch(counted, batch_size=50, seed=3, number=n) for n in range(3)]
    assert all(Counter(one) == Counter(WHOLE) for one in first)
    assert len({tuple(one) for one in first}) == 3
    assert one_epoch(counted, batch_size=50, seed=3, number=1) == first[1]
    assert one_epoch(counted, batch_size=50, seed=4, number=1) != first[1]
    # Zero means "any order" to petastorm; not here.
    zero = [one_epoch(counted, batch_size=50, seed=0) for _ in range(2)]
    assert zero[0] == zero[1]


def test_keras_data_set_goes_through_the_epochs_and_can_begin_at_a_later_one(counted):
    dataset = counted.dataset(batch_size=50, shuffle_seed=3)
    passes = [targets(dataset) for _ in range(3)]
    assert passes == [one_epoch(counted, batch_size=50, seed=3, number=n) for n in range(3)]
    later = counted.dataset(batch_size=50, shuffle_seed=3, first_epoch=2)
    assert targets(later) == passes[2]


def test_validation_is_the_same_rows_in_the_same_order_and_is_read_once(counted):
    dataset = counted.dataset(batch_size=50)
    first = targets(dataset)
    for path in counted.stored.folder.iterdir():
        path.unlink()
    assert targets(dataset) == first
    assert sorted(first) == WHOLE


def test_validation_through_the_training_loop_is_the_same_rows_in_the_same_order(counted):
    first = one_epoch(counted, batch_size=50)
    assert [one_epoch(counted, batch_size=50, number=n) for n in (1, 2)] == [first, first]
    assert sorted(first) == WHOLE


def test_two_snapshots_in_one_process_each_serve_their_own_rows(spark_session, tmp_path):
    frame = Frame(4, 1, ("price",), "log_return", STEP, 8)
    series = [irregular(seed=4), irregular(seed=5)]
    both = [from_spark(spark_session, rows, frame, tmp_path) for rows in series]
    with both[0] as one, both[1] as two:
        feeds = [windows.make_feed(stored, SCALER) for stored in (one, two)]
        # Side by side, a batch of each in turn.
        drawn = zip(*[feed.batches(batch_size=5) for feed in feeds], strict=False)
        served = [list(batches) for batches in zip(*drawn, strict=True)]
    for rows, batches in zip(series, served, strict=True):
        expected = brute_force(rows, frame)
        assert len(batches) > 3
        for batch in batches:
            for place, at in enumerate(batch.target_timestamp.tolist()):
                price, then, learnt, window = expected[at]
                assert (batch.price[place], batch.target_price[place]) == (price, then)
                assert batch.target[place] == pytest.approx(learnt, rel=1e-6)
                assert batch.window[place].ravel() == pytest.approx(np.float32(window), rel=1e-6)


def test_the_shuffle_is_uniform_over_the_whole_buffer(tmp_path):
    frame = blocked.frame_of(look_back=4, size=64)
    count = 6_404  # 6,400 windows, 101 blocks: one buffer
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, count + 1), files=8)
    order = np.array(one_epoch(blocked.feed(folder, frame), batch_size=100, seed=11)) - 4
    assert sorted(order.tolist()) == list(range(6_400))
    # Neighbours in the order are as far apart as two random windows (a third of the series on the
    # average; the standard error is 19), and ranks do not go with time.
    assert np.abs(np.diff(order)).mean() == pytest.approx(6_400 / 3, abs=100)
    assert abs(np.corrcoef(order, np.arange(6_400))[0, 1]) < 0.05
    # Every batch of 100 is a sample of the whole series: each quarter has its share.
    quarters = np.stack(
        [np.bincount(batch // 1_600, minlength=4) for batch in order.reshape(-1, 100)]
    )
    assert quarters.min() >= 8 and quarters.max() <= 45


def test_a_series_longer_than_the_buffer_is_shuffled_buffer_by_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "SHUFFLED_BLOCKS", 4)
    frame = blocked.frame_of(look_back=4, size=64)
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 2_053), files=8)
    order = np.array(one_epoch(blocked.feed(folder, frame), batch_size=100, seed=11)) - 4
    assert sorted(order.tolist()) == list(range(2_048))
    # A buffer's four blocks come from anywhere, and its windows in any order.
    firsts = (order[:256] + 3) // 64
    assert 4 <= len(set(firsts)) <= 5
    assert np.ptp(firsts) > 8
    assert np.abs(np.diff(firsts)).mean() > 2


@pytest.mark.parametrize("workers", [2, 3])
def test_shards_take_the_same_steps_share_no_window_and_drop_others_each_epoch(counted, workers):
    batch = 40
    dropped = []
    for number in range(3):
        shares = []
        for worker in range(workers):
            shard = counted.shard(worker, workers)
            with shard.epoch(batch_size=batch, seed=5, number=number) as batches:
                share = [(window, target) for window, target in batches]
            assert {len(target) for _, target in share} == {batch}
            assert shard.dropped(batch_size=batch) == len(WHOLE) % (workers * batch)
            shares.append((len(share), targets(share)))
        steps = len(WHOLE) // (workers * batch)
        assert [count for count, _ in shares] == [steps] * workers
        served = [index for _, share in shares for index in share]
        assert len(set(served)) == len(served) == steps * workers * batch
        dropped.append(frozenset(WHOLE) - frozenset(served))
    assert len(dropped[0]) == len(WHOLE) % (workers * batch) > 0
    assert len(set(dropped)) == len(dropped)


def test_a_shard_reads_only_the_files_of_its_windows(tmp_path):
    frame = blocked.frame_of(look_back=4, size=32)
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 400), files=8)
    shard = blocked.feed(folder, frame).shard(1, 4)
    assert len(shard._files(batch_size=20)) <= 4
    part = blocked.feed(folder, frame, first=100, last=120)
    assert len(part._files()) <= 2
    assert sorted(one_epoch(part, batch_size=7)) == list(range(100, 121))


def test_more_shards_than_row_groups_or_than_batches_are_refused(counted):
    with pytest.raises(ModelError, match=r"found 5 row groups .* each of the 6 shards"):
        counted.shard(0, 6)
    with (
        pytest.raises(ModelError, match=f"found {len(WHOLE)} windows, expected at least 500"),
        counted.shard(0, 2).epoch(batch_size=250) as batches,
    ):
        next(batches)


def test_a_reader_is_closed_with_its_epoch_even_in_the_middle(counted, monkeypatch):
    from petastorm.reader import Reader

    stopped = []
    stop = Reader.stop
    monkeypatch.setattr(Reader, "stop", lambda self: stopped.append(1) or stop(self))
    with counted.epoch(batch_size=10, seed=1) as batches:
        next(batches)
    assert stopped == [1]


def readers_left() -> int:
    """Threads that are inside of petastorm's pool."""
    left = 0
    for frame in sys._current_frames().values():
        while frame is not None:
            if frame.f_code.co_filename.endswith("dummy_pool.py"):
                left += 1
                break
            frame = frame.f_back
    return left


def test_a_pass_that_is_closed_early_leaves_no_thread_in_its_reader(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "GROUPED_BLOCKS", 1)
    frame = blocked.frame_of(look_back=4, size=32)
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 8_000), files=60)
    feed = blocked.feed(folder, frame)
    for wait in np.random.default_rng(1).uniform(0, 0.2, 20):
        with feed.epoch(batch_size=4) as batches:
            next(batches)
            time.sleep(wait)
    until = time.monotonic() + 10
    while readers_left() and time.monotonic() < until:
        time.sleep(0.1)
    assert readers_left() == 0


def test_a_file_that_vanishes_is_told_before_a_pass_and_in_its_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "GROUPED_BLOCKS", 1)
    frame = blocked.frame_of(look_back=4, size=32)
    # So many row groups that the last ones are read long after the first batch.
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 8_000), files=60)
    feed = blocked.feed(folder, frame)
    last = sorted(folder.iterdir())[-1]
    with (
        feed.epoch(batch_size=4) as batches,
        pytest.raises(ModelError, match="cannot be read") as e,
    ):
        next(batches)
        last.unlink()
        for _ in batches:
            pass
    assert "\n" not in str(e.value) and last.name in str(e.value)
    with feed.epoch(batch_size=10) as batches, pytest.raises(ModelError, match=r"1 of 60 .* gone"):
        next(batches)


def test_a_pass_that_serves_another_number_than_counted_is_an_error(tmp_path):
    frame = blocked.frame_of(look_back=4, size=32)
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 400), files=3)
    feed = blocked.feed(folder, frame)
    rows = pq.read_table(folder / "part-00001.parquet")
    pq.write_table(rows.slice(1), folder / "part-00001.parquet")
    with feed.epoch(batch_size=10) as batches, pytest.raises(ModelError, match=r"served 363.*395"):
        targets(batches)


def test_a_path_with_a_space_serves_as_well(spark_session, tmp_path):
    rows, frame = irregular(seed=2), Frame(2, 1, ("price",), "price", STEP, 16)
    with from_spark(spark_session, rows, frame, tmp_path / "a path with spaces, é") as stored:
        feed = windows.make_feed(stored, SCALER)
        assert len(next(feed.batches(batch_size=1_000))) == len(feed) > 0
