"""Fitting: what is written, what counts as best, when it ends, and that a seed decides it all."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitstorm.errors import BrokenOff, ModelError
from bitstorm.model import checkpoint
from model import small_run
from model.small_run import feeds, fitted, losses, made, new_learner, trained

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return made(tmp_path)


def same(ours, theirs) -> bool:
    """Bit for bit, NaNs and signs of zero included."""
    return ours.keys() == theirs.keys() and all(
        ours[name].dtype == theirs[name].dtype and ours[name].tobytes() == theirs[name].tobytes()
        for name in ours
    )


def test_the_best_epochs_network_is_kept_and_every_epoch_recorded(folder):
    from bitstorm.model import keras_file, network

    told = []
    out = folder / "out"
    out.mkdir()
    train, validation = feeds(folder)
    outcome = fitted(
        out, train, validation, new_learner(seed=1), seed=1, epochs=5, told=told.append
    )
    names = ["best.keras", "history.csv"]
    states = [f"state-00000{n}.{kind}" for n in (4, 5) for kind in ("json", "npz")]
    assert sorted(path.name for path in out.iterdir()) == [*names, *states]
    with (out / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["epoch", "loss", "val_loss", "seconds", "waited"]
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    by_epoch = [float(row["val_loss"]) for row in rows]
    assert outcome.epochs == 5
    assert outcome.best_validation_loss == min(by_epoch)
    assert outcome.best_epoch == by_epoch.index(min(by_epoch)) + 1
    assert outcome.seconds == pytest.approx(sum(float(row["seconds"]) for row in rows))
    assert 0 <= outcome.data_wait_share < 1
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    ends = [at for at in told if at.val_loss is not None]
    assert [(at.epoch, at.windows, at.val_loss) for at in ends] == [
        (n, 150, loss) for n, loss in enumerate(by_epoch, 1)
    ]
    assert ends[-1].seconds_left == 0 < ends[0].seconds_left

    # The mean squared error of the network on disk, over the validation part itself.
    model = network.build(look_back=4, features=1, units=4, dropout=0.2, learning_rate=0.02)
    keras_file.load_weights(model, (out / "best.keras").read_bytes())
    said = np.asarray(model(validation.window))[:, 0]
    error = np.mean((said - validation.target) ** 2)
    assert error == pytest.approx(outcome.best_validation_loss, rel=1e-5)


def test_the_loop_computes_what_keras_fit_computes(folder):
    """Without dropout and shuffling: Keras' own loop over the same arrays from the same weights."""
    import keras

    from bitstorm.model import network

    train, validation = feeds(folder)
    shape = {"look_back": 4, "features": 1, "units": 4, "dropout": 0.0, "learning_rate": 0.02}
    ours = network.learner(**shape, seed=3)
    theirs = network.build(**shape)
    theirs.set_weights(list(ours.weights().values()))
    out = folder / "out"
    out.mkdir()

    class InOrder(small_run.InMemory):
        def epoch(self, *, batch_size, seed=None, number=0):
            return super().epoch(batch_size=batch_size)

    fitted(out, InOrder(train.window, train.target), validation, ours, seed=3, epochs=3)
    keras.utils.set_random_seed(3)
    history = theirs.fit(
        train.window,
        train.target,
        batch_size=16,
        epochs=3,
        shuffle=False,
        verbose=0,
        validation_data=(validation.window, validation.target),
    ).history
    found = np.array(losses(out), float)
    assert found[:, 0] == pytest.approx(history["loss"], rel=1e-5)
    assert found[:, 1] == pytest.approx(history["val_loss"], rel=1e-5)


def test_four_times_the_batch_is_twice_the_learning_rate():
    from bitstorm.model.training import auto_learning_rate

    assert auto_learning_rate(32) == 0.001
    assert auto_learning_rate(128) == 0.002
    assert auto_learning_rate(256) == pytest.approx(0.001 * 8**0.5)


def test_the_same_seed_gives_the_same_losses_in_this_process_and_in_another(folder):
    first, again, other = (trained(folder, seed=seed)[1] for seed in (7, 7, 8))
    assert first == again
    assert first != other
    answer = subprocess.run(
        [sys.executable, small_run.__file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == [list(pair) for pair in first]


def test_training_ends_when_the_validation_loss_no_longer_falls(folder):
    # What holds in the training part is the opposite of what holds in the validation part.
    train, validation = feeds(folder)
    validation = replace(validation, target=-validation.target)
    out = folder / "out"
    out.mkdir()
    learner = new_learner(seed=1, learning_rate=0.05)
    outcome = fitted(out, train, validation, learner, seed=1, epochs=30, patience=2)
    assert outcome.epochs == outcome.best_epoch + 2 < 30
    assert all(float(loss) >= outcome.best_validation_loss for _, loss in losses(out))


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_loss_that_is_no_number_is_refused_and_ends_the_training_at_once(folder, part):
    parts = dict(zip(("train", "validation"), feeds(folder), strict=True))
    parts[part].window[5, 2, 0] = np.nan
    out = folder / "out"
    out.mkdir()
    with pytest.raises(ModelError, match="loss is not a finite number") as refusal:
        fitted(out, **parts, learner=new_learner(seed=1), seed=1, epochs=9)
    assert not isinstance(refusal.value, BrokenOff)
    assert len(losses(out)) == 1


def test_a_loss_that_explodes_later_leaves_the_best_epoch_before_it(folder):
    train, validation = feeds(folder)
    out = folder / "out"
    out.mkdir()
    learner = new_learner(seed=1)

    class Exploding(small_run.InMemory):
        """Windows of which one is no number from the third epoch on."""

        @contextmanager
        def epoch(self, *, batch_size, seed=None, number=0):
            window = self.window.copy()
            window[0, 0, 0] = np.nan if number >= 2 else 0
            with replace(self, window=window).epoch_of(batch_size, seed, number) as batches:
                yield batches

        def epoch_of(self, batch_size, seed, number):
            return super().epoch(batch_size=batch_size, seed=seed, number=number)

    outcome = fitted(out, Exploding(train.window, train.target), validation, learner, seed=1)
    found = np.array(losses(out), float)
    assert len(found) == outcome.epochs == 3
    assert outcome.best_epoch in (1, 2)
    assert outcome.best_validation_loss == min(found[:2, 1])
    assert (out / "best.keras").exists()


def test_a_training_that_goes_on_from_a_state_reaches_the_same_bits(folder):
    after = 2
    whole, whole_losses, whole_out = trained(folder, seed=5, epochs=6)
    out = folder / "out"
    out.mkdir()
    fitted(out, *feeds(folder), new_learner(seed=5), seed=5, epochs=after)
    since, problems = checkpoint.load(out)
    assert problems == [] and since.standing.epochs == after
    # Another seed at the start: all that counts has to come from the state.
    again = fitted(out, *feeds(folder), new_learner(seed=99), seed=5, epochs=6, since=since)
    assert losses(out) == whole_losses
    assert (again.best_epoch, again.best_validation_loss) == (
        whole.best_epoch,
        whole.best_validation_loss,
    )
    ours, theirs = checkpoint.load(out)[0], checkpoint.load(whole_out)[0]
    assert same(ours.state, theirs.state) and same(ours.best, theirs.best)


def test_a_state_of_another_network_is_refused(folder):
    from bitstorm.model import network

    other = network.learner(
        look_back=4, features=1, units=5, dropout=0.2, learning_rate=0.02, seed=1
    )
    learner = new_learner(seed=1)
    before = learner.state()
    with pytest.raises(ModelError, match=r"weights of another network: .* expected \("):
        learner.restore(other.state())
    assert same(before, learner.state())


def test_a_feed_that_fails_ends_the_training_with_its_cause_and_the_way_on(folder):
    train, validation = feeds(folder)

    class Failing(small_run.InMemory):
        @contextmanager
        def epoch(self, *, batch_size, seed=None, number=0):
            with small_run.InMemory.epoch(
                self, batch_size=batch_size, seed=seed, number=number
            ) as batches:
                yield self.some(batches, number)

        def some(self, batches, number):
            for place, batch in enumerate(batches):
                if (number, place) == (2, 3):
                    raise RuntimeError("part-00000.parquet is gone")
                yield batch

    out = folder / "20240101T000000Z-abcdef"
    out.mkdir()
    with pytest.raises(BrokenOff) as broken:
        fitted(out, Failing(train.window, train.target), validation, new_learner(seed=1), seed=1)
    assert str(broken.value) == (
        "the training broke off (part-00000.parquet is gone): "
        "`bitstorm train --resume 20240101T000000Z-abcdef` goes on after epoch 2"
    )
    assert len(losses(out)) == 2
    assert checkpoint.load(out)[0].standing.epochs == 2
