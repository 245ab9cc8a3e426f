"""Windows, targets and the feed, against loops over every point."""

from __future__ import annotations

import math
import random
import shutil
from collections import Counter

import numpy as np
import pytest

from bitstorm.model import windows
from bitstorm.model.scaling import Scale, Scaler

pytestmark = pytest.mark.slow

HOUR = 3_600_000
START = 1_600_000_000_123  # off the full second: a float32 or a rounding would show
SCALER = Scaler({"price": Scale(950.0, 37.0), "rsi": Scale(50.0, 7.0)}, Scale(0.5, 0.03))
SCHEMA = (
    "timestamp bigint, price float, imputed boolean, segment bigint, position bigint, rsi double"
)


def irregular(seed: int) -> list[tuple]:
    """Thirty segments of 0 to 14 points, each with imputed points and missing indicators."""
    chance = random.Random(seed)
    rows, time = [], START
    for segment in range(30):
        warm_up = chance.choice([0, 0, 2, 20])
        for position in range(chance.randrange(15)):
            price = float(np.float32(chance.uniform(900, 1000)))
            missing = position < warm_up or chance.random() < 0.05
            rsi = None if missing else chance.uniform(0, 100)
            imputed = position > 0 and chance.random() < 0.2
            rows.append((time, price, imputed, segment, position, rsi))
            time += HOUR
        time += chance.randrange(2, 50) * HOUR
    return rows


def brute_force(rows, *, features, look_back, horizon, target) -> dict[int, tuple]:
    """(price, target_timestamp, target_price, scaled target, window) by the window's last time."""
    names = {"price": 1, "rsi": 5}
    place = {(row[3], row[4]): row for row in rows}
    found = {}
    for time, price, _, segment, position, _ in rows:
        window = []
        for back in range(look_back - 1, -1, -1):
            row = place.get((segment, position - back))
            for name in features:
                value = None if row is None else row[names[name]]
                scale = SCALER.features[name]
                window.append(None if value is None else (value - scale.shift) / scale.scale)
        if None in window:
            continue
        then = place.get((segment, position + horizon))
        known = then is not None and not then[2]
        learnt = None
        if known:
            value = math.log(then[1] / price) if target == "log_return" else then[1]
            learnt = (value - SCALER.target.shift) / SCALER.target.scale
        found[time] = (
            price,
            None if then is None else then[0],
            then[1] if known else None,
            learnt,
            window,
        )
    return found


@pytest.mark.parametrize(
    ("features", "look_back", "horizon", "target"),
    [
        (["price"], 4, 1, "log_return"),
        (["rsi", "price"], 3, 2, "price"),
        (["price", "rsi"], 1, 5, "log_return"),
    ],
)
def test_windows_and_targets_equal_a_loop_over_every_point(
    spark_session, features, look_back, horizon, target
):
    rows = irregular(seed=look_back)
    points = spark_session.createDataFrame(random.Random(1).sample(rows, len(rows)), SCHEMA)
    found = (
        points.repartition(3)
        .transform(windows.with_target, horizon=horizon, target=target)
        .transform(windows.to_windows, features=features, look_back=look_back, scaler=SCALER)
        .collect()
    )
    expected = brute_force(
        rows, features=features, look_back=look_back, horizon=horizon, target=target
    )
    assert sorted(row["timestamp"] for row in found) == sorted(expected)
    holes = [row for row in found if row["target"] is None]
    assert 0 < len(holes) < len(found)
    for row in found:
        price, then, target_price, learnt, window = expected[row["timestamp"]]
        assert (row["price"], row["target_timestamp"]) == (price, then)
        assert (row["target_price"], row["window"]) == (target_price, window)
        assert row["target"] == (None if learnt is None else pytest.approx(learnt, rel=1e-12))


ROWS, LOOK_BACK, FEATURES = 23, 3, 2


@pytest.fixture
def numbered(spark_session):
    """Windows that can be told apart: the k-th holds k, k + 1/6, … and its target is k."""
    rows = [
        (
            [k + i / 6 for i in range(LOOK_BACK * FEATURES)],
            float(k),
            START + k * HOUR,
            float(np.float32(20_000.1 + k)),
        )
        for k in range(ROWS)
    ]
    return spark_session.createDataFrame(
        rows, "window array<double>, target double, target_timestamp bigint, price double"
    )


def fed(numbered, cache):
    return windows.make_feed(numbered, look_back=LOOK_BACK, features=FEATURES, cache=cache)


def epochs(dataset, count: int) -> list[list[float]]:
    """The targets of `count` passes, in the order of each, with their windows looked at."""
    passes = []
    for _ in range(count):
        targets = []
        for window, target in dataset.as_numpy_iterator():
            assert window.shape == (len(target), LOOK_BACK, FEATURES)
            assert window[:, 0, 0].tolist() == target.tolist()
            assert window[:, 2, 1] == pytest.approx(target + 5 / 6, rel=1e-6)
            targets.extend(target.tolist())
        passes.append(targets)
    return passes


def test_a_pass_serves_every_row_once_exactly_and_keeps_the_short_last_batch(numbered, tmp_path):
    feed = fed(numbered, tmp_path / "cache")
    assert len(feed) == ROWS
    for _ in range(2):
        batches = list(feed.batches(batch_size=10))
        assert [len(batch["target"]) for batch in batches] == [10, 10, 3]
        whole = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
        order = np.argsort(whole["target"])
        assert whole["target"][order].tolist() == list(range(ROWS))
        assert whole["target_timestamp"].dtype == np.int64
        assert whole["target_timestamp"][order].tolist() == [START + k * HOUR for k in range(ROWS)]
        # Stored prices are float32: nothing is lost on the way.
        assert whole["price"].dtype == np.float32
        expected = [np.float32(20_000.1 + k) for k in range(ROWS)]
        assert whole["price"][order].tolist() == expected


def test_every_epoch_trains_on_every_window_in_another_order_that_the_seed_decides(
    numbered, tmp_path
):
    feed = fed(numbered, tmp_path / "cache")
    passes = epochs(feed.dataset(batch_size=5, shuffle_seed=3), 3)
    assert all(Counter(one) == Counter(map(float, range(ROWS))) for one in passes)
    assert len({tuple(one) for one in passes}) == 3
    assert epochs(feed.dataset(batch_size=5, shuffle_seed=3), 3) == passes
    assert epochs(feed.dataset(batch_size=5, shuffle_seed=4), 1) != passes[:1]


def test_validation_is_the_same_rows_in_the_same_order_every_epoch(numbered, tmp_path):
    feed = fed(numbered, tmp_path / "cache")
    passes = epochs(feed.dataset(batch_size=5), 3)
    assert passes[0] == passes[1] == passes[2]
    assert sorted(passes[0]) == list(range(ROWS))


def test_a_feed_made_again_after_its_files_are_gone_has_files_of_its_own(numbered, tmp_path):
    first = fed(numbered, tmp_path / "cache")
    assert len(list(first.batches(batch_size=ROWS))) == 1
    shutil.rmtree(tmp_path / "cache")
    second = fed(numbered, tmp_path / "cache")
    assert len(list(second.batches(batch_size=ROWS))) == 1


def test_a_path_with_a_space_serves_as_well(numbered, tmp_path):
    feed = fed(numbered, tmp_path / "a path with spaces, é")
    assert len(next(iter(feed.batches(batch_size=ROWS)))["target"]) == ROWS
    assert list((tmp_path / "a path with spaces, é").iterdir())
