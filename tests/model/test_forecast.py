"""From what a network says to prices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitstorm.core.errors import ModelError
from bitstorm.model import forecast
from bitstorm.model.scaling import Scale, Scaler
from bitstorm.model.windowing import Windows

RETURNS = Scaler({"log_return": Scale(0.0, 0.01)}, Scale(0.0, 0.02))
PRICES = Scaler({"price": Scale(100.0, 50.0)}, Scale(100.0, 50.0))


def groups(said: list[float]):
    """Two groups whose windows, of one point, hold what the network shall say; newest first."""
    first = 1_732_000_123_457
    for part in (slice(2, None), slice(0, 2)):
        values = np.array(said, np.float32)[part]
        place = np.arange(len(said))[part]
        yield Windows(
            values[:, None],
            starts=np.arange(len(values), dtype=np.int32),
            target=np.full(len(values), np.nan, np.float32),
            price=(100 + place).astype(np.float32),
            target_timestamp=first + place,
            target_price=(200 + place).astype(np.float32),
        )


def predicted(said: list[float], scaler, target):
    return forecast.predict(echo, groups(said), look_back=1, scaler=scaler, target=target)


def echo(window, training):
    assert training is False
    return window[:, 0, :]


def test_a_return_is_applied_to_the_price_at_the_windows_end():
    found = predicted([0.0, 1.0, -0.5], RETURNS, "log_return")
    assert found["timestamp"].tolist() == [1_732_000_123_457 + i for i in range(3)]
    assert found["origin"].tolist() == [100.0, 101.0, 102.0]
    assert found["actual"].tolist() == [200.0, 201.0, 202.0]
    expected = [100.0, 101 * math.exp(0.02), 102 * math.exp(-0.01)]
    assert found["forecast"].tolist() == pytest.approx(expected, rel=1e-14)
    assert {str(dtype) for dtype in found.dtypes} == {"int64", "float64"}


def test_the_network_is_always_given_as_many_windows_at_once():
    sizes = []

    def noting(window, training):
        sizes.append(len(window))
        return echo(window, training)

    for count in (1, 256, 300):
        said = [n / 512 for n in range(count)]
        windows = groups(said)
        found = forecast.predict(noting, windows, look_back=1, scaler=PRICES, target="price")
        assert found["forecast"].tolist() == [100 + 50 * value for value in said]
    assert sizes == [256, 256, 256, 256]


def test_a_scaled_price_becomes_a_price_and_never_one_below_zero():
    found = predicted([0.5, 2.0, -3.0], PRICES, "price")
    assert found["forecast"].tolist() == pytest.approx([125.0, 200.0, 0.102])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("target", ["log_return", "price"])
def test_a_network_that_gives_no_number_is_refused(bad, target):
    scaler = RETURNS if target == "log_return" else PRICES
    with pytest.raises(ModelError, match="not a finite number for 1 of 3 windows"):
        predicted([0.1, bad, 0.1], scaler, target)


def test_no_window_is_an_empty_table():
    assert predicted([], RETURNS, "log_return").empty
