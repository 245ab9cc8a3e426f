"""One definition of each table; every other form says the same."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import types as t

from bitstorm.core.schema import PRICES, indicator_table, spark_type
from bitstorm.indicators.compute import from_prices, span_of
from bitstorm.indicators.kernel import Grid
from bitstorm.store.petastorm_io import BitcoinSchema, unischema

HOUR = 3_600_000
WINDOWS = [3, 40]


def test_bitcoin_schema_is_the_contracts():
    fields = {name: (f.numpy_dtype, f.nullable) for name, f in BitcoinSchema.fields.items()}
    assert fields == {
        "timestamp": (np.int64, False),
        "price": (np.float32, False),
        "market_cap": (np.float64, True),
        "volume_24h": (np.float64, True),
        "price_change_24h": (np.float32, True),
        "month": (np.str_, False),
    }
    kinds = {field.name: spark_type(field.kind) for field in PRICES.fields}
    assert kinds == {
        "timestamp": t.LongType(),
        "price": t.FloatType(),
        "market_cap": t.DoubleType(),
        "volume_24h": t.DoubleType(),
        "price_change_24h": t.FloatType(),
        "month": t.StringType(),
    }


def test_the_indicator_schema_follows_the_windows():
    # docs/reference/schemas.md has the columns of the default windows, and a test holds it equal.
    table, others = indicator_table([3, 9]), indicator_table([5]).names
    assert table.names[:3] == ["timestamp", "price", "imputed"] and table.names[-1] == "month"
    of_width = [name for name in table.names if name not in others]
    assert of_width == ["ma_3", "ma_9", "volatility_3", "volatility_9", "ema_3", "ema_9"]
    kinds = {name: f.numpy_dtype for name, f in unischema(table).fields.items()}
    assert (kinds["imputed"], kinds["trend"], kinds["ma_3"]) == (np.bool_, np.int32, np.float64)


@pytest.mark.slow
def test_every_column_begins_after_the_stated_number_of_rows(spark_session):
    prices = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, 60)))
    frame = spark_session.createDataFrame(
        [((n + 1) * HOUR, float(p)) for n, p in enumerate(prices)], "timestamp bigint, price float"
    )
    grid = Grid(HOUR, 6)
    span = span_of(HOUR, 60 * HOUR, grid=grid)
    points = from_prices(frame, grid=grid, windows=WINDOWS, span=span)
    found = points.orderBy("timestamp").toPandas()
    kinds = ("float64", "float32", "int32")
    fields = [field for field in indicator_table(WINDOWS).fields if field.kind in kinds]
    stated = {field.name: field.rows_before for field in fields}
    computed = {name: int(found[name].first_valid_index()) for name in stated}
    assert stated == computed, "correct the rows before the first value in indicator_table"
