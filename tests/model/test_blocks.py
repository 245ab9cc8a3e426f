"""Blocks cut on the driver, against Spark's and against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.indicators.windows import Blocks, in_blocks
from bitstorm.model import blocks
from model import blocked


def series(seed: int, count: int) -> dict[str, np.ndarray]:
    """Points with holes of one to many more than a block, imputed prices and missing indicators."""
    chance = np.random.default_rng(seed)
    gaps = np.where(chance.random(count) < 0.1, chance.integers(2, 40, count), 1)
    rsi = chance.uniform(0, 100, count)
    rsi[chance.random(count) < 0.1] = np.nan
    return {
        "index": 444_444 + np.cumsum(gaps),
        "price": chance.uniform(900, 1000, count).astype(np.float32),
        "imputed": chance.random(count) < 0.1,
        "rsi": rsi,
    }


def cut_up(points, edges):
    """The points in pieces."""
    edges = [0, *sorted(edges), len(points["index"])]
    for begin, end in itertools.pairwise(edges):
        yield {name: values[begin:end] for name, values in points.items()}


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 60),
    look_back=st.integers(1, 12),
    horizon=st.integers(1, 9),
    edges=st.lists(st.integers(0, 60), max_size=5),
)
def test_each_block_holds_what_a_loop_finds(seed, count, look_back, horizon, edges):
    frame = blocked.frame_of(
        look_back=look_back, horizon=horizon, features=("price", "rsi"), size=8
    )
    points = series(seed, count)
    edges = [edge for edge in edges if edge <= count]
    found = list(blocks.from_points(cut_up(points, edges), frame))
    assert [int(one["block"][0]) for one in found] == sorted({n // 8 for n in points["index"]})
    place = {int(index): n for n, index in enumerate(points["index"])}
    for one in found:
        begin = int(one["block"][0]) * 8 - look_back
        for offset in range(frame.length):
            n = place.get(begin + offset)
            price, rsi = one["price"][0, offset], one["rsi"][0, offset]
            if n is None:
                assert np.isnan(price) and np.isnan(rsi)
                continue
            assert abs(price) == points["price"][n]
            assert np.signbit(price) == points["imputed"][n]
            assert rsi == points["rsi"][n] or (np.isnan(rsi) and np.isnan(points["rsi"][n]))
        assert one["price"].dtype == np.float32 and one["rsi"].dtype == np.float64


@pytest.mark.slow
def test_they_are_sparks_blocks_to_the_bit(spark_session):
    frame = blocked.frame_of(look_back=5, horizon=2, features=("price", "rsi"), size=16)
    points = series(3, 200)
    rows = [
        (int(i), float(p), bool(m), None if np.isnan(r) else float(r))
        for i, p, m, r in zip(*points.values(), strict=True)
    ]
    schema = "index bigint, price float, imputed boolean, rsi double"
    seen = in_blocks(spark_session.createDataFrame(rows, schema), Blocks(16, before=5, after=2))
    theirs = {row["block"]: row for row in blocks.to_rows(seen, frame, files=2).collect()}
    ours = list(blocks.from_points([points], frame))
    assert len(ours) > 10
    for one in ours:
        row = theirs[int(one["block"][0])]
        for name, kind in (("price", np.float32), ("rsi", np.float64)):
            np.testing.assert_array_equal(one[name][0], np.array(row[name], kind))
