"""The rows that a feature needs, against where its first value really stands."""

from __future__ import annotations

import numpy as np
import pytest

from bitstorm.pipelines.train import DEFAULT_FEATURES
from bitstorm.pipelines.warm_up import rows_before, rows_needed
from bitstorm.schema import indicator_table
from bitstorm.transform.indicators import from_prices, span_of
from bitstorm.transform.kernel import Grid

pytestmark = pytest.mark.slow

HOUR = 3_600_000
WINDOWS = [3, 40]


def test_every_column_has_its_first_value_after_as_many_rows_as_are_stated(spark_session):
    prices = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, 60)))
    frame = spark_session.createDataFrame(
        [((n + 1) * HOUR, float(p)) for n, p in enumerate(prices)], "timestamp bigint, price float"
    )
    grid = Grid(HOUR, 6)
    span = span_of(HOUR, 60 * HOUR, grid=grid)
    points = from_prices(frame, grid=grid, windows=WINDOWS, span=span)
    found = points.orderBy("timestamp").toPandas()
    kinds = ("float64", "float32", "int32")
    names = [field.name for field in indicator_table(WINDOWS).fields if field.kind in kinds]
    stated = {name: rows_before(name, windows=WINDOWS) for name in names}
    assert stated == {name: int(found[name].first_valid_index()) for name in names}


def test_a_first_target_needs_the_slowest_feature_the_window_and_the_horizon():
    # A return from the second price on, 60 of them, and the price 2 hours later: 62 before it.
    features = DEFAULT_FEATURES["log_return"]
    assert rows_needed(features, windows=WINDOWS, look_back=60, horizon=2) == 62
    features = ["price", "volatility_40"]
    assert rows_needed(features, windows=WINDOWS, look_back=5, horizon=1) == 45
