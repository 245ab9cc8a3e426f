"""Outputs side by side: what changes with later input is found, and nothing else."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from bitstorm.transform.indicators import from_prices, span_of
from bitstorm.transform.kernel import Grid
from bitstorm.transform.lookahead import (
    Tolerance,
    altered_after,
    compared_cells,
    counted,
    first_changed,
    known_at,
    newest_known,
)

pytestmark = pytest.mark.slow

STEP = 3_600_000
START = 1_600_000_000_000 // STEP * STEP


def cells(spark, whole, again, *, last=9, tolerance=None, kind="double"):
    """(timestamp, column, whole, again, changed) without the cells of rows that both sides have."""
    sides = [spark.createDataFrame(r, f"timestamp bigint, a {kind}") for r in (whole, again)]
    found = compared_cells(*sides, last_ms=last, tolerance=tolerance or Tolerance())
    rows = [tuple(row) for row in found.orderBy("timestamp", "column").collect()]
    return [row for row in rows if row[1] != "timestamp" or row[4]]


def test_equal_outputs_have_nothing_but_a_cell_for_each_row(spark_session):
    rows = [(1, 1.0), (2, None), (3, math.nan), (4, math.inf), (5, -0.0)]
    assert cells(spark_session, rows, rows) == []
    frame = spark_session.createDataFrame(rows, "timestamp bigint, a double")
    found = compared_cells(frame, frame, last_ms=4, tolerance=Tolerance())
    assert [tuple(row) for row in counted(found).collect()] == [("timestamp", 4, 0)]


def test_a_null_that_turns_into_a_value_is_a_change_and_so_is_the_reverse(spark_session):
    found = cells(spark_session, [(1, None), (2, 5.0)], [(1, 5.0), (2, None)])
    assert found == [(1, "a", None, "5.0", True), (2, "a", "5.0", None, True)]


def test_a_row_that_disappears_or_appears_is_one_change_of_the_row(spark_session):
    found = cells(spark_session, [(1, 1.0), (2, 2.0)], [(2, 2.0), (3, 3.0)])
    assert found == [(1, "timestamp", "1", None, True), (3, "timestamp", None, "3", True)]


def test_what_lies_after_the_last_moment_is_not_compared(spark_session):
    assert cells(spark_session, [(1, 1.0), (2, 2.0)], [(1, 1.0), (2, 3.0), (3, 1.0)], last=1) == []


def test_the_tolerance_is_the_callers_and_values_within_it_are_told_apart(spark_session):
    whole, again = [(1, 1e6), (2, 1e-13), (3, 1.0)], [(1, 1e6 + 5e-7), (2, 2e-13), (3, 1.0 + 1e-6)]
    found = cells(spark_session, whole, again)
    assert [(row[0], row[4]) for row in found] == [(1, False), (2, False), (3, True)]
    exact = cells(spark_session, whole, again, tolerance=Tolerance(0, 0))
    assert [row[4] for row in exact] == [True, True, True]


def test_the_last_digits_of_a_difference_of_prices_are_those_of_the_price(spark_session):
    names = "timestamp bigint, price float, macd double"

    def at(price, macd):
        return spark_session.createDataFrame([(1, price, macd)], names)

    for price, apart, changed in ((5e4, 1e-9, False), (5e4, 1e-6, True), (1e-6, 1e-12, True)):
        sides = at(price, price * 1e-3), at(price, price * 1e-3 + apart)
        found = compared_cells(*sides, last_ms=1, tolerance=Tolerance())
        assert {row["column"]: row["changed"] for row in found.collect()}["macd"] == changed


@pytest.mark.parametrize(
    ("one", "other"),
    [(math.nan, 1.0), (math.inf, 1.0), (math.inf, -math.inf), (math.inf, math.nan)],
)
def test_a_number_that_is_not_finite_is_near_to_no_other(spark_session, one, other):
    found = cells(spark_session, [(1, one), (2, other)], [(1, other), (2, one)])
    assert [row[4] for row in found] == [True, True]


def test_whole_numbers_and_flags_have_no_tolerance(spark_session):
    wide = Tolerance(relative=1, absolute=1)
    for kind, one, other in (("int", 1, 0), ("boolean", True, False), ("string", "x", "y")):
        (found,) = cells(spark_session, [(1, one)], [(1, other)], kind=kind, tolerance=wide)
        assert found[4], kind


def test_other_columns_are_refused_by_name(spark_session):
    one = spark_session.createDataFrame([(1, 1.0)], "timestamp bigint, a double")
    with pytest.raises(ValueError, match="b:double"):
        compared_cells(one, one.withColumnRenamed("a", "b"), last_ms=1, tolerance=Tolerance())


def test_only_prices_after_the_cut_are_altered_each_by_a_factor_of_its_own(spark_session):
    rows = [(n, 100.0) for n in range(50)]
    frame = spark_session.createDataFrame(rows, "timestamp bigint, price float")
    altered = altered_after(frame, cut_ms=20)
    assert altered.schema["price"].dataType == frame.schema["price"].dataType
    prices = [row["price"] for row in altered.orderBy("timestamp").collect()]
    assert prices[:21] == [100.0] * 21
    assert all(150 <= price <= 250 for price in prices[21:])
    assert len(set(prices[21:])) > 20


def test_the_newest_complete_label_has_an_observation_at_it_or_after_it(spark_session):
    times = [0, 1, STEP, 9 * STEP + 5, 9 * STEP + 7]
    frame = spark_session.createDataFrame([(t,) for t in times], "timestamp bigint")
    ends = {
        -1: (None, None),
        0: (0, 0),
        1: (1, 0),
        STEP: (STEP, STEP),
        9 * STEP + 6: (9 * STEP + 5, STEP),
        20 * STEP: (9 * STEP + 7, STEP),
    }
    (row,) = newest_known(frame, cuts_ms=list(ends), step_ms=STEP).collect()
    found = [(row[f"last_{n}"], row[f"complete_{n}"]) for n in range(len(ends))]
    assert found == list(ends.values())


# --- whole computations, honest and dishonest ----------------------------------------------------


def irregular(spark, seed):
    """Several observations in a step, holes that are carried and holes that cut."""
    chance = random.Random(seed)
    time, rows = START, []
    for _ in range(90):
        time += chance.choice([7, STEP // 3, STEP, STEP, 4 * STEP, 9 * STEP])
        rows.append((time, 100.0 + chance.random()))
    frame = spark.createDataFrame(rows, "timestamp bigint, price float").repartition(3)
    return frame, [time for time, _ in rows]


def indicators(prices):
    first_ms, last_ms = prices.selectExpr("min(timestamp)", "max(timestamp)").first()
    grid = Grid(STEP, 6)
    span = span_of(first_ms, last_ms, grid=grid)
    return from_prices(prices, grid=grid, windows=(2, 3), span=span)


def grid(prices):
    return indicators(prices).select("timestamp", "price", "imputed")


def changed_at(compute, prices, cut):
    """Changed cells by column: without what comes after the cut, and with other prices there."""
    whole, found = compute(prices).persist(), []
    part = compute(known_at(prices, cut_ms=cut)).persist()
    last = max((row["timestamp"] for row in part.collect()), default=0)
    for again, until in ((part, last), (compute(altered_after(prices, cut_ms=cut)), cut)):
        all_cells = compared_cells(whole, again, last_ms=until, tolerance=Tolerance())
        found.append({row["column"] for row in first_changed(all_cells, count=99).collect()})
    return found


def test_the_indicators_look_at_nothing_later_on_irregular_data(spark_session):
    prices, times = irregular(spark_session, 1)
    assert changed_at(indicators, prices, times[40] + 1) == [set(), set()]


def test_the_grid_looks_at_nothing_later_around_holes_and_inside_buckets(spark_session):
    prices, times = irregular(spark_session, 1)
    carried = next(b for a, b in pairwise(times) if b - a == 4 * STEP)
    cutting = next(b for a, b in pairwise(times) if b - a == 9 * STEP)
    inside = next(a for a, b in pairwise(times) if -(-a // STEP) == -(-b // STEP))
    for cut in (carried, carried - 1, cutting, cutting - 1, inside):
        assert changed_at(grid, prices, cut) == [set(), set()]


def test_a_value_of_one_step_ahead_is_found(spark_session):
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    ordered = Window.partitionBy(F.lit(0)).orderBy("timestamp")

    def ahead(prices):
        return grid(prices).withColumn("next", F.lead("price").over(ordered))

    prices, times = irregular(spark_session, 2)
    assert changed_at(ahead, prices, times[40] // STEP * STEP) == [{"next"}, {"next"}]


def test_an_indicator_of_one_step_ahead_is_found_at_a_millionth_of_a_dollar(spark_session):
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    ordered = Window.partitionBy(F.lit(0)).orderBy("timestamp")
    small = F.lit(1e-8).cast("float")

    def with_plant(prices):
        cheap = prices.withColumn("price", F.col("price") * small)
        return indicators(cheap).drop("month").withColumn("ahead", F.lead("macd").over(ordered))

    chance = random.Random(5)
    rows = [(START + n * STEP, 100.0 + chance.random()) for n in range(120)]
    prices = spark_session.createDataFrame(rows, "timestamp bigint, price float")
    cut = START + 60 * STEP
    # A MACD of some 1e-9; nothing else changes.
    assert changed_at(with_plant, prices, cut) == [{"ahead"}, {"ahead"}]


def test_the_mean_of_the_whole_series_is_found(spark_session):
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    whole = Window.partitionBy(F.lit(0))

    def centred(prices):
        return grid(prices).withColumn("centred", F.col("price") - F.avg("price").over(whole))

    prices, times = irregular(spark_session, 3)
    assert changed_at(centred, prices, times[40] // STEP * STEP) == [{"centred"}, {"centred"}]


def test_a_hole_that_is_filled_backwards_is_found_though_no_row_is_missing(spark_session):
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    onwards = (
        Window.partitionBy(F.lit(0)).orderBy("timestamp").rowsBetween(0, Window.unboundedFollowing)
    )
    observed = F.when(~F.col("imputed"), F.col("price"))

    def backwards(prices):
        filled = F.first(observed, ignorenulls=True).over(onwards)
        return grid(prices).withColumn("price", filled)

    times = [START + n * STEP for n in (0, 1, 2, 6, 7, 8)]
    rows = [(time, float(n + 1)) for n, time in enumerate(times)]
    prices = spark_session.createDataFrame(rows, "timestamp bigint, price float")
    # Cut inside the hole its rows are gone altogether: only other prices show whence theirs came.
    assert changed_at(backwards, prices, START + 4 * STEP) == [set(), {"price"}]
    assert changed_at(backwards, prices, times[3]) == [set(), set()]
