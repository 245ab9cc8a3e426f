"""The training loop with PyTorch's network and feed: the same as with Keras', and to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from bitstorm.model import backend, checkpoint
from model import blocked
from model.small_run import fitted, losses

torch = pytest.importorskip(
    "torch", reason="PyTorch is not installed (scripts/setup --torch): its backend is not tested"
)

pytestmark = pytest.mark.slow

LOOK_BACK, POINTS = 6, 700


def feeds(tmp_path):
    """Training and validation over a wave with noise, holes and imputed prices."""
    frame = blocked.frame_of(
        look_back=LOOK_BACK, features=("log_return",), target="log_return", size=64
    )
    drawn = np.random.default_rng(3)
    returns = np.cos(2 * np.pi * np.arange(POINTS) / 7.3) + drawn.normal(0, 0.1, POINTS)
    price = 100 * np.exp(0.5 * np.cumsum(returns))
    price[[300, 301, 520]] = np.nan
    imputed = drawn.random(POINTS) < 0.05
    folder = blocked.write(tmp_path / "blocks", frame, price, imputed=imputed, files=3)
    return (
        blocked.feed(folder, frame, last=POINTS - 150),
        blocked.feed(folder, frame, first=POINTS - 149),
    )


def learner(name, *, seed=1, dropout=0.0):
    return backend.learner(
        name,
        look_back=LOOK_BACK,
        features=1,
        units=4,
        dropout=dropout,
        learning_rate=0.01,
        seed=seed,
    )


def trained(out, given, network, **rules):
    out.mkdir(exist_ok=True)
    train, validation = (backend.feed(network.backend, feed) for feed in given)
    return fitted(out, train, validation, network, seed=5, **rules)


def test_both_backends_go_the_same_way_from_the_same_weights(tmp_path):
    given = feeds(tmp_path)
    ours, theirs = learner("torch"), learner("tensorflow", seed=2)
    theirs.set_weights(ours.weights())
    first = ours.weights()["lstm/kernel"]
    found = trained(tmp_path / "torch", given, ours, epochs=3)
    expected = trained(tmp_path / "keras", given, theirs, epochs=3)
    assert (found.best_file, expected.best_file) == ("best.npz", "best.keras")
    assert found.best_epoch == expected.best_epoch
    by_epoch = [np.array(losses(tmp_path / name), float) for name in ("torch", "keras")]
    assert by_epoch[0] == pytest.approx(by_epoch[1], abs=1e-5)
    assert by_epoch[0][-1, 0] < 0.9 * by_epoch[0][0, 0]
    window = np.random.default_rng(1).normal(size=(64, LOOK_BACK, 1)).astype(np.float32)
    assert ours.predict(window) == pytest.approx(theirs.predict(window), abs=1e-5)
    weights = ours.weights()
    assert np.abs(weights["lstm/kernel"] - first).max() > 0.01
    for name, value in theirs.weights().items():
        assert weights[name] == pytest.approx(value, abs=1e-5), name


def test_a_training_that_goes_on_from_a_state_reaches_the_same_bits(tmp_path):
    given = feeds(tmp_path)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    whole = trained(unbroken, given, learner("torch", dropout=0.3), epochs=5)
    trained(broken, given, learner("torch", dropout=0.3), epochs=2)
    since, problems = checkpoint.load(broken)
    assert problems == [] and since.standing.epochs == 2
    # Another seed at the start: all that counts has to come from the state.
    again = trained(broken, given, learner("torch", seed=99, dropout=0.3), epochs=5, since=since)
    assert losses(broken) == losses(unbroken)
    assert len(losses(broken)) == 5
    assert again.best_epoch == whole.best_epoch
    ours, theirs = checkpoint.load(broken)[0], checkpoint.load(unbroken)[0]
    for one, other in ((ours.state, theirs.state), (ours.best, theirs.best)):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].tobytes() == other[name].tobytes(), name
