"""From what a network says to prices."""

from __future__ import annotations

import math
import os
import signal
import threading
import time

import numpy as np
import pytest

from bitstorm.errors import BrokenOff, ModelError
from bitstorm.model import forecast
from bitstorm.model.framing import Batch
from bitstorm.model.scaling import Scale, Scaler

RETURNS = Scaler({"log_return": Scale(0.0, 0.01)}, Scale(0.0, 0.02))
PRICES = Scaler({"price": Scale(100.0, 50.0)}, Scale(100.0, 50.0))


class Batches:
    """A feed of two batches whose windows hold what the network shall say, newest first."""

    def __init__(self, said: list[float]) -> None:
        self.said = said

    def batches(self, *, batch_size):
        first = 1_732_000_123_457
        for part in (slice(2, None), slice(0, 2)):
            said = np.array(self.said, np.float32)[part]
            place = np.arange(len(self.said))[part]
            yield Batch(
                window=said.reshape(-1, 1, 1),
                target=np.full(len(said), np.nan, np.float32),
                price=(100 + place).astype(np.float32),
                target_timestamp=first + place,
                target_price=(200 + place).astype(np.float32),
            )


def echo(window, training):
    assert training is False
    return window[:, 0, :]


def test_a_return_is_applied_to_the_price_at_the_windows_end():
    found = forecast.predict(
        echo, Batches([0.0, 1.0, -0.5]), scaler=RETURNS, target="log_return", deadline_seconds=5
    )
    assert found["timestamp"].tolist() == [1_732_000_123_457 + i for i in range(3)]
    assert found["origin"].tolist() == [100.0, 101.0, 102.0]
    assert found["actual"].tolist() == [200.0, 201.0, 202.0]
    expected = [100.0, 101 * math.exp(0.02), 102 * math.exp(-0.01)]
    assert found["forecast"].tolist() == pytest.approx(expected, rel=1e-14)
    assert {str(dtype) for dtype in found.dtypes} == {"int64", "float64"}


def test_a_scaled_price_becomes_a_price_and_never_one_below_zero():
    found = forecast.predict(
        echo, Batches([0.5, 2.0, -3.0]), scaler=PRICES, target="price", deadline_seconds=5
    )
    assert found["forecast"].tolist() == pytest.approx([125.0, 200.0, 0.102])


def test_one_window_is_forecast_as_in_a_batch():
    window = np.array([[0.25]])
    by_return = forecast.predict_one(
        echo, window, origin=1000.0, scaler=RETURNS, target="log_return"
    )
    by_price = forecast.predict_one(echo, window, origin=1000.0, scaler=PRICES, target="price")
    assert by_return == pytest.approx(1000 * math.exp(0.005), rel=1e-14)
    assert by_price == pytest.approx(112.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("target", ["log_return", "price"])
def test_a_network_that_gives_no_number_is_refused(bad, target):
    scaler = RETURNS if target == "log_return" else PRICES
    with pytest.raises(ModelError, match="no finite number for 1 of 2 windows"):
        forecast.predict(
            echo, Batches([0.1, bad, 0.1]), scaler=scaler, target=target, deadline_seconds=5
        )


class Hanging(Batches):
    """One batch, and then none for as long as the test lasts, as petastorm's readers can."""

    def __init__(self) -> None:
        super().__init__([0.1, 0.2, 0.3])
        self.over = threading.Event()

    def batches(self, *, batch_size):
        yield next(super().batches(batch_size=batch_size))
        self.over.wait(30)


def test_a_feed_that_stands_still_ends_the_forecast_after_the_deadline():
    feed = Hanging()
    began = time.monotonic()
    with pytest.raises(BrokenOff, match=r"broke off \(no batch came for 0.5 s.*run `bitstorm fore"):
        forecast.predict(echo, feed, scaler=RETURNS, target="log_return", deadline_seconds=0.5)
    feed.over.set()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_forecast_at_once_though_its_feed_hangs(number):
    feed = Hanging()
    threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
    began = time.monotonic()
    with pytest.raises(BrokenOff, match=f"stopped by {number.name}"):
        forecast.predict(echo, feed, scaler=RETURNS, target="log_return", deadline_seconds=20)
    feed.over.set()
    assert time.monotonic() - began < 5


def test_a_feed_that_fails_ends_the_forecast_with_its_cause():
    class Failing(Batches):
        def batches(self, *, batch_size):
            yield next(super().batches(batch_size=batch_size))
            raise ModelError("2 of 3 files are gone")

    with pytest.raises(BrokenOff, match="2 of 3 files are gone"):
        forecast.predict(
            echo, Failing([0.1] * 3), scaler=RETURNS, target="log_return", deadline_seconds=5
        )
