"""Outputs side by side: what changes with later input is found, and nothing else."""

from __future__ import annotations

import math
import random

import pytest

from bitstorm.indicators.compute import from_prices, span_of
from bitstorm.indicators.kernel import Grid
from bitstorm.indicators.lookahead import (
    change_counts,
    compared_cells,
    first_changed,
    newest_known,
    only_until,
    with_altered_prices,
)

pytestmark = pytest.mark.slow

STEP = 3_600_000
START = 1_600_000_000_000 // STEP * STEP


def frames(spark, pairs, names="a", kind="double"):
    """Two outputs of one row a pair, at the times 1, 2, …; a side without a value lacks the row."""
    schema = f"timestamp bigint, {', '.join(f'{name} {kind}' for name in names.split())}"
    numbered = list(enumerate(pairs, start=1))
    sides = [[(n, *pair[side]) for n, pair in numbered if pair[side]] for side in (0, 1)]
    return tuple(spark.createDataFrame(rows, schema) for rows in sides)


def cells(sides, *, last=99):
    """(timestamp, column, whole, again, changed) without the cells of rows that both sides have."""
    found = compared_cells(*sides, last_ms=last)
    rows = [tuple(row) for row in found.orderBy("timestamp", "column").collect()]
    return [row for row in rows if row[1] != "timestamp" or row[4]]


def test_equal_outputs_have_nothing_but_a_cell_for_each_row(spark_session):
    values = [1.0, None, math.nan, math.inf, -0.0]
    sides = frames(spark_session, [((value,), (value,)) for value in values])
    found = compared_cells(*sides, last_ms=4)
    assert [tuple(row) for row in change_counts(found).collect()] == [("timestamp", 4, 0)]


def test_what_differs_is_a_changed_cell_up_to_the_last_moment(spark_session):
    nan, inf = math.nan, math.inf
    pairs = [
        # A null that turns into a value, and the reverse.
        ((None,), (5.0,)),
        ((5.0,), (None,)),
        # A row that disappears or appears is one change of the row.
        ((1.0,), ()),
        ((), (3.0,)),
        # The last bit.
        ((1.0,), (math.nextafter(1.0, 2.0),)),
        *(((a,), (b,)) for a, b in [(nan, 1.0), (1.0, nan), (inf, 1.0), (inf, -inf), (nan, inf)]),
        # After the last moment.
        ((2.0,), (3.0,)),
        ((2.0,), ()),
    ]
    found = cells(frames(spark_session, pairs), last=10)
    assert found[:4] == [
        (1, "a", None, "5.0", True),
        (2, "a", "5.0", None, True),
        (3, "timestamp", "3", None, True),
        (4, "timestamp", None, "4", True),
    ]
    assert [(row[0], row[4]) for row in found[4:]] == [(n, True) for n in range(5, 11)]


def test_whole_numbers_flags_and_texts_are_compared(spark_session):
    schema = "timestamp bigint, i int, b boolean, s string"
    rows = [(1, 1, True, "x"), (1, 0, False, "y")]
    sides = [spark_session.createDataFrame([row], schema) for row in rows]
    assert [(row[1], row[4]) for row in cells(sides)] == [("b", True), ("i", True), ("s", True)]


def test_other_columns_are_refused_by_name(spark_session):
    one = spark_session.createDataFrame([(1, 1.0)], "timestamp bigint, a double")
    with pytest.raises(ValueError, match="b:double"):
        compared_cells(one, one.withColumnRenamed("a", "b"), last_ms=1)


def test_only_prices_after_the_cut_are_altered(spark_session):
    rows = [(n, 100.0) for n in range(50)]
    frame = spark_session.createDataFrame(rows, "timestamp bigint, price float")
    altered = with_altered_prices(frame, cut_ms=20)
    assert altered.schema["price"].dataType == frame.schema["price"].dataType
    prices = [row["price"] for row in altered.orderBy("timestamp").collect()]
    assert prices[:21] == [100.0] * 21
    assert all(150 <= price <= 250 for price in prices[21:])
    assert len(set(prices[21:])) > 20


def test_a_complete_label_has_an_observation_at_or_after_it(spark_session):
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


def changed_at(compute, prices, cut):
    """Changed cells by column: without what comes after the cut, and with other prices there."""
    whole, found = compute(prices).persist(), []
    part = compute(only_until(prices, cut_ms=cut)).persist()
    last = max((row["timestamp"] for row in part.collect()), default=0)
    for again, until in ((part, last), (compute(with_altered_prices(prices, cut_ms=cut)), cut)):
        all_cells = compared_cells(whole, again, last_ms=until)
        found.append({row["column"] for row in first_changed(all_cells, count=99).collect()})
    return found


def test_the_indicators_look_at_nothing_later_on_irregular_data(spark_session):
    prices, times = irregular(spark_session, 1)
    assert changed_at(indicators, prices, times[40] + 1) == [set(), set()]


def test_planted_look_ahead_of_one_step_and_of_all_is_found(spark_session):
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    whole = Window.partitionBy(F.lit(0))
    ordered = whole.orderBy("timestamp")

    def with_plants(prices):
        # Of a millionth of a dollar: a MACD of some 1e-9.
        cheap = prices.withColumn("price", F.col("price") * F.lit(1e-8).cast("float"))
        return indicators(cheap).select(
            "*",
            F.lead("price").over(ordered).alias("next"),
            F.lead("macd").over(ordered).alias("ahead"),
            (F.col("price") - F.avg("price").over(whole)).alias("centred"),
        )

    chance = random.Random(5)
    rows = [(START + n * STEP, 100.0 + chance.random()) for n in range(120)]
    prices = spark_session.createDataFrame(rows, "timestamp bigint, price float")
    planted = {"next", "ahead", "centred"}
    assert changed_at(with_plants, prices, START + 60 * STEP) == [planted, planted]


def test_a_hole_that_is_filled_backwards_is_found(spark_session):
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    onwards = (
        Window.partitionBy(F.lit(0)).orderBy("timestamp").rowsBetween(0, Window.unboundedFollowing)
    )
    observed = F.when(~F.col("imputed"), F.col("price"))

    def backwards(prices):
        grid = indicators(prices).select("timestamp", "price", "imputed")
        return grid.withColumn("price", F.first(observed, ignorenulls=True).over(onwards))

    rows = [(START + n * STEP, float(n + 1)) for n in (0, 1, 2, 6, 7, 8)]
    prices = spark_session.createDataFrame(rows, "timestamp bigint, price float")
    # Cut inside the hole its rows are gone altogether: only other prices show whence theirs came.
    assert changed_at(backwards, prices, START + 4 * STEP) == [set(), {"price"}]
