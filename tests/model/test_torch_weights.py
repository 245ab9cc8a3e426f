"""The change of layout, number by number."""

from __future__ import annotations

import numpy as np
import pytest

from bitstorm.errors import ModelError
from bitstorm.model import torch_weights

FEATURES, UNITS = 2, 3


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    """Every number another, so that none can be taken for a neighbour."""
    drawn = np.random.default_rng(5)
    return {
        name: drawn.normal(size=shape).astype(np.float32)
        for name, shape in torch_weights.shapes(features=FEATURES, units=UNITS).items()
    }


def test_every_gate_of_every_cell_keeps_its_weights(weights):
    turned = torch_weights.to_torch(weights)
    for layer, inputs in (("lstm", FEATURES), ("lstm_1", UNITS)):
        for gate in range(4):
            for cell in range(UNITS):
                row = gate * UNITS + cell
                for i in range(inputs):
                    kernel = weights[f"{layer}/kernel"]
                    assert turned[f"{layer}.weight_ih_l0"][row, i] == kernel[i, row]
                for i in range(UNITS):
                    kernel = weights[f"{layer}/recurrent_kernel"]
                    assert turned[f"{layer}.weight_hh_l0"][row, i] == kernel[i, row]
                assert turned[f"{layer}.bias_ih_l0"][row] == weights[f"{layer}/bias"][row]
                assert turned[f"{layer}.bias_hh_l0"][row] == 0
    assert turned["dense.weight"].tolist() == [weights["dense/kernel"][:, 0].tolist()]
    assert turned["dense.bias"].tolist() == weights["dense/bias"].tolist()


def test_there_and_back_is_exact_in_both_directions(weights):
    turned = torch_weights.to_torch(weights)
    back = torch_weights.from_torch(turned)
    assert list(back) == list(weights)
    for name, value in weights.items():
        assert back[name].dtype == np.float32
        assert np.array_equal(back[name], value), name
    again = torch_weights.to_torch(back)
    assert again.keys() == turned.keys()
    assert all(np.array_equal(again[name], turned[name]) for name in turned)


def test_two_biases_become_the_one_that_does_the_same(weights):
    turned = torch_weights.to_torch(weights)
    turned["lstm.bias_hh_l0"] = np.arange(4 * UNITS, dtype=np.float32)
    back = torch_weights.from_torch(turned)
    expected = weights["lstm/bias"] + np.arange(4 * UNITS, dtype=np.float32)
    assert np.array_equal(back["lstm/bias"], expected)


def test_what_is_converted_does_not_share_memory(weights):
    turned = torch_weights.to_torch(weights)
    for value in turned.values():
        assert value.flags.c_contiguous
        assert not any(np.shares_memory(value, original) for original in weights.values())


def test_weights_of_another_network_are_refused_by_name_and_shape(weights):
    expected = torch_weights.shapes(features=FEATURES, units=UNITS)
    torch_weights.check(weights, expected)
    with pytest.raises(ModelError, match=r"lstm/kernel is \(1, 12\), expected \(2, 12\)"):
        torch_weights.check({**weights, "lstm/kernel": np.zeros((1, 12))}, expected)
    with pytest.raises(ModelError, match=r"extra is \(\), expected none"):
        torch_weights.check({**weights, "extra": np.zeros(())}, expected)
    del weights["dense/bias"]
    with pytest.raises(ModelError, match=r"dense/bias is not there, expected \(1,\)"):
        torch_weights.check(weights, expected)
