"""Fitting: what is written, what counts as best, when it ends, and that a seed decides it all."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitstorm.errors import ModelError
from model import small_run
from model.small_run import trained

pytestmark = pytest.mark.slow

LOOK_BACK = 4


def write(path: Path, windows: np.ndarray, targets: np.ndarray) -> None:
    flat = windows.reshape(len(windows), -1).astype(np.float32)
    columns = {
        **small_run.as_blocks(flat, targets),
        "window": pa.array(flat.tolist(), pa.list_(pa.float32())),
        "target": pa.array(targets.astype(np.float32)),
    }
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """187 windows whose target is their last value's opposite, with noise."""
    random = np.random.default_rng(2)
    windows = random.normal(size=(187, LOOK_BACK, 1))
    targets = -windows[:, -1, 0] + random.normal(0, 0.1, 187)
    write(tmp_path / "train.parquet", windows[:150], targets[:150])
    write(tmp_path / "validation.parquet", windows[150:], targets[150:])
    return tmp_path


def test_the_best_epochs_network_is_kept_and_every_epoch_recorded(folder):
    import keras

    fitted, losses, out, told = trained(folder, seed=1, epochs=5)
    assert sorted(path.name for path in out.iterdir()) == ["best.keras", "history.csv"]
    with (out / "history.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["epoch", "loss", "val_loss", "seconds"]
    assert [row[0] for row in rows[1:]] == ["1", "2", "3", "4", "5"]
    assert fitted.epochs == len(losses) == len(told) == 5
    validation = [loss for _, loss in losses]
    assert fitted.best_validation_loss == min(validation)
    assert fitted.best_epoch == validation.index(min(validation)) + 1
    assert losses[-1][0] < losses[0][0]

    # The mean squared error of the network on disk, over the validation part itself.
    table = pq.read_table(folder / "validation.parquet")
    windows = np.array(table["window"].to_pylist(), np.float32).reshape(-1, LOOK_BACK, 1)
    said = np.asarray(keras.saving.load_model(out / "best.keras")(windows))[:, 0]
    error = np.mean((said - table["target"].to_numpy()) ** 2)
    assert error == pytest.approx(fitted.best_validation_loss, rel=1e-5)


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
    table = pq.read_table(folder / "validation.parquet")
    windows = np.array(table["window"].to_pylist()).reshape(-1, LOOK_BACK, 1)
    write(folder / "validation.parquet", windows, -table["target"].to_numpy())
    fitted, losses, _, _ = trained(folder, seed=1, epochs=30, patience=2, learning_rate=0.05)
    assert fitted.epochs == fitted.best_epoch + 2 < 30
    assert all(loss >= fitted.best_validation_loss for _, loss in losses)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_loss_that_is_no_number_is_refused_and_ends_the_training_at_once(folder, part):
    table = pq.read_table(folder / f"{part}.parquet")
    windows = np.array(table["window"].to_pylist()).reshape(-1, LOOK_BACK, 1)
    targets = table["target"].to_numpy().copy()
    targets[5] = np.inf
    write(folder / f"{part}.parquet", windows, targets)
    with pytest.raises(ModelError, match="loss is not a finite number"):
        trained(folder, seed=1, epochs=9)
    history = next(folder.glob("run-*/history.csv"))
    assert len(history.read_text().splitlines()) == 2


def test_a_loss_that_explodes_later_leaves_the_best_epoch_before_it(folder, monkeypatch):
    import keras

    class Explosion(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.set_weights([w * np.nan for w in self.model.get_weights()])

    checkpoint = keras.callbacks.EarlyStopping
    monkeypatch.setattr(
        keras.callbacks,
        "EarlyStopping",
        lambda **wanted: keras.callbacks.CallbackList([checkpoint(**wanted), Explosion()]),
    )
    fitted, losses, out, _ = trained(folder, seed=1, epochs=9)
    assert len(losses) == 3
    assert fitted.best_epoch in (1, 2)
    assert fitted.best_validation_loss == min(loss for _, loss in losses[:2])
    assert (out / "best.keras").exists()


def test_an_epoch_that_is_not_served_every_window_breaks_the_training_off(folder):
    with pytest.raises(ModelError, match=r"broke off .*served 150, expected 151"):
        trained(folder, seed=1, rows=151)
