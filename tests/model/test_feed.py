"""The feed, against loops over every point, from Spark's blocks to the batches."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitstorm.core.errors import ModelError
from bitstorm.indicators.windows import Blocks, in_blocks
from bitstorm.model import blocks, dataset
from bitstorm.model import feed as feeds
from bitstorm.model.scaling import Scale, Scaler
from bitstorm.model.windowing import WindowSpec
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


def brute_force(rows, frame: WindowSpec) -> dict[int, tuple]:
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
        ahead: list[Any] = [place.get(index) for index in range(end + 1, end + frame.horizon + 1)]
        if None in window or None in ahead or ahead[-1][3]:
            continue
        then = ahead[-1][2]
        learnt = math.log(then / price) if frame.target == "log_return" else then
        learnt = (learnt - SCALER.target.shift) / SCALER.target.scale
        found[(end + frame.horizon) * STEP] = (price, then, learnt, window)
    return found


def from_spark(spark, rows, frame: WindowSpec, folder):
    """As the pipelines do it, the points in any order and spread over partitions."""
    points = spark.createDataFrame(random.Random(1).sample(rows, len(rows)), SCHEMA)
    cut = Blocks(frame.size, before=frame.before, after=frame.horizon)
    made = blocks.to_rows(in_blocks(points.repartition(3), cut), frame, files=3)
    return dataset.write_blocks(spark, frame, made, root=folder)


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
    frame = WindowSpec(look_back, horizon, tuple(features), target, STEP, size)
    expected = brute_force(rows, frame)
    with from_spark(spark_session, rows, frame, tmp_path) as stored:
        feed = feeds.make_feed(stored, SCALER)
        assert len(feed) == len(expected) > 10
        # Prices are float32 on the way, so no two windows need be alike.
        served = by_target(feed.dataset(batch_size=7))
        assert [len(target) for _, target in feed.dataset(batch_size=7)][:-1] == (
            [7] * ((len(expected) - 1) // 7)
        )
        wanted = sorted((learnt, window) for _, _, learnt, window in expected.values())
        assert len(served) == len(wanted)
        for (target, window), (learnt, known) in zip(served, wanted, strict=True):
            assert target == pytest.approx(learnt, rel=1e-6)
            assert window == pytest.approx(np.float32(known), rel=1e-6)

        # The parts share them out, and each knows its number before it has served one.
        times = sorted(expected)
        cuts = [None, times[len(times) // 3], times[len(times) // 2] + 1, None]
        for after, until in itertools.pairwise(cuts):
            part = feeds.make_feed(stored, SCALER, after_ms=after, until_ms=until)
            wanted = sorted(
                (learnt, window)
                for t, (_, _, learnt, window) in expected.items()
                if (after is None or t > after) and (until is None or t <= until)
            )
            assert len(part) == len(wanted)
            found = [target for target, _ in by_target(part.dataset(batch_size=1000))]
            assert found == pytest.approx([learnt for learnt, _ in wanted], rel=1e-6)


def by_target(dataset) -> list[tuple[float, list[float]]]:
    """(target, window) of a pass, ascending."""
    found: list[tuple[float, Any]] = []
    for window, target in dataset:
        assert (window.dtype.name, target.dtype.name) == ("float32", "float32")
        found += zip(target.numpy().tolist(), map(np.ravel, window.numpy()), strict=True)
    return sorted(found, key=lambda pair: pair[0])


def test_blocks_take_one_shuffle_and_always_come_out_the_same(spark_session, tmp_path):
    rows, frame = irregular(seed=9), WindowSpec(3, 1, ("price", "rsi"), "price", STEP, 16)
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
    found: list[int] = []
    for window, target in batches:
        window, target = np.asarray(window), np.asarray(target)
        assert window.shape == (len(target), look_back, 1)
        for place in range(look_back):
            assert window[:, place, 0].tolist() == (target - look_back + place).tolist()
        found.extend(int(value) - 1 for value in target)
    return found


def one_epoch(feed, *, number=0, **settings) -> list[int]:
    return targets(feed.dataset(epoch=lambda: number, **settings))


def test_a_pass_serves_every_window_once_with_a_short_last_batch(counted):
    assert len(counted) == len(WHOLE)
    whole = counted.dataset(batch_size=64)
    assert whole.element_spec[0].shape.as_list() == [None, 4, 1]
    assert int(whole.cardinality()) == len(WHOLE) // 64 + 1
    sizes = [len(target) for _, target in whole]
    assert sizes == [64] * (len(WHOLE) // 64) + [len(WHOLE) % 64]
    assert sorted(targets(whole)) == WHOLE


def test_seed_and_number_of_an_epoch_decide_its_order(counted):
    first = [one_epoch(counted, batch_size=50, seed=3, number=n) for n in range(3)]
    assert all(Counter(one) == Counter(WHOLE) for one in first)
    assert len({tuple(one) for one in first}) == 3
    assert one_epoch(counted, batch_size=50, seed=3, number=1) == first[1]
    assert one_epoch(counted, batch_size=50, seed=4, number=1) != first[1]
    # Zero means "any order" to petastorm; not here.
    zero = [one_epoch(counted, batch_size=50, seed=0) for _ in range(2)]
    assert zero[0] == zero[1]


def test_a_data_set_asks_for_its_number_at_every_pass(counted):
    number = [0]
    dataset = counted.dataset(batch_size=50, seed=3, epoch=lambda: number[0])
    for n in (0, 2, 1):
        number[0] = n
        assert targets(dataset) == one_epoch(counted, batch_size=50, seed=3, number=n)


def test_validation_is_read_once_in_the_same_order(counted):
    dataset = counted.dataset(batch_size=50)
    first = targets(dataset)
    for path in counted.stored.folder.iterdir():
        path.unlink()
    assert targets(dataset) == first
    assert sorted(first) == WHOLE


def test_a_short_series_is_read_once_for_all_shuffled_passes(counted):
    dataset = counted.dataset(batch_size=50, seed=3, epoch=iter(range(9)).__next__)
    first = targets(dataset)
    for path in counted.stored.folder.iterdir():
        path.unlink()
    second = targets(dataset)
    assert sorted(first) == sorted(second) == WHOLE
    assert first != second


def test_pytorch_gets_the_same_windows_in_the_same_order(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --torch)")
    features = ("rsi", "price", "log_return")
    frame = blocked.frame_of(look_back=5, horizon=3, features=features, size=64)
    drawn = np.random.default_rng(7)
    price = 100 * np.exp(np.cumsum(drawn.normal(0, 0.01, 3_000)))
    price[drawn.random(3_000) < 0.003] = np.nan
    rsi = drawn.uniform(0, 100, 3_000)
    rsi[drawn.random(3_000) < 0.002] = np.nan
    imputed = drawn.random(3_000) < 0.1
    folder = blocked.write(
        tmp_path / "blocks", frame, price, imputed=imputed, extra={"rsi": rsi}, files=5
    )
    feed = blocked.feed(folder, frame, first=50, last=2_960)
    for seed, number in ((None, 0), (3, 0), (3, 1)):

        def epoch(number: int = number) -> int:
            return number

        ours = list(feed.batches("torch", batch_size=100, epoch=number, seed=seed))
        theirs = list(feed.dataset(batch_size=100, epoch=epoch, seed=seed))
        assert len(ours) == len(theirs) > 10
        for batch, (window, target) in zip(ours, theirs, strict=True):
            assert np.array_equal(batch.window, window)
            assert np.array_equal(batch.target, target)


def test_two_snapshots_in_one_process_each_serve_their_own_rows(spark_session, tmp_path):
    frame = WindowSpec(4, 1, ("price",), "log_return", STEP, 8)
    series = [irregular(seed=4), irregular(seed=5)]
    both = [from_spark(spark_session, rows, frame, tmp_path) for rows in series]
    with both[0] as one, both[1] as two:
        drawn = [iter(feeds.make_feed(s, SCALER).dataset(batch_size=5)) for s in (one, two)]
        # Side by side, a batch of each in turn.
        served: list[list[float]] = [[], []]
        for batches in itertools.zip_longest(*drawn):
            for place, batch in enumerate(batches):
                served[place] += [] if batch is None else batch[1].numpy().tolist()
    for rows, targets in zip(series, served, strict=True):
        expected = sorted(learnt for _, _, learnt, _ in brute_force(rows, frame).values())
        assert sorted(targets) == pytest.approx(expected, rel=1e-6)
        assert len(targets) > 15


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


def test_a_long_series_is_shuffled_buffer_by_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr(feeds, "SHUFFLED_BLOCKS", 4)
    monkeypatch.setattr(feeds, "KEPT_BLOCKS", 4)
    frame = blocked.frame_of(look_back=4, size=64)
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 2_053), files=8)
    feed = blocked.feed(folder, frame)
    order = np.array(one_epoch(feed, batch_size=100, seed=11)) - 4
    assert sorted(order.tolist()) == list(range(2_048))
    # Seed and epoch decide it, whichever reader serves it.
    assert one_epoch(blocked.feed(folder, frame), batch_size=100, seed=11) == (order + 4).tolist()
    assert one_epoch(feed, batch_size=100, seed=11, number=1) != (order + 4).tolist()
    # A buffer's four blocks come from anywhere, and its windows in any order.
    firsts = (order[:256] + 3) // 64
    assert 4 <= len(set(firsts)) <= 5
    assert np.ptp(firsts) > 8
    assert np.abs(np.diff(firsts)).mean() > 2


def test_a_part_reads_only_the_files_of_its_windows(tmp_path):
    frame = blocked.frame_of(look_back=4, size=32)
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 400), files=8)
    part = blocked.feed(folder, frame, first=100, last=120)
    assert len(part.files) <= 2
    assert sorted(one_epoch(part, batch_size=7)) == list(range(100, 121))


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_reader_is_closed_with_its_pass_even_in_the_middle(counted, monkeypatch, backend):
    from petastorm.reader import Reader

    if backend == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --torch)")
    monkeypatch.setattr(feeds, "KEPT_BLOCKS", 0)
    stopped = []
    stop = Reader.stop

    def noted(self):
        stopped.append(1)
        return stop(self)

    monkeypatch.setattr(Reader, "stop", noted)
    if backend == "torch":
        batches = counted.batches("torch", batch_size=10, seed=1)
    else:
        rows = counted._tensorflow_rows
        batches = counted.groups(rows, seed=1, epoch=0)
    next(batches)
    batches.close()
    assert stopped == [1]


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_missing_or_damaged_file_is_one_clear_sentence(tmp_path, monkeypatch, caplog, backend):
    monkeypatch.setattr(feeds, "GROUPED_BLOCKS", 1)
    if backend == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed (scripts/setup --torch)")
    frame = blocked.frame_of(look_back=4, size=32)
    # So many row groups that the last ones are read long after the first batch.
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 8_000), files=60)
    feed = blocked.feed(folder, frame)
    rows = feed._torch_rows if backend == "torch" else feed._tensorflow_rows
    last = sorted(folder.iterdir())[-1]
    content = last.read_bytes()

    def broken_by(spoil) -> str:
        groups = feed.groups(rows, seed=None, epoch=0)
        next(groups)
        spoil()
        with pytest.raises(ModelError) as caught:
            list(groups)
        last.write_bytes(content)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert last.name in broken_by(last.unlink)
    assert "cannot be read" in broken_by(lambda: last.write_bytes(content[: len(content) // 2]))
    # petastorm would log beside what it raises.
    assert caplog.text == ""
    last.unlink()
    with pytest.raises(ModelError, match=r"1 of 60 .* missing"):
        next(feed.groups(rows, seed=None, epoch=0))


def test_a_pass_of_another_number_than_counted_is_an_error(tmp_path):
    frame = blocked.frame_of(look_back=4, size=32)
    folder = blocked.write(tmp_path / "blocks", frame, np.arange(1.0, 400), files=3)
    feed = blocked.feed(folder, frame)
    part = folder / "part-00001.parquet"
    rows = pq.read_table(part)
    for change, served in ((rows.slice(1), 363), (pa.concat_tables([rows, rows]), "39[6-9]|4..")):
        pq.write_table(change, part)
        with pytest.raises(ModelError, match=rf"served ({served}), expected 395"):
            list(feed.groups(feed._tensorflow_rows, seed=None, epoch=0))


def test_a_path_with_a_space_serves_as_well(spark_session, tmp_path):
    rows, frame = irregular(seed=2), WindowSpec(2, 1, ("price",), "price", STEP, 16)
    with from_spark(spark_session, rows, frame, tmp_path / "a path with spaces, é") as stored:
        feed = feeds.make_feed(stored, SCALER)
        ((window, _),) = feed.dataset(batch_size=1_000)
        assert len(window) == len(feed) > 0
