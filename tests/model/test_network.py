"""The network of the contract, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def built(**wanted):
    from bitstorm.model import network

    usual = {"look_back": 60, "features": 1, "units": 50, "dropout": 0.2, "learning_rate": 0.001}
    return network.build(**{**usual, **wanted})


def test_the_layers_are_those_of_the_contract_in_its_order():
    network = built()
    kinds = [type(layer).__name__ for layer in network.layers]
    assert kinds == ["LSTM", "Dropout", "LSTM", "Dropout", "Dense"]
    first, drop, second, drop_again, last = network.layers
    assert (first.units, first.return_sequences) == (50, True)
    assert (second.units, second.return_sequences) == (50, False)
    assert (drop.rate, drop_again.rate) == (0.2, 0.2)
    assert (last.units, last.activation.__name__) == (1, "linear")
    assert (network.input_shape, network.output_shape) == ((None, 60, 1), (None, 1))
    assert network.loss == "mse"
    assert type(network.optimizer).__name__ == "Adam"
    assert float(network.optimizer.learning_rate) == pytest.approx(0.001)


@pytest.mark.parametrize(("features", "units"), [(1, 50), (3, 50), (2, 7)])
def test_the_parameters_are_as_many_as_the_equations_have(features, units):
    # Four gates, each with a weight for every input and every cell, and a bias.
    first = 4 * units * (features + units + 1)
    second = 4 * units * (units + units + 1)
    assert built(features=features, units=units).count_params() == first + second + units + 1


def test_the_standard_network_has_30651_parameters():
    # LSTM(50) on one feature: 4 * (50 * (1 + 50) + 50) = 10,400; on fifty: 20,200; Dense: 51.
    assert built().count_params() == 30_651


def test_dropout_works_while_training_only():
    import keras

    keras.utils.set_random_seed(1)
    network = built(look_back=4, units=8, dropout=0.5)
    window = np.random.default_rng(1).normal(size=(3, 4, 1)).astype(np.float32)
    still = [np.asarray(network(window, training=False)) for _ in range(2)]
    moving = [np.asarray(network(window, training=True)) for _ in range(2)]
    assert np.array_equal(still[0], still[1])
    assert not np.array_equal(moving[0], moving[1])
