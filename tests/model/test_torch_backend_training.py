"""The training loop with PyTorch's network and feed: the same as with Keras', and to the bit."""

from __future__ import annotations

import dataclasses
import os
import signal
from typing import Any

import numpy as np
import pytest

from bitstorm.core.errors import BrokenOff, ModelError
from bitstorm.model import checkpoint, torch_backend
from bitstorm.model.scaling import Scale, Scaler
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


SHAPE: dict[str, Any] = {"look_back": LOOK_BACK, "features": 1, "units": 4, "learning_rate": 0.01}


def network_of(*, seed=1, dropout=0.0):
    return torch_backend.seeded(**SHAPE, dropout=dropout, seed=seed)


def trained(out, given: tuple[Any, Any], network, **rules):
    out.mkdir(exist_ok=True)
    return fitted(out, *given, network, seed=5, **rules)


def test_both_backends_go_the_same_way_from_the_same_weights(tmp_path):
    from bitstorm.model import network

    given = feeds(tmp_path)
    ours, theirs = network_of(), network.seeded(**SHAPE, dropout=0.0, seed=2)
    network.set_weights(theirs, ours.weights())
    first = ours.weights()["lstm/kernel"]
    told: list[Any] = []
    found = trained(tmp_path / "torch", given, ours, epochs=3, told=told.append)
    expected = trained(tmp_path / "keras", given, theirs, epochs=3)
    assert (tmp_path / "torch" / "best.npz").exists()
    assert (found.epochs, found.best_epoch) == (expected.epochs, expected.best_epoch)
    by_epoch = [np.array(losses(tmp_path / name), float) for name in ("torch", "keras")]
    assert by_epoch[0] == pytest.approx(by_epoch[1], abs=1e-5)
    assert by_epoch[0][-1, 0] < 0.9 * by_epoch[0][0, 0]
    assert [at.epoch for at in told if at.val_loss is not None] == [1, 2, 3]
    window = np.random.default_rng(1).normal(size=(64, LOOK_BACK, 1)).astype(np.float32)
    assert ours.predict(window) == pytest.approx(np.asarray(theirs(window))[:, 0], abs=1e-5)
    weights = ours.weights()
    assert np.abs(weights["lstm/kernel"] - first).max() > 0.01
    for name, value in network.weights(theirs).items():
        assert weights[name] == pytest.approx(value, abs=1e-5), name
    # The same files but for the weights, with the same columns.
    heads = [
        (tmp_path / name / "history.csv").read_text().split()[0] for name in ("torch", "keras")
    ]
    assert heads[0] == heads[1]


def test_a_resumed_training_reaches_the_same_bits(tmp_path):
    given = feeds(tmp_path)
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    whole = trained(unbroken, given, network_of(dropout=0.3), epochs=5)
    trained(broken, given, network_of(dropout=0.3), epochs=2)
    since, problems = checkpoint.load(broken)
    assert problems == [] and since is not None and since.epochs == 2
    # Another seed at the start: all that counts has to come from the state.
    again = trained(broken, given, network_of(seed=99, dropout=0.3), epochs=5, since=since)
    assert losses(broken) == losses(unbroken)
    assert len(losses(broken)) == 5
    assert again.best_epoch == whole.best_epoch
    ours, theirs = checkpoint.load(broken)[0], checkpoint.load(unbroken)[0]
    assert ours is not None and theirs is not None
    for one, other in ((ours.state, theirs.state), (ours.best, theirs.best)):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].tobytes() == other[name].tobytes(), name


def test_patience_ends_it_and_a_loss_of_nan_is_refused(tmp_path):
    train, validation = feeds(tmp_path)
    # What is learnt has the opposite sign in the validation part.
    scale = validation.scaler.target
    against = dataclasses.replace(
        validation, scaler=Scaler(validation.scaler.features, Scale(0.0, -scale.scale))
    )
    given = train, against
    found = trained(tmp_path / "patience", given, network_of(), epochs=30, patience=2)
    assert found.epochs == found.best_epoch + 2 < 30
    # It is over: going on trains nothing more.
    since = checkpoint.load(tmp_path / "patience")[0]
    again = trained(tmp_path / "patience", given, network_of(), epochs=30, patience=2, since=since)
    assert (again.epochs, again.best_epoch) == (found.epochs, found.best_epoch)
    network = network_of()
    network.module.dense.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="loss is not a finite number") as refusal:
        trained(tmp_path / "nan", given, network, epochs=9)
    assert not isinstance(refusal.value, BrokenOff)
    assert len(losses(tmp_path / "nan")) == 1


def test_a_signal_or_a_file_that_is_gone_ends_it_with_the_way_on(tmp_path):
    train, validation = feeds(tmp_path)

    def after_the_second(act):
        def told(at):
            if at.epoch == 2 and at.val_loss is not None:
                act()

        return told

    def signalled():
        os.kill(os.getpid(), signal.SIGTERM)

    def removed():
        for path in train.stored.folder.iterdir():
            path.unlink()

    for name, act, reason in (
        ("signal", signalled, "stopped by SIGTERM"),
        ("gone", removed, "3 of 3 files"),
    ):
        with pytest.raises(BrokenOff, match=rf"{reason}.*--resume {name}` goes on after epoch 2"):
            trained(tmp_path / name, (train, validation), network_of(), told=after_the_second(act))
        kept, _ = checkpoint.load(tmp_path / name)
        assert kept is not None and kept.epochs == 2
