"""Forecasts of several steps from one network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bitstorm.core.errors import ModelError
from bitstorm.model import forecast, network, torch_backend
from bitstorm.model.scaling import Scale, Scaler
from bitstorm.model.windowing import Windows, WindowSpec

HOUR = 3_600_000
FIRST = 1_732_000_000_000 // HOUR * HOUR
RETURN, PRICE, RSI = Scale(0.001, 0.02), Scale(90.0, 40.0), Scale(50.0, 10.0)


def spec_of(features, *, target="log_return", horizon=1, look_back=2):
    return WindowSpec(look_back, horizon, features, target, HOUR)


def scaler_of(features, target="log_return"):
    known = {"log_return": RETURN, "price": PRICE, "rsi_14": RSI}
    return Scaler(
        {name: known[name] for name in features},
        Scale(0.0, 0.03) if target == "log_return" else PRICE,
    )


def windows(values, spec, *, price=None):
    """All windows of a series of scaled points, float32 (points, features)."""
    values = np.asarray(values, np.float32)
    starts = np.arange(len(values) - spec.look_back + 1, dtype=np.int32)
    prices = np.full(len(starts), 100.0, np.float32) if price is None else price
    none = np.full(len(starts), np.nan, np.float32)
    ends = FIRST + starts.astype(np.int64) * HOUR
    return Windows(values, starts, none, prices, ends + spec.horizon * HOUR, none)


def linear(window, training):
    """0.5 · the newest value - 0.25 · the oldest one, of the first feature."""
    assert training is False
    return (0.5 * window[:, -1, 0] - 0.25 * window[:, 0, 0])[:, None]


def steps_of(groups, spec, steps, scaler, by=linear):
    return forecast.predict_steps(by, groups, spec=spec, scaler=scaler, steps=steps)


def test_returns_are_appended_to_the_window():
    spec = spec_of(("log_return",))
    time, origin, found = steps_of(
        [windows([[0.5], [1.0], [-2.0]], spec)], spec, 4, scaler_of(spec.features)
    )
    assert (time.dtype, origin.dtype, found.dtype) == (np.int64, np.float64, np.float64)
    assert time.tolist() == [FIRST, FIRST + HOUR]
    assert origin.tolist() == [100.0, 100.0]
    for row, (old, new) in zip(found, [(0.5, 1.0), (1.0, -2.0)], strict=True):
        total = 0.0
        for value in row:
            output = float(np.float32(0.5) * np.float32(new) - np.float32(0.25) * np.float32(old))
            total += output * 0.03
            assert value == pytest.approx(total, rel=1e-15)
            old, new = new, float(np.float32((output * 0.03 - 0.001) / 0.02))


def test_prices_and_returns_are_appended_in_their_scales():
    spec = spec_of(("price", "log_return"), target="price", look_back=1)
    seen = []

    def noting(window, training):
        seen.append(window[0, -1].tolist())
        return window[:, -1, :1] + np.float32(0.1)

    groups = [windows([[0.25, 0.0]], spec)]
    _, _, found = steps_of(groups, spec, 3, scaler_of(spec.features, "price"), noting)
    # (100 - 90) / 40 = 0.25, and each step adds 0.1 · 40 = 4 USD.
    assert found[0].tolist() == pytest.approx(
        [math.log(p / 100) for p in (104, 108, 112)], rel=1e-7
    )
    expected = [
        (0.35, (math.log(1.04) - 0.001) / 0.02),
        (0.45, (math.log(108 / 104) - 0.001) / 0.02),
    ]
    assert np.allclose(seen, [(0.25, 0.0), *expected], rtol=1e-6)


@pytest.mark.parametrize(
    ("features", "horizon", "expected"),
    [
        (("log_return",), 3, [0, 0, 1, 1, 1]),
        (("log_return",), 6, [0, 0, 0, 0, 0]),
        (("log_return", "rsi_14"), 1, [1, 1, 1, 1, 1]),
    ],
)
def test_the_price_stays_where_the_network_knows_nothing(features, horizon, expected):
    spec = spec_of(features, horizon=horizon)
    groups = [windows([[1.0] * len(features)] * 2, spec)]
    _, _, found = steps_of(groups, spec, 5, scaler_of(features))
    assert found.tolist() == [[0.25 * 0.03 * known for known in expected]]


@pytest.mark.parametrize("target", ["log_return", "price"])
def test_the_networks_own_step_has_the_bits_of_predict(target):
    spec, random = spec_of(("log_return",), target=target), np.random.default_rng(5)
    price = random.uniform(50, 150, 299).astype(np.float32)
    group = windows(random.normal(size=(300, 1)), spec, price=price)
    scaler = scaler_of(spec.features, target)
    known = forecast.predict(linear, [group], look_back=2, scaler=scaler, target=target)
    time, origin, found = steps_of([group], spec, 3, scaler)
    assert time.tolist() == (known["timestamp"] - HOUR).tolist()
    assert origin.tolist() == known["origin"].tolist()
    if target == "log_return":
        assert (origin * np.exp(found[:, 0])).tolist() == known["forecast"].tolist()
    else:
        assert found[:, 0].tolist() == np.log(known["forecast"] / origin).tolist()


def test_groups_are_put_in_the_order_of_time():
    spec = spec_of(("log_return",))
    group = windows([[0.5], [1.0], [-2.0], [3.0]], spec)
    whole = steps_of([group], spec, 3, scaler_of(spec.features))
    parts = [group.select(slice(2, None)), group.select(slice(0, 2))]
    for one, other in zip(whole, steps_of(parts, spec, 3, scaler_of(spec.features)), strict=True):
        assert one.tolist() == other.tolist()


def test_no_window_is_no_forecast():
    spec = spec_of(("log_return",))
    found = steps_of([], spec, 3, scaler_of(spec.features))
    assert [a.shape for a in found] == [(0,), (0,), (0, 3)]


def test_a_network_that_gives_no_number_is_refused():
    spec = spec_of(("log_return",))
    groups = [windows([[1.0], [math.nan]], spec)]
    with pytest.raises(ModelError, match="not a finite number for 1 of 1 windows"):
        steps_of(groups, spec, 3, scaler_of(spec.features))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_forecast_does_not_depend_on_the_number_of_windows(backend):
    shape: dict[str, Any] = {
        "look_back": 6,
        "features": 1,
        "units": 5,
        "dropout": 0.2,
        "learning_rate": 0.01,
    }
    if backend == "torch":
        pytest.importorskip("torch", reason="needs the extra torch")
        built = torch_backend.seeded(**shape, seed=3)

        def called(window, training):
            return built.predict(window)[:, None]
    else:
        called = network.seeded(**shape, seed=3)
    spec, scaler = spec_of(("log_return",), look_back=6), scaler_of(("log_return",))
    group = windows(np.random.default_rng(8).normal(size=(305, 1)), spec)
    _, _, whole = steps_of([group], spec, 5, scaler, called)
    for place in (0, 255, 256, 299):
        _, _, alone = steps_of([group.select([place])], spec, 5, scaler, called)
        assert alone.tobytes() == whole[place].tobytes()
    # A call of the network, without the compiled method, has the same bits.
    eager = np.zeros((256, 6, 1), np.float32)
    eager[:] = group.to_batch(6, slice(0, 256)).window
    outputs = np.asarray(called(eager, training=False))[:, 0].astype(np.float64)
    assert (outputs * 0.03).tobytes() == whole[:256, 0].tobytes()
