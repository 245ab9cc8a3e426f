"""Training by Keras: what is written, what counts as best, when it ends, that a seed decides it
all, and that a training that goes on is the training that was never broken off."""

from __future__ import annotations

import csv
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitstorm.core.errors import BrokenOff, ModelError
from bitstorm.model import checkpoint
from model import small_run
from model.small_run import InMemory, feeds, fitted, losses, made, new_network, trained

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path)


@pytest.fixture
def out(folder: Path) -> Path:
    (folder / "20240101T000000Z-abcdef").mkdir()
    return folder / "20240101T000000Z-abcdef"


def same(ours, theirs) -> bool:
    """Bit for bit, NaNs and signs of zero included."""
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and ours[name].tobytes() == theirs[name].tobytes()
        for name in ours
    )


def test_the_best_network_is_kept_and_every_epoch_recorded(folder, out):
    from bitstorm.model import network

    told: list[Any] = []
    train, validation = feeds(folder)
    outcome = fitted(
        out, train, validation, new_network(seed=1), seed=1, epochs=5, told=told.append
    )
    names = ["best.keras", "history.csv"]
    states = [f"state-00000{n}.{kind}" for n in (4, 5) for kind in ("json", "npz")]
    assert sorted(path.name for path in out.iterdir()) == [*names, *states]
    with (out / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["epoch", "loss", "seconds", "val_loss"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    by_epoch = [float(row["val_loss"]) for row in rows]
    assert outcome.epochs == 5
    assert outcome.best_validation_loss == min(by_epoch)
    assert outcome.best_epoch == by_epoch.index(min(by_epoch)) + 1
    assert outcome.seconds == pytest.approx(sum(float(row["seconds"]) for row in rows))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    ends = [at for at in told if at.val_loss is not None]
    assert [(at.epoch, at.windows, at.val_loss) for at in ends] == [
        (n, 150, loss) for n, loss in enumerate(by_epoch, 1)
    ]
    assert ends[-1].seconds_left == 0 < ends[0].seconds_left

    # The mean squared error of the network on disk, over the validation part itself.
    model = network.build(**small_run.SHAPE)
    network.load_weights(model, (out / "best.keras").read_bytes())
    said = np.asarray(model(validation.window))[:, 0]
    error = np.mean((said - validation.target) ** 2)
    assert error == pytest.approx(outcome.best_validation_loss, rel=1e-5)


def test_four_times_the_batch_is_twice_the_learning_rate():
    from bitstorm.model.training import auto_learning_rate

    assert auto_learning_rate(32) == 0.001
    assert auto_learning_rate(128) == 0.002
    assert auto_learning_rate(256) == pytest.approx(0.001 * 8**0.5)


def test_the_same_seed_gives_the_same_losses(folder):
    # In another process, too: a fold of `backtest/test_tasks.py` has the same bits there.
    first, other, again = (trained(folder, seed=seed)[1] for seed in (7, 8, 7))
    assert first == again != other


def test_training_ends_when_the_validation_loss_no_longer_falls(folder, out):
    # What holds in the training part is the opposite of what holds in the validation part.
    train, validation = feeds(folder)
    validation = replace(validation, target=-validation.target)
    network = new_network(seed=1, learning_rate=0.05)
    outcome = fitted(out, train, validation, network, seed=1, epochs=30, patience=2)
    assert outcome.epochs == outcome.best_epoch + 2 < 30
    assert all(float(loss) >= outcome.best_validation_loss for _, loss in losses(out))
    # The best epoch's weights are back.
    said = np.asarray(network(validation.window))[:, 0]
    error = np.mean((said - validation.target) ** 2)
    assert error == pytest.approx(outcome.best_validation_loss, rel=1e-5)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_loss_of_nan_ends_the_training_at_once(folder, out, part, capfd):
    parts = dict(zip(("train", "validation"), feeds(folder), strict=True))
    parts[part].window[5, 2, 0] = np.nan
    with pytest.raises(ModelError, match="loss is not a finite number") as refusal:
        fitted(out, **parts, network=new_network(seed=1), seed=1, epochs=9)
    assert not isinstance(refusal.value, BrokenOff)
    assert len(losses(out)) == 1
    assert capfd.readouterr().out == ""


class Exploding(InMemory):
    """Windows of which one is no number from the third epoch on."""

    def batches(self, batch_size, seed, number):
        window = self.window.copy()
        window[0, 0, 0] = np.nan if number >= 2 else 0
        return InMemory(window, self.target).batches(batch_size, seed, number)


def test_a_loss_that_explodes_later_leaves_the_best_epoch(folder, out):
    train, validation = feeds(folder)
    given = Exploding(train.window, train.target)
    outcome = fitted(out, given, validation, new_network(seed=1), seed=1)
    found = np.array(losses(out), float)
    assert len(found) == outcome.epochs == 3
    assert outcome.best_epoch in (1, 2)
    assert outcome.best_validation_loss == min(found[:2, 1])
    assert (out / "best.keras").exists()


def test_a_resumed_training_reaches_the_same_bits(folder, out):
    after = 2
    whole, whole_losses, whole_out = trained(folder, seed=5, epochs=6)
    fitted(out, *feeds(folder), new_network(seed=5), seed=5, epochs=after)
    since, problems = checkpoint.load(out)
    assert problems == [] and since is not None and since.epochs == after
    # What a kill leaves in the middle of an epoch: a row too many, a file of another epoch.
    with (out / "history.csv").open("a") as stream:
        stream.write("3,0.1,1.0,0.1\r\n")
    (out / "best.keras").write_bytes(b"half")
    # Another seed at the start: all that counts has to come from the state.
    again = fitted(out, *feeds(folder), new_network(seed=99), seed=5, epochs=6, since=since)
    assert losses(out) == whole_losses
    assert (again.best_epoch, again.best_validation_loss) == (
        whole.best_epoch,
        whole.best_validation_loss,
    )
    ours, theirs = checkpoint.load(out)[0], checkpoint.load(whole_out)[0]
    assert ours is not None and theirs is not None
    assert same(ours.state, theirs.state) and same(ours.best, theirs.best)
    assert any(name.startswith("seeds/") for name in ours.state)


def test_patience_is_counted_on_over_a_break(folder, out):
    """As in a training of one piece, and one that had ended by it trains no further."""
    train, validation = feeds(folder)
    validation = replace(validation, target=-validation.target)
    given = {"seed": 1, "patience": 3}
    whole = fitted(out, train, validation, new_network(seed=1), epochs=30, **given)
    expected = losses(out)
    # One epoch before its end.
    fitted(out, train, validation, new_network(seed=1), epochs=whole.epochs - 1, **given)
    for _ in range(2):
        since = checkpoint.load(out)[0]
        network = new_network(seed=9)
        again = fitted(out, train, validation, network, epochs=30, since=since, **given)
        assert losses(out) == expected
        assert (again.epochs, again.best_epoch) == (whole.epochs, whole.best_epoch)
        assert (out / "best.keras").exists()


def test_a_state_of_another_network_is_refused():
    from bitstorm.model import network

    ours, other = new_network(seed=1), new_network(seed=1, units=5)
    before = network.state(ours)
    with pytest.raises(ModelError, match=r"weights of another network: .* expected \("):
        network.restore(ours, network.state(other))
    assert same(before, network.state(ours))


class Failing(InMemory):
    def batches(self, batch_size, seed, number):
        for place, batch in enumerate(super().batches(batch_size, seed, number)):
            if (number, place) == (2, 3):
                self.fail()
            yield batch

    def fail(self):
        raise ModelError("part-00000.parquet is gone")


def test_a_failing_feed_ends_the_training_with_cause_and_advice(folder, out):
    train, validation = feeds(folder)
    with pytest.raises(BrokenOff) as broken:
        fitted(out, Failing(train.window, train.target), validation, new_network(seed=1), seed=1)
    assert str(broken.value) == (
        "the training broke off (part-00000.parquet is gone): "
        "`bitstorm train --resume 20240101T000000Z-abcdef` goes on after epoch 2"
    )
    assert len(losses(out)) == 2
    kept, _ = checkpoint.load(out)
    assert kept is not None and kept.epochs == 2


class Signalling(InMemory):
    """A signal comes while a pass is drawn."""

    def batches(self, batch_size, seed, number):
        for place, batch in enumerate(super().batches(batch_size, seed, number)):
            # Not the first pass of the validation part, which is always number 0.
            if place == 1 and (number == 2 or seed is None):
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch


@pytest.mark.parametrize(("part", "epochs"), [("train", 2), ("validation", 0)])
def test_a_signal_ends_the_training_after_the_batch(folder, out, part, epochs):
    parts = dict(zip(("train", "validation"), feeds(folder), strict=True))
    parts[part] = Signalling(parts[part].window, parts[part].target)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(BrokenOff, match=r"stopped by SIGTERM\): `bitstorm train --resume ") as end:
        fitted(out, **parts, network=new_network(seed=1), seed=1)
    assert str(end.value).endswith("after epoch 2" if epochs else "from the start")
    assert len(losses(out)) == epochs
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (out / ".tmp-best.keras").exists()


@pytest.mark.parametrize("long", [False, True])
def test_keras_gets_its_own_callbacks_and_the_converters_data(tmp_path, monkeypatch, long):
    """The way that `bitstorm train` takes."""
    import keras
    from petastorm.spark import SparkDatasetConverter

    from bitstorm.model import feed
    from model import blocked

    if long:
        monkeypatch.setattr(feed, "KEPT_BLOCKS", 0)
    frame = blocked.frame_of(look_back=4, size=64)
    price = np.random.default_rng(1).normal(100, 1, 400)
    path = blocked.write(tmp_path / "blocks", frame, price)
    opened, given = [], {}
    make, fit = SparkDatasetConverter.make_tf_dataset, keras.Model.fit

    def made_by(self, **options):
        opened.append(options)
        return make(self, **options)

    def spied(self, *data, **options):
        given.update(options)
        return fit(self, *data, **options)

    monkeypatch.setattr(SparkDatasetConverter, "make_tf_dataset", made_by)
    monkeypatch.setattr(keras.Model, "fit", spied)
    parts = blocked.feed(path, frame, last=300), blocked.feed(path, frame, first=301)
    out = tmp_path / "run"
    out.mkdir()
    outcome = fitted(out, *parts, new_network(seed=1), seed=1, epochs=3, patience=2)
    kinds = [type(callback).__mro__ for callback in given["callbacks"]]
    by_kind = dict(zip(kinds, given["callbacks"], strict=True))
    for wanted in ("EarlyStopping", "ModelCheckpoint", "CSVLogger", "TerminateOnNaN"):
        assert sum(getattr(keras.callbacks, wanted) in kind for kind in kinds) == 1, wanted
    early = next(c for k, c in by_kind.items() if keras.callbacks.EarlyStopping in k)
    assert (early.monitor, early.patience, early.restore_best_weights) == ("val_loss", 2, True)
    best = next(c for k, c in by_kind.items() if keras.callbacks.ModelCheckpoint in k)
    assert (best.monitor, best.save_best_only, best.best) == (
        "val_loss",
        True,
        outcome.best_validation_loss,
    )
    # A reader for each pass over a long training part, else one; one for the validation part.
    assert len(opened) == (outcome.epochs if long else 1) + 1
    assert {(o["num_epochs"], o["reader_pool_type"]) for o in opened} == {(1, "dummy")}
    assert len({o["seed"] for o in opened}) == (len(opened) if long else 1)
