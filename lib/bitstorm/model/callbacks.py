"""Keras callbacks for progress, for the end by a signal, for `history.csv` over several processes,
and for a state after each epoch, from which another process continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from bitstorm.core.stopping import Stop
from bitstorm.model import checkpoint, network
from bitstorm.model.checkpoint import Checkpoint, Epoch
from bitstorm.model.training import EpochTimer, Task

Logs = dict[str, Any] | None


class ReportProgress(keras.callbacks.Callback):
    """Reports how far an epoch is; adds the epoch's `seconds` to the logs of later callbacks."""

    def __init__(self, timer: EpochTimer) -> None:
        super().__init__()
        self.epoch, self._timer = 0, timer

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.epoch = epoch
        self._timer.begin(epoch + 1)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        assert logs is not None
        self._timer.batch(batch + 1, logs["loss"])

    def on_test_begin(self, logs: Logs = None) -> None:
        self._timer.trained()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        assert logs is not None
        logs["seconds"] = self._timer.end(logs["loss"], logs["val_loss"])


class StopOnSignal(keras.callbacks.Callback):
    """Ends the training after the current batch of the training or the validation part."""

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self._stop = stop

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._stop.check()

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._stop.check()


class History(keras.callbacks.CSVLogger):
    """Appends to `history.csv` after the rows of earlier processes; epochs count from 1."""

    def __init__(self, folder: Path, before: tuple[Epoch, ...]) -> None:
        checkpoint.write_history(folder, before)
        super().__init__(folder / checkpoint.HISTORY, append=True)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        super().on_epoch_end(epoch + 1, logs)


class ResumableState(keras.callbacks.Callback):
    """Saves a checkpoint after each epoch; continues from `task.since`, if given.

    It comes after `early` and `best`, since it saves their counters. It does not save an epoch
    whose losses are not finite, and ends the training there.
    """

    def __init__(self, task: Task, early: Any, best: Any) -> None:
        super().__init__()
        self.history = () if task.since is None else task.since.history
        self._task, self._early, self._best = task, early, best

    def on_train_begin(self, logs: Logs = None) -> None:
        since = self._task.since
        if since is None:
            return
        # The file can be from an epoch that a killed process did not complete.
        network.set_weights(self.model, since.best)
        network.save(self.model, self._task.folder)
        self._early.best_weights = self.model.get_weights()
        self._early.best_epoch = since.best_epoch - 1
        self._early.wait = since.wait
        self._early.best = self._best.best = since.best_loss
        network.restore(self.model, since.state)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        assert logs is not None
        done = Epoch(epoch + 1, logs["loss"], logs["val_loss"], logs["seconds"])
        self.history = (*self.history, done)
        if not done.finite:
            self.model.stop_training = True
            return
        if (self._task.folder / network.SCRATCH).exists():
            network.publish(self._task.folder)
        state = Checkpoint(
            history=self.history,
            best_epoch=self._early.best_epoch + 1,
            best_loss=self._early.best,
            state=network.state(self.model),
            best=dict(zip(network.weights(self.model), self._early.best_weights, strict=True)),
            record=self._task.record,
        )
        checkpoint.save(self._task.folder, state)
