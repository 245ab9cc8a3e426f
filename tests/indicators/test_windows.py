"""Windows in Spark against each window on its own, in long double: many series in one job."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from bitstorm.indicators.windows import trend, with_windows

pytestmark = pytest.mark.slow

# Digits of 0 to the base 4, one digit, several; wider than all rows.
WIDTHS = (1, 2, 4, 7, 16, 24, 63, 65, 168, 1_680, 5_000)


def one_by_one(price: np.ndarray, run: np.ndarray, width: int) -> dict[str, np.ndarray]:
    """`run` numbers the stretches without a cut."""
    exact = price.astype(np.longdouble)
    change = np.full(len(price), np.nan, dtype=np.longdouble)
    change[1:] = np.where(run[1:] == run[:-1], (exact[1:] - exact[:-1]) / exact[:-1], np.nan)
    average, spread = np.full(len(price), np.nan), np.full(len(price), np.nan)
    if width <= len(price):
        windows = np.lib.stride_tricks.sliding_window_view
        whole = run[width - 1 :] == run[: len(run) - width + 1]
        average[width - 1 :] = np.where(whole, windows(exact, width).mean(axis=1), np.nan)
        if width > 1:
            spread[width - 1 :] = windows(change, width).std(axis=1, ddof=1)
    return {f"ma_{width}": average, f"volatility_{width}": spread}


CHANCE = np.random.default_rng(5)
ROWS = 2_000
WALK = 20_000 * np.exp(np.cumsum(CHANCE.normal(0, 5e-4, ROWS)))
CLIMB = np.float32(20_000).view(np.int32) + np.arange(ROWS, dtype=np.int32)
SERIES = {
    "a walk": WALK,
    "from 0.05 to 120,000": np.geomspace(0.05, 120_000, ROWS)
    * np.exp(CHANCE.normal(0, 1e-3, ROWS)),
    "steady growth from 0.05 to 120,000": np.geomspace(0.05, 120_000, ROWS),
    "a jump by a factor of 100": np.where(np.arange(ROWS) < 900, WALK / 100, WALK),
    "there and back": np.where(np.arange(ROWS) // 500 % 2, WALK * 100, WALK),
    "quiet after wild": np.concatenate(
        [WALK[:800] * np.exp(CHANCE.normal(0, 0.2, 800)), 20_000 + np.arange(ROWS - 800) % 7 * 0.01]
    ),
    "climbing by its last digit": CLIMB.view(np.float32),
    "equal steps of 5 %": 20 * 1.05 ** np.abs(np.arange(ROWS) % 200 - 100),
    "one price 10^18 times the others": np.where(np.arange(ROWS) == 100, WALK * 1e18, WALK),
    "a billionth": WALK * 1e-14,
    "a constant stretch": np.where(np.abs(np.arange(ROWS) - 900) < 500, WALK[0], WALK),
    "a fall by nearly all": np.where(np.arange(ROWS) < 50, 2.0**40, WALK * 1e-9),
}
CUTS = np.sort(CHANCE.choice(np.arange(1, ROWS), 12, replace=False))


def in_one_job(spark, series) -> list[pd.DataFrame]:
    """Each series in a block of its own, in an order of Spark's; `run` makes jumps of the index."""
    rows = [
        (block, int(index), float(value))
        for block, (price, run) in enumerate(series)
        for index, value in zip(np.arange(ROWS) + 5 * run, price, strict=True)
    ]
    frame = spark.createDataFrame(rows, "block bigint, index bigint, price float")
    out = frame.repartition(3).transform(with_windows, windows=WIDTHS)
    table = out.withColumn("trend", trend([7, 168])).toPandas().sort_values(["block", "index"])
    return [part.reset_index(drop=True) for _, part in table.groupby("block")]


def beyond(table: pd.DataFrame, price: np.ndarray, run: np.ndarray) -> dict[str, float]:
    """The columns that are further off than they may be, and how many times so far."""
    exact = price.astype(np.longdouble)
    log_return = np.r_[np.nan, np.where(np.diff(run), np.nan, np.log(exact[1:] / exact[:-1]))]
    expected = {"log_return": log_return.astype(float)}
    for width in WIDTHS:
        expected |= one_by_one(price, run, width)
    found = {}
    for name, theirs in expected.items():
        ours = table[name].to_numpy(dtype=float)
        floor = 1e-9 if name.startswith("ma") else 1e-6
        worst = np.abs(ours - theirs) / (1e-12 * np.maximum(np.abs(theirs), floor))
        found[name] = np.max(worst[~np.isnan(theirs)], initial=0.0)
        if (np.isnan(ours) != np.isnan(theirs)).any():
            found[name] = np.inf
    return {name: worst for name, worst in found.items() if worst > 1}


def test_no_digit_of_any_series_is_lost(spark_session):
    whole = {
        name: (np.asarray(price, np.float32), np.zeros(ROWS, int)) for name, price in SERIES.items()
    }
    runs = np.searchsorted(CUTS, np.arange(ROWS), side="right")
    series = {**whole, "a walk with cuts": (np.asarray(WALK, np.float32), runs)}
    tables = dict(zip(series, in_one_job(spark_session, series.values()), strict=True))
    lost = {name: beyond(tables[name], *series[name]) for name in series}
    assert {name: columns for name, columns in lost.items() if columns} == {}

    still = tables["a constant stretch"]
    assert set(still["volatility_7"][420:1_400]) == {0.0}
    assert set(still["volatility_168"][600:1_400]) == {0.0}
    assert set(still["trend"][600:1_400]) == {0}

    walk = tables["a walk"]
    assert walk["trend"][:167].isna().all() and set(walk["trend"][167:]) == {-1, 1}
    expected = np.sign(walk["ma_7"] - walk["ma_168"])
    assert walk["trend"][167:].tolist() == expected[167:].tolist()


def test_every_window_is_over_blocks_and_shuffled_once(spark_session):
    frame = spark_session.range(100).selectExpr("id % 3 block", "id index", "float(id + 1) price")
    made = frame.transform(with_windows, windows=(7, 24, 168))
    text = made._jdf.queryExecution().executedPlan().toString()
    assert len(re.findall(r"Exchange", text)) == 1 and "SinglePartition" not in text
    assert len(re.findall(r"Sort \[", text)) == 1
