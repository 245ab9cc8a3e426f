"""The end of a series, started from stored points: the state by a plain loop, and the same values
and nulls as of the whole series."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.transform.blocks import SIZE as LARGE
from bitstorm.transform.indicators import from_prices
from bitstorm.transform.recurrence import TILE
from bitstorm.transform.seed import place_before, points_needed, prices_from, tail_of
from transform.test_indicators import HOUR, assert_equal

SIZE = 1_024
WINDOWS = [3, 24, 1_200]  # the widest is wider than a block
# A label of the grid that is the first of a block.
BEGIN = 1_600_000_000_000 // HOUR // SIZE * SIZE


def plain_state(price: np.ndarray, windows: list[int]) -> dict[str, float]:
    """What a run of prices leaves behind: each recursion in long double, one price at a time."""
    exact = price.astype(np.longdouble)
    state = {"peak": exact.max()}
    moves = np.diff(exact)
    for span in windows:
        # An EMA moves by a part of what the price is ahead of it: the rest is still ahead.
        alpha, ahead = np.longdouble(2) / (span + 1), np.longdouble(0)
        for move in moves:
            ahead = (1 - alpha) * (ahead + move)
        state[f"lag_{span}"] = ahead
    for name, part in (("gain", np.maximum(moves, 0)), ("loss", np.maximum(-moves, 0))):
        y = part[:14].mean()
        for move in part[14:]:
            y = (13 * y + move) / 14
        state[name] = y
    return {name: float(value) for name, value in state.items()}


def stored(price: np.ndarray, start: int, windows: list[int]) -> pd.DataFrame:
    """The columns that a tail is started from, of one run that begins at the label `start`."""
    exact = pd.Series(price.astype("float64"))
    means = {f"ema_{w}": exact.ewm(span=w, adjust=False, min_periods=w).mean() for w in windows}
    return pd.DataFrame(
        {
            "timestamp": (start + np.arange(len(price))) * HOUR,
            "price": price,
            "drawdown": (exact - exact.cummax()) / exact.cummax(),
            **means,
        }
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    length=st.one_of(st.integers(15, 900), st.integers(10_000, 12_000)),
    jump=st.sampled_from([1.0, 100.0, 0.01]),
    still=st.integers(0, 300),
)
def test_the_state_is_that_of_a_plain_loop_over_the_run(seed, length, jump, still):
    chance = np.random.default_rng(seed)
    price = 30_000 * np.exp(np.cumsum(chance.normal(0, 0.01, length)))
    price[length // 3 :] *= jump
    price[length - still :] = price[max(0, length - still - 1)]
    price = price.astype("float32")
    first = BEGIN + 7
    start = place_before(first, size=SIZE) + 1 - length
    older = stored(price[:50] * 9, start - 60, WINDOWS)  # another run, before a cut
    points = pd.concat([older, stored(price, start, WINDOWS)], ignore_index=True)
    tail = tail_of(points, first=first, step_ms=HOUR, windows=WINDOWS, size=SIZE)
    expected = plain_state(price, WINDOWS)
    assert tail.first == first
    assert tail.state.keys() == expected.keys()
    assert tail.state["peak"] == expected["peak"]
    # The windows' own means are stored, here with what pandas' sums leave of a price's digits.
    digit = {f"lag_{w}": 1e-13 * float(price.max()) for w in WINDOWS}
    for name, value in expected.items():
        allowed = pytest.approx(value, rel=1e-12, abs=digit.get(name, 1e-280))
        assert tail.state[name] == allowed, name


def test_a_point_that_is_not_there_leaves_no_state():
    price = np.linspace(1, 2, 30, dtype="float32")
    for start in (BEGIN - 40, BEGIN + 2):
        points = stored(price, start, [3])
        assert tail_of(points, first=BEGIN, step_ms=HOUR, windows=[3], size=SIZE).state is None


def test_a_maximum_that_the_drawdown_does_not_tell_gives_no_tail():
    price = np.full(points_needed([3]) + 10, 1e-12, dtype="float32")
    price[0] = 1e12  # the drawdown is -1 to a double's last digit
    points = stored(price, BEGIN - len(price), [3])
    assert tail_of(points, first=BEGIN, step_ms=HOUR, windows=[3], size=SIZE) is None


def with_everything() -> pd.DataFrame:
    """Hours: a peak long ago, small holes, cuts, stretches in which nothing moves, a jump."""
    count = 14_000
    chance = np.random.default_rng(21)
    price = 30_000 * np.exp(np.cumsum(chance.normal(0, 0.01, count)))
    price[300] *= 20
    price[12_000:12_600] = price[12_000]
    price[12_900:] *= 40
    index = BEGIN + np.arange(count)
    index[11_500:] += 30  # a cut
    index[13_100:] += 40
    observations = pd.DataFrame({"timestamp": index * HOUR, "price": price.astype("float32")})
    # A hole that is filled over the first label of a block, and others.
    gone = [*range(11_262, 11_266), *chance.integers(0, count, 200)]
    observations = observations.drop(index=[n for n in gone if n not in (0, count - 1)])
    # Some come between labels, and the last one has begun a bucket.
    observations["timestamp"] -= chance.choice([0, 0, HOUR // 3], len(observations))
    last = pd.DataFrame({"timestamp": [index[-1] * HOUR + 60_000], "price": [1.0]})
    return pd.concat([observations, last.astype({"price": "float32"})], ignore_index=True)


@pytest.mark.slow
def test_from_any_point_on_the_end_is_that_of_the_whole_series(spark_session, tmp_path):
    observations = with_everything()
    path = tmp_path / "prices.parquet"
    observations.to_parquet(path, index=False)
    frame = spark_session.read.parquet(str(path))
    options = {"step_ms": HOUR, "max_gap": 6, "windows": WINDOWS, "size": SIZE, "tile": SIZE}
    whole = from_prices(frame, **options).orderBy("timestamp").toPandas()
    assert not whole["drawdown"].between(-0.9, 0).iloc[11_000:11_400].any()  # the old peak counts
    label = whole["timestamp"].to_numpy() // HOUR - BEGIN
    # Behind the filled hole; before a cut; shortly after it, where later nothing moves.
    for place in (11_265, 11_500, 11_780):
        first = BEGIN + int(label[place])
        known = whole[whole["timestamp"] < first * HOUR]
        tail = tail_of(known, first=first, step_ms=HOUR, windows=WINDOWS, size=SIZE)
        begin = prices_from(first, step_ms=HOUR, max_gap=6, windows=WINDOWS, size=SIZE)
        recent = frame.where(frame["timestamp"] >= begin)
        assert recent.count() < len(observations) - first + BEGIN + 2_500
        found = from_prices(recent, **options, tail=tail).orderBy("timestamp").toPandas()
        expected = whole[whole["timestamp"] >= first * HOUR].reset_index(drop=True)
        assert (found["timestamp"] == expected["timestamp"]).all()
        assert (found["imputed"] == expected["imputed"]).all()
        assert_equal(found, expected.drop(columns="month"), tolerance=1e-12, digits=0)


@pytest.mark.slow
def test_the_end_of_a_long_series_of_minutes_is_that_of_the_whole(spark_session, tmp_path):
    """In the blocks that `indicators` takes for a short end, and for one of several blocks."""
    count, minute = 140_000, 60_000
    chance = np.random.default_rng(22)
    price = 30_000 * np.exp(np.cumsum(chance.normal(0, 5e-4, count)))
    price[60_000:61_000] = price[60_000]
    begin = 1_600_000_000_000 // minute
    observations = pd.DataFrame(
        {"timestamp": (begin + np.arange(count)) * minute, "price": price.astype("float32")}
    ).drop(index=[*range(500, 560), *range(135_000, 135_030)])
    path = tmp_path / "prices.parquet"
    observations.to_parquet(path, index=False)
    frame = spark_session.read.parquet(str(path))
    options = {"step_ms": minute, "max_gap": 6, "windows": WINDOWS}
    whole = from_prices(frame, **options).orderBy("timestamp").toPandas()
    for age, size in ((300, TILE), (70_000, LARGE)):
        first = begin + count - age
        known = whole[whole["timestamp"] < first * minute]
        tail = tail_of(known, first=first, step_ms=minute, windows=WINDOWS, size=size)
        since = prices_from(first, step_ms=minute, max_gap=6, windows=WINDOWS, size=size)
        recent = frame.where(frame["timestamp"] >= since)
        ended = from_prices(recent, **options, size=size, tail=tail)
        found = ended.orderBy("timestamp").toPandas()
        expected = whole[whole["timestamp"] >= first * minute].reset_index(drop=True)
        assert len(found) == len(expected) >= age - 30
        assert (found["timestamp"] == expected["timestamp"]).all()
        assert_equal(found, expected.drop(columns="month"), tolerance=1e-12, digits=0)
