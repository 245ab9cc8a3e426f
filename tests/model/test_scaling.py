"""Scales, fitted by Spark, against numpy and hand calculation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.errors import DataError
from bitstorm.model import scaling
from bitstorm.model.scaling import Scale, Scaler

numbers = st.floats(-1e6, 1e6)


@given(numbers, st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_back_undoes_forward(value, shift, scale):
    found = Scale(shift, scale)
    assert found.back(found.forward(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_a_scaler_survives_its_record():
    scaler = Scaler({"price": Scale(0.1, 3.7), "rsi_14": Scale(50.0, 1e-9)}, Scale(0.0, 0.0044))
    assert Scaler.from_json(json.loads(json.dumps(scaler.to_json()))) == scaler


@pytest.fixture
def rows(spark_session):
    random = np.random.default_rng(4)
    price = random.uniform(1e4, 1e5, 300).astype(np.float32)
    change = random.normal(0.001, 0.01, 300)
    known = [None if i < 7 else float(c) for i, c in enumerate(change)]
    trend = random.integers(-1, 2, 300)
    frame = spark_session.createDataFrame(
        list(zip(map(float, price), known, map(int, trend), strict=True)),
        "price float, change double, trend int",
    )
    return frame, price.astype(np.float64), change[7:], trend


@pytest.mark.slow
def test_each_method_fits_what_it_says_and_leaves_nulls_out(rows):
    frame, price, change, trend = rows
    standard = scaling.fit(frame, ["price", "change", "trend"], method="standard")
    for name, values in (("price", price), ("change", change), ("trend", trend)):
        assert standard[name].shift == pytest.approx(values.mean(), rel=1e-12)
        assert standard[name].scale == pytest.approx(values.std(), rel=1e-10)
    assert scaling.fit(frame, ["change"], method="min_max") == {
        "change": Scale(change.min(), change.max() - change.min())
    }
    deviation = scaling.fit(frame, ["change"], method="deviation")["change"]
    assert deviation.shift == 0.0
    assert deviation.scale == pytest.approx(np.sqrt(np.mean(change**2)), rel=1e-12)


@pytest.mark.slow
def test_the_range_of_a_float_column_is_not_rounded_to_a_float(spark_session):
    low, high = float(np.float32(0.1)), 100_000.0
    frame = spark_session.createDataFrame([(low,), (high,)], "price float")
    found = scaling.fit(frame, ["price"], method="min_max")["price"]
    assert found == Scale(low, high - low)
    assert found.scale != float(np.float32(high - low))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["standard", "min_max"])
def test_a_column_that_cannot_be_learnt_from_is_named(spark_session, method):
    frame = spark_session.createDataFrame(
        [(7.3, 1.0, None), (7.3, 2.0, None), (7.3, 4.0, None)],
        "still double, moving double, empty double",
    )
    with pytest.raises(DataError, match=r"still is 7\.3 at all 3 points that have one"):
        scaling.fit(frame, ["moving", "still"], method=method)
    with pytest.raises(
        DataError, match="empty has no value at any of 3 points in the training part"
    ):
        scaling.fit(frame, ["empty"], method=method)


@pytest.mark.slow
def test_returns_that_are_all_zero_are_refused(spark_session):
    frame = spark_session.createDataFrame([(0.0,)] * 3, "target double")
    with pytest.raises(DataError, match="target is 0 at all 3 points"):
        scaling.fit(frame, ["target"], method="deviation")
