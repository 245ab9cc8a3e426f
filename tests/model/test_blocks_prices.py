"""The observed prices of a snapshot on its grid."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest

from bitstorm.core.schema import PRICES, Field, Table
from bitstorm.model import blocks
from bitstorm.store.publish import Change
from bitstorm.store.seal import arrow_schema
from faults.publishing import FEBRUARY, HOUR, by_month, publish, put

POINTS = Table(
    "Points", (*PRICES.fields[:2], Field("imputed", "bool", "", False), PRICES.field("month"))
)
LATE = FEBRUARY - 2 * HOUR
# By hour after LATE: price, imputed; hours 3 and 4 are a cut.
ROWS = {0: (1.0, False), 1: (2.0, False), 2: (2.0, True), 5: (6.0, False), 6: (7.5, False)}


@pytest.mark.parametrize(
    ("after", "first", "prices"),
    [
        (-99 * HOUR, 0, [1.0, 2.0, math.nan, math.nan, math.nan, 6.0, 7.5]),
        (HOUR, 2, [math.nan, math.nan, math.nan, 6.0, 7.5]),
        (HOUR + 1, 2, [math.nan, math.nan, math.nan, 6.0, 7.5]),
        (HOUR - 1, 1, [2.0, math.nan, math.nan, math.nan, 6.0, 7.5]),
        (6 * HOUR, 7, []),
        (9 * HOUR, 10, []),
    ],
)
def test_prices_stand_at_their_places_on_the_grid(tmp_path, after, first, prices):
    def write(draft):
        for month, times in by_month(LATE + hour * HOUR for hour in ROWS).items():
            values = [ROWS[(time - LATE) // HOUR] for time in times]
            price, imputed = zip(*values, strict=True)
            columns = {"timestamp": times, "price": price, "imputed": imputed}
            put(draft.folder, month, pa.table(columns, schema=arrow_schema(POINTS)))
        return Change(frozenset({"2021-01", "2021-02"}), details={"frequency": "1h"})

    snapshot = publish(tmp_path, write, table=POINTS)
    found, series = blocks.observed_prices(snapshot, after_ms=LATE + after)
    assert found == LATE + first * HOUR
    assert series.tolist() == pytest.approx(prices, nan_ok=True)
