"""Scales, fitted block by block, against numpy over the whole series."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.core.errors import DataError
from bitstorm.model import blocks, scaling
from bitstorm.model.scaling import Scale, Scaler, Spread
from model import blocked

numbers = st.floats(-1e6, 1e6)


@given(numbers, st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_back_undoes_forward(value, shift, scale):
    found = Scale(shift, scale)
    assert found.back(found.forward(value)) == pytest.approx(value, rel=1e-9, abs=1e-9)


def test_a_scaler_survives_its_record():
    scaler = Scaler({"price": Scale(0.1, 3.7), "rsi_14": Scale(50.0, 1e-9)}, Scale(0.0, 0.0044))
    assert Scaler.from_json(json.loads(json.dumps(scaler.to_json()))) == scaler


@given(st.lists(st.lists(numbers, max_size=6), max_size=6))
def test_a_spread_of_pieces_is_that_of_the_whole(pieces):
    spread = Spread()
    for piece in pieces:
        spread = spread.with_more(np.array(piece))
    whole = np.array([number for piece in pieces for number in piece])
    assert spread.count == len(whole)
    if len(whole):
        assert (spread.least, spread.most) == (whole.min(), whole.max())
        assert spread.mean == pytest.approx(whole.mean(), rel=1e-9, abs=1e-6)
        assert spread.squares / len(whole) == pytest.approx(whole.var(), rel=1e-9, abs=1e-3)


COUNT, HOLE = 60, 25


def fitted(*, target, horizon=1, last=COUNT, price=None, features=("log_return", "rsi")):
    """A scaler over 60 points with one hole, one imputed price, and `rsi` from the eighth on."""
    frame = blocked.frame_of(look_back=3, horizon=horizon, features=features, target=target, size=8)
    random = np.random.default_rng(4)
    whole = random.uniform(1e4, 1e5, COUNT).astype(np.float32) if price is None else price
    rsi = random.uniform(0, 100, COUNT)
    rsi[:7] = np.nan
    imputed = np.arange(COUNT) == 40
    there = np.arange(COUNT) != HOLE
    piece = {"index": np.arange(COUNT), "price": whole, "imputed": imputed, "rsi": rsi}
    points = {name: values[there] for name, values in piece.items()}
    columns = blocks.from_points([points], frame)
    return scaling.fit(frame, columns, last=last), whole.astype(np.float64), rsi


@pytest.mark.parametrize(("horizon", "last"), [(1, COUNT), (3, 45)])
def test_returns_are_scaled_by_their_own_part_alone(horizon, last):
    scaler, price, rsi = fitted(target="log_return", horizon=horizon, last=last)
    known = [n for n in range(1, last + 1) if n < COUNT and not {n, n - 1} & {HOLE}]
    returns = np.array([np.log(price[n] / price[n - 1]) for n in known])
    assert scaler.features["log_return"].shift == pytest.approx(returns.mean(), rel=1e-12)
    assert scaler.features["log_return"].scale == pytest.approx(returns.std(), rel=1e-12)
    seen = [rsi[n] for n in range(7, min(last + 1, COUNT)) if n != HOLE]
    assert scaler.features["rsi"].shift == pytest.approx(np.mean(seen), rel=1e-12)
    assert scaler.features["rsi"].scale == pytest.approx(np.std(seen), rel=1e-12)
    # The target is that of points, not of whole windows; an imputed price is none.
    ahead = [
        np.log(price[n + horizon] / price[n])
        for n in range(COUNT - horizon)
        if n + horizon <= last and n + horizon != 40 and not n <= HOLE <= n + horizon
    ]
    assert scaler.target.shift == 0.0
    assert scaler.target.scale == pytest.approx(np.sqrt(np.mean(np.square(ahead))), rel=1e-12)


def test_prices_are_scaled_by_their_range_in_double():
    price = np.linspace(0.1, 1e5, COUNT).astype(np.float32)
    scaler, exact, _ = fitted(target="price", price=price, features=("price",))
    assert scaler.features["price"] == Scale(exact[0], exact[-1] - exact[0])
    assert scaler.features["price"].scale != float(price[-1] - price[0])
    # The first point is no target, and the one after the hole follows no other.
    assert scaler.target == Scale(exact[1], exact[-1] - exact[1])


def test_a_column_that_cannot_be_learnt_from_is_named():
    still = np.full(COUNT, 7.3, np.float32)
    with pytest.raises(DataError, match=r"price is 7\.3 at all 59 points that have a value"):
        fitted(target="price", price=still, features=("price",))
    with pytest.raises(DataError, match="log_return is 0 at all 57 points"):
        fitted(target="log_return", price=still)
    with pytest.raises(DataError, match="rsi has no value at any of 7 points in the training part"):
        fitted(target="log_return", last=6)
