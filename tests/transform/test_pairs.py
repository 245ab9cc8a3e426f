"""Pairs of doubles against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from pyspark.sql import Window

from bitstorm.transform.pairs import pair, parts, with_running_sums

pytestmark = pytest.mark.slow

TEN = [f"{name} double" for name in ("a_high", "a_low", "b_high", "b_low")]


def drawn(count: int) -> list[tuple[int, float, float, float, float]]:
    """Pairs of all sizes and signs; each tenth b is nearly -a, and each eleventh is 0."""
    chance = np.random.default_rng(5)
    highs = chance.choice([-1, 1], (count, 2)) * np.exp(chance.uniform(-200, 200, (count, 2)))
    highs[::2, 1] = highs[::2, 0] * np.exp(chance.uniform(-9, 9, len(highs[::2])))
    highs[::10, 1] = -np.nextafter(highs[::10, 0], np.inf)
    highs[::11, 1] = 0.0
    lows = highs * chance.uniform(-1, 1, (count, 2)) * 2.0**-53
    rows = zip(highs.tolist(), lows.tolist(), strict=True)
    return [(n, a, a_low, b, b_low) for n, ((a, b), (a_low, b_low)) in enumerate(rows)]


def exact(high: float, low: float) -> Fraction:
    return Fraction(high) + Fraction(low)


def test_sums_differences_and_products_are_right_to_thirty_digits(spark_session):
    rows = drawn(3_000)
    frame = spark_session.createDataFrame(rows, ", ".join(["n bigint", *TEN]))
    a, b = pair("a"), pair("b")
    results = (*(a + b).named("sum"), *(a - b).named("less"), *(a * b).named("product"))
    found = frame.select("n", *results).orderBy("n").collect()
    for row, (_, *values) in zip(found, rows, strict=True):
        x, y = exact(*values[:2]), exact(*values[2:])
        terms = max(abs(x), abs(y))
        # A sum is as exact as its larger term is.
        assert abs(exact(row["sum_high"], row["sum_low"]) - (x + y)) <= terms / 2**102
        assert abs(exact(row["less_high"], row["less_low"]) - (x - y)) <= terms / 2**102
        product = exact(row["product_high"], row["product_low"])
        assert abs(product - x * y) <= abs(x * y) / 2**102


def test_a_running_sum_keeps_what_each_addition_rounds_off(spark_session):
    rows = [
        (n, key, a * scale, a_low * scale)
        for key, scale in ((0, 1.0), (1, 1e-3))
        for n, a, a_low, *_ in drawn(500)
        if 1e-20 < abs(a) < 1e20
    ]
    frame = spark_session.createDataFrame(rows, "n bigint, key int, a_high double, a_low double")
    over = Window.partitionBy("key").orderBy("n")
    found = with_running_sums(frame, {"total": "a"}, over=over).orderBy("key", "n").collect()
    assert found[0].__fields__ == ["n", "key", *parts("a"), *parts("total")]
    for key in (0, 1):
        total = largest = Fraction(0)
        for row in [row for row in found if row["key"] == key]:
            total += exact(row["a_high"], row["a_low"])
            largest = max(largest, abs(total))
            assert abs(exact(row["total_high"], row["total_low"]) - total) <= largest / 2**95
