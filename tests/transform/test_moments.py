"""Means and spreads of windows against exact fractions, one window at a time."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pyspark.sql import Window

from bitstorm.transform.blocks import SIZE
from bitstorm.transform.moments import Moments, mean, squares, with_moments

pytestmark = pytest.mark.slow

WIDTHS = (2, 3, 7, 24)
# Deviations below this count as this: a millionth of the unit of changes.
FLOOR = 16e-6


def computed(spark, numbers, asked: Moments, *, most_rows: int, rests=None) -> pd.DataFrame:
    """Each list is a block of its own; rows in the order of block and index."""
    rests = rests or [[0.0] * len(block) for block in numbers]
    rows = [
        (block, n, value, rest)
        for block, both in enumerate(zip(numbers, rests, strict=True))
        for n, (value, rest) in enumerate(zip(*both, strict=True))
    ]
    frame = spark.createDataFrame(rows, "block int, index int, u double, rest double")
    window = Window.partitionBy("block").orderBy("index")
    found = with_moments(frame, [asked], window=window, most_rows=most_rows)
    return found.toPandas().sort_values(["block", "index"], ignore_index=True)


def assert_spreads(found: pd.DataFrame, numbers: list[list[Fraction]], widths) -> None:
    for width in widths:
        ours = found[squares("u", width)].to_numpy()
        theirs = [
            spread(block[max(0, n - width + 1) : n + 1], width)
            for block in numbers
            for n in range(len(block))
        ]
        whole = [n >= width - 1 for block in numbers for n in range(len(block))]
        for n in np.flatnonzero(whole):
            expected = math.sqrt(theirs[n])
            allowed = 1e-12 * max(expected, FLOOR * math.sqrt(width - 1))
            assert abs(math.sqrt(ours[n]) - expected) <= allowed, (width, n, ours[n], expected)


def spread(window: list[Fraction], width: int) -> Fraction:
    return sum((u * u for u in window), Fraction(0)) - sum(window, Fraction(0)) ** 2 / width


def fractions(numbers) -> list[list[Fraction]]:
    return [[Fraction(u) for u in block] for block in numbers]


# What shares a block: small changes, such that differ by the last digits alone, jumps, a constant.
SMALL = st.floats(-0.05, 0.05)
ALIKE = st.builds(
    lambda base, last: base * (1 + last * 2.0**-52), st.sampled_from([0.8, 1 / 3, 1.6, 31.7]),
    st.integers(-3, 3),
)  # fmt: skip
JUMPS = st.one_of(st.floats(1, 128), st.floats(-16, -1))
STRETCH = st.one_of(
    st.lists(SMALL, max_size=25),
    st.lists(ALIKE, max_size=25),
    st.lists(JUMPS, max_size=3),
    st.just([99 * 16.0, -0.99 * 16]),
    st.builds(lambda u, n: [u] * n, SMALL, st.integers(1, 30)),
    st.builds(lambda k, n: [16 / (k + i) for i in range(n)], st.integers(2**23, 2**24),
              st.integers(1, 30)),
)  # fmt: skip


@settings(
    max_examples=6,
    deadline=None,
    # Making a failing example smaller takes many minutes of Spark.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_spreads_are_those_of_exact_fractions_whatever_else_is_in_the_block(spark_session, data):
    numbers = [
        [*chain.from_iterable(data.draw(st.lists(STRETCH, min_size=1, max_size=5)))] or [0.5]
        for _ in range(data.draw(st.integers(1, 6)))
    ]
    huge = data.draw(st.sampled_from([None, 3e4, 1e12, 1e60]))
    if huge is not None:
        for block in numbers:
            block.insert(data.draw(st.integers(0, len(block))), huge)
    asked = Moments("u", means=WIDTHS, spreads=WIDTHS)
    # Of a whole block, and of one of those that an update takes.
    most_rows = data.draw(st.sampled_from([SIZE + 1_024, 5_120]))
    found = computed(spark_session, numbers, asked, most_rows=most_rows)
    assert_spreads(found, fractions(numbers), WIDTHS)


def test_what_a_number_was_rounded_off_by_counts(spark_session):
    exact = [[Fraction(k, 3**5) for k in range(180, 240)]]
    numbers = [[float(u) for u in block] for block in exact]
    rests = [[float(u - Fraction(float(u))) for u in block] for block in exact]
    # Of nearly equal numbers the rests are all there is.
    exact.append([Fraction(8, 5) + Fraction(n % 3, 3 * 2**51) for n in range(60)])
    numbers.append([float(u) for u in exact[1]])
    rests.append([float(u - Fraction(float(u))) for u in exact[1]])
    asked = Moments("u", spreads=(7, 24), rest="rest")
    found = computed(spark_session, numbers, asked, most_rows=SIZE + 1_024, rests=rests)
    assert_spreads(found, exact, (7, 24))
    without = computed(spark_session, numbers, Moments("u", spreads=(7, 24)), most_rows=SIZE)
    with pytest.raises(AssertionError):
        assert_spreads(without, exact, (7, 24))


def test_a_block_of_the_largest_numbers_and_the_most_rows_rounds_nothing(spark_session):
    rows = SIZE + 1_024
    chance = np.random.default_rng(8)
    # Whatever can be at its largest is: each number just below half a step of every grid.
    numbers = 1 - 2.0**-19 + 2.0**-38 - 2.0**-53 * chance.integers(1, 5, rows)
    asked = Moments("u", means=(7,), spreads=(7, 24))
    found = computed(spark_session, [numbers.tolist()], asked, most_rows=rows)
    last = slice(rows - 60, rows)
    block = [[Fraction(u) for u in numbers[last]]]
    assert_spreads(found[last].reset_index(drop=True), block, (7, 24))
    exact = [float(sum(block[0][n - 6 : n + 1]) / 7) for n in range(6, 60)]
    np.testing.assert_allclose(found[mean("u", 7)].to_numpy()[last][6:], exact, rtol=2.0**-52)


def test_equal_numbers_have_no_spread_at_all_and_their_mean_is_their_own(spark_session):
    numbers = [[u] * 300 for u in (1 / 3, 0.1, 16 / 7, 3e5, 0.0)]
    # Some widths' reciprocals are not what dividing gives.
    widths = (*WIDTHS, 98, 103, 107, 237)
    asked = Moments("u", means=WIDTHS, spreads=widths)
    found = computed(spark_session, numbers, asked, most_rows=SIZE)
    for width in widths:
        whole = found["index"] >= width - 1
        assert set(found.loc[whole & (found["block"] != 3), squares("u", width)]) == {0.0}
    middle = found.loc[found["index"] >= 23, mean("u", 24)].to_numpy().reshape(5, -1)
    expected = np.array([1 / 3, 0.1, 16 / 7, 3e5, 0.0])
    np.testing.assert_allclose(middle, np.repeat(expected[:, None], 277, axis=1), rtol=1e-15)


def test_means_alone_are_exact_from_tiny_to_huge(spark_session):
    tiny = [float(np.float32(1e-7)) * (1 + n * 2.0**-20) for n in range(30)]
    numbers = [tiny + [6e4] * 30 + [1e18] + [float(np.float32(0.05))] * 30]
    asked = Moments("u", means=(1, 7, 24), per_unit=2.0**13)
    found = computed(spark_session, numbers, asked, most_rows=SIZE)
    exact = fractions(numbers)[0]
    for width in (1, 7, 24):
        ours = found[mean("u", width)].to_numpy()
        for n in range(width - 1, len(exact)):
            expected = sum(exact[n - width + 1 : n + 1]) / width
            assert abs(Fraction(ours[n]) - expected) <= Fraction(1, 10**12) * expected
