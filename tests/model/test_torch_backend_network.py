"""The PyTorch network beside Keras' and beside the equations, and its exact continuation."""

from __future__ import annotations

import io

import numpy as np
import pytest

from bitstorm.core.errors import ModelError
from bitstorm.model.torch_backend import from_torch, to_torch

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (scripts/setup --torch): its backend is not tested"
)

pytestmark = pytest.mark.slow

LOOK_BACK, FEATURES, UNITS = 12, 2, 8


def learner(**wanted):
    from bitstorm.model import torch_backend

    usual = {"look_back": LOOK_BACK, "features": FEATURES, "units": UNITS, "dropout": 0.0}
    return torch_backend.seeded(**{**usual, "learning_rate": 0.01, "seed": 3, **wanted})


def stepped(network, given) -> list[float]:
    """The loss of a step on each batch."""
    with network.in_training():
        return [network.step(window, target) for window, target in given]


def batches(count: int, *, size: int = 32, seed: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    drawn = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        window = drawn.normal(size=(size, LOOK_BACK, FEATURES)).astype(np.float32)
        target = (window[:, -1, 0] * window[:, -2, 1] + window.mean((1, 2))).astype(np.float32)
        found.append((window, target))
    return found


def by_the_equations(weights, window: np.ndarray) -> np.ndarray:
    """Two LSTM layers and a dense one in double, cell by cell from Hochreiter and Schmidhuber's
    equations with a forget gate: c' = f·c + i·g, h' = o·tanh(c')."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    series = window.astype(np.float64)
    for layer in ("lstm", "lstm_1"):
        units = len(weights[f"{layer}/bias"]) // 4
        h = c = np.zeros((len(series), units))
        outputs = []
        for step in range(series.shape[1]):
            z = series[:, step] @ weights[f"{layer}/kernel"]
            z = z + h @ weights[f"{layer}/recurrent_kernel"] + weights[f"{layer}/bias"]
            i, f, g, o = (z[:, k * units : (k + 1) * units] for k in range(4))
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        series = np.stack(outputs, axis=1)
    return (series[:, -1] @ weights["dense/kernel"] + weights["dense/bias"])[:, 0]


def by_keras(weights, *, learning_rate: float):
    """The network of `network.build` with these weights."""
    from bitstorm.model import network

    built = network.build(
        look_back=LOOK_BACK,
        features=FEATURES,
        units=UNITS,
        dropout=0.0,
        learning_rate=learning_rate,
    )
    built.set_weights(list(weights.values()))
    return built


def test_the_module_has_the_contract_s_layers_and_parameters():
    from torch import nn

    module = learner(look_back=60, features=1, units=50, dropout=0.2).module
    kinds = [type(layer) for layer in module.children()]
    assert kinds == [nn.LSTM, nn.Dropout, nn.LSTM, nn.Dropout, nn.Linear]
    assert (module.dropout.p, module.dropout_1.p) == (0.2, 0.2)
    # As the Keras network counts: 10,400 + 20,200 + 51. PyTorch's second biases don't learn.
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 30_651


def test_predictions_follow_the_equations_and_agree_with_keras():
    network = learner()
    ((window, _),) = batches(1, size=64)
    found = network.predict(window)
    assert (found.dtype, found.shape) == (np.float32, (64,))
    assert np.ptp(found) > 0.01
    weights = network.weights()
    assert found == pytest.approx(by_the_equations(weights, window), abs=1e-6)
    keras = by_keras(weights, learning_rate=0.01)
    assert found == pytest.approx(np.asarray(keras(window))[:, 0], abs=1e-5)


def test_keras_weights_come_over_and_go_back():
    from bitstorm.model import network

    keras = network.build(
        look_back=LOOK_BACK, features=FEATURES, units=UNITS, dropout=0.0, learning_rate=0.01
    )
    ours = learner()
    theirs = dict(zip(ours.weights(), keras.get_weights(), strict=True))
    ours.set_weights(theirs)
    ((window, _),) = batches(1)
    assert ours.predict(window) == pytest.approx(np.asarray(keras(window))[:, 0], abs=1e-5)
    for name, value in ours.weights().items():
        assert np.array_equal(value, theirs[name]), name


def test_training_takes_the_steps_that_keras_takes():
    ours = learner(learning_rate=0.01)
    keras = by_keras(ours.weights(), learning_rate=0.01)
    ((look, _),) = batches(1, seed=9)
    for step, (window, target) in enumerate(batches(8)):
        (loss,) = stepped(ours, [(window, target)])
        expected = float(keras.train_on_batch(window, target))
        assert loss == pytest.approx(expected, abs=1e-5), step
        assert ours.predict(look) == pytest.approx(np.asarray(keras(look))[:, 0], abs=1e-5), step
    ours_now = ours.weights()
    for name, value in zip(ours_now, keras.get_weights(), strict=True):
        assert ours_now[name] == pytest.approx(value, abs=1e-5), name


def test_tiny_gradients_take_keras_steps_too():
    """Where the epsilon is as large as the gradients, its place in the formula decides."""
    ours = learner(learning_rate=0.01)
    keras = by_keras(ours.weights(), learning_rate=0.01)
    ((window, _),) = batches(1)
    # All but right: the bias' gradient is 2e-5, its first √v 6e-7. Keras' ε of 1e-7 takes a seventh
    # off the step there, which PyTorch's own place for it would not.
    target = ours.predict(window) + np.float32(1e-5)
    before = ours.weights()["dense/bias"]
    stepped(ours, [(window, target)])
    keras.train_on_batch(window, target)
    step = ours.weights()["dense/bias"] - before
    assert step == pytest.approx(keras.get_weights()[-1] - before, abs=1e-4)
    assert step == pytest.approx([0.0086], abs=2e-4)


def test_the_loss_is_the_mean_squared_error_before_the_step():
    network = learner()
    ((window, target),) = batches(1)
    before = network.predict(window).astype(np.float64)
    (loss,) = stepped(network, [(window, target)])
    assert loss == pytest.approx(np.mean((before - target) ** 2), rel=1e-6)
    after = float(np.mean((network.predict(window) - target) ** 2))
    assert after < loss


def test_first_weights_are_drawn_as_keras_draws_them():
    weights = learner(features=3, units=50).weights()
    for layer, inputs in (("lstm", 3), ("lstm_1", 50)):
        limit = (6 / (inputs + 200)) ** 0.5
        kernel = weights[f"{layer}/kernel"]
        assert abs(kernel).max() <= limit
        # Uniform: the standard deviation is the limit over √3.
        assert kernel.std() == pytest.approx(limit / 3**0.5, rel=0.1)
        recurrent = weights[f"{layer}/recurrent_kernel"]
        assert recurrent @ recurrent.T == pytest.approx(np.eye(50), abs=1e-5)
        bias = weights[f"{layer}/bias"]
        assert bias.tolist() == [0.0] * 50 + [1.0] * 50 + [0.0] * 100
    assert abs(weights["dense/kernel"]).max() <= (6 / 51) ** 0.5
    assert weights["dense/bias"].tolist() == [0.0]


def test_the_seed_alone_decides_on_weights_and_dropout():
    def trained(seed):
        network = learner(dropout=0.4, seed=seed)
        for batch in batches(2):
            torch.rand(7)
            stepped(network, [batch])
        return network.weights()

    first = trained(3)
    torch.manual_seed(99)
    again, other = trained(3), trained(4)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["lstm/kernel"], other["lstm/kernel"])


def test_the_process_keeps_its_own_generator_and_mode():
    network = learner(dropout=0.4)
    ((window, target),) = batches(1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    stepped(network, [(window, target)])
    network.predict(window)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_dropout_works_while_training_only():
    network = learner(dropout=0.5)
    ((window, target),) = batches(1)
    assert np.array_equal(network.predict(window), network.predict(window))
    state = network.state()
    first = stepped(network, [(window, target)])
    # The same weights, but the generator has gone on.
    prefix = "weights/"
    network.set_weights(
        {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
    )
    assert stepped(network, [(window, target)]) != first


def test_a_restored_state_goes_on_bit_by_bit_as_if_unbroken():
    given = batches(6)
    unbroken = learner(dropout=0.3)
    losses = stepped(unbroken, given)
    broken = learner(dropout=0.3)
    stepped(broken, given[:3])
    state = broken.state()
    # Another process: another seed, and steps of its own before it is told where to go on.
    other = learner(dropout=0.3, seed=77)
    stepped(other, given[5:])
    other.restore(state)
    assert stepped(other, given[3:]) == losses[3:]
    end, reached = unbroken.state(), other.state()
    assert end.keys() == reached.keys()
    for name, value in end.items():
        assert (value.dtype, value.tobytes()) == (reached[name].dtype, reached[name].tobytes()), (
            name
        )


def test_a_state_is_a_copy_that_later_steps_leave_alone():
    network = learner(dropout=0.3)
    ((window, target),) = batches(1)
    stepped(network, [(window, target)])
    state = network.state()
    kept = {name: value.copy() for name, value in state.items()}
    stepped(network, [(window, target)])
    assert all(np.array_equal(state[name], kept[name]) for name in kept)


def saved(network) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **network.weights())
    return stream.getvalue()


def test_the_best_weights_survive_their_file():
    network, other = learner(), learner(seed=8)
    other.load(saved(network))
    ((window, _),) = batches(1)
    assert np.array_equal(other.predict(window), network.predict(window))


@pytest.mark.parametrize("damage", ["truncated", "empty", "pickled", "other"])
def test_a_damaged_file_of_weights_is_refused_in_one_sentence(damage):
    network = learner()
    stream = io.BytesIO()
    np.savez(stream, **{**network.weights(), "dense/bias": np.array([print], dtype=object)})
    content = {
        "truncated": saved(network)[:-100],
        "empty": b"",
        "pickled": stream.getvalue(),
        "other": saved(learner(units=UNITS + 1)),
    }[damage]
    reason = "of another network" if damage == "other" else "^best.npz cannot be read: "
    with pytest.raises(ModelError, match=reason) as caught:
        network.load(content)
    assert "\n" not in str(caught.value)


def test_a_refused_state_of_another_network_changes_nothing():
    network, other = learner(), learner(units=UNITS + 1)
    before = network.weights()
    with pytest.raises(ModelError, match="of another network"):
        network.restore(other.state())
    with pytest.raises(ModelError, match="of another network"):
        network.set_weights(other.weights())
    assert all(np.array_equal(before[name], value) for name, value in network.weights().items())


def test_windows_of_another_shape_are_refused_with_both_shapes():
    expected = rf"shape \(2, 5, {FEATURES}\), expected \(n, {LOOK_BACK}, {FEATURES}\)"
    with pytest.raises(ModelError, match=expected):
        learner().predict(np.zeros((2, 5, FEATURES), np.float32))


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    """Every number another, so that none can be taken for a neighbour."""
    drawn = np.random.default_rng(5)
    return {
        name: drawn.normal(size=value.shape).astype(np.float32)
        for name, value in learner().weights().items()
    }


def test_every_gate_of_every_cell_keeps_its_weights(weights):
    turned = to_torch(weights)
    for layer, inputs in (("lstm", FEATURES), ("lstm_1", UNITS)):
        for row in range(4 * UNITS):
            for i in range(inputs):
                kernel = weights[f"{layer}/kernel"]
                assert turned[f"{layer}.weight_ih_l0"][row, i] == kernel[i, row]
            for i in range(UNITS):
                kernel = weights[f"{layer}/recurrent_kernel"]
                assert turned[f"{layer}.weight_hh_l0"][row, i] == kernel[i, row]
            assert turned[f"{layer}.bias_ih_l0"][row] == weights[f"{layer}/bias"][row]
    assert turned["dense.weight"].tolist() == [weights["dense/kernel"][:, 0].tolist()]
    assert turned["dense.bias"].tolist() == weights["dense/bias"].tolist()


def test_there_and_back_is_exact_and_shares_no_memory(weights):
    turned = to_torch(weights)
    back = from_torch(turned)
    assert list(back) == list(weights)
    for name, value in weights.items():
        assert back[name].dtype == np.float32 and np.array_equal(back[name], value), name
    for value in turned.values():
        assert value.flags.c_contiguous
        assert not any(np.shares_memory(value, original) for original in weights.values())


def test_the_second_biases_stay_zero():
    network = learner(dropout=0.3)
    stepped(network, batches(3))
    network.set_weights(learner(seed=8).weights())
    for layer in (network.module.lstm, network.module.lstm_1):
        assert not layer.bias_hh_l0.any()
