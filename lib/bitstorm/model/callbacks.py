"""What Keras' own callbacks leave to us: progress, the end by a signal, `history.csv` over several
processes, and a state after each epoch from which another process goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from bitstorm.core.stopping import Stop
from bitstorm.model import checkpoint, network
from bitstorm.model.checkpoint import Checkpoint, Epoch
from bitstorm.model.training import Meter

Logs = dict[str, Any] | None


class Progress(keras.callbacks.Callback):
    """Tells how far an epoch is; gives the callbacks after it the epoch's `seconds`."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.epoch = 0
        self._meter = meter

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self.epoch = epoch
        self._meter.begin(epoch + 1)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        assert logs is not None
        self._meter.batch(batch + 1, logs["loss"])

    def on_test_begin(self, logs: Logs = None) -> None:
        self._meter.trained()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        assert logs is not None
        logs["seconds"] = self._meter.end(logs["loss"], logs["val_loss"])


class StopOnSignal(keras.callbacks.Callback):
    """Ends the training after the current batch, be it of training or of validation."""

    def __init__(self, stop: Stop) -> None:
        super().__init__()
        self._stop = stop

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._stop.check()

    def on_test_batch_end(self, batch: int, logs: Logs = None) -> None:
        self._stop.check()


class History(keras.callbacks.CSVLogger):
    """`history.csv`, with epochs that count from 1, after the rows of an earlier process."""

    def __init__(self, folder: Path, before: tuple[Epoch, ...]) -> None:
        checkpoint.write_history(folder, before)
        super().__init__(folder / checkpoint.HISTORY, append=True)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        super().on_epoch_end(epoch + 1, logs)


class ResumableState(keras.callbacks.Callback):
    """Saves a checkpoint after each epoch; goes on from `since` where there is one.

    It comes after the callbacks whose counters it keeps. An epoch whose losses are not finite is
    not saved, and is the last.
    """

    def __init__(
        self,
        folder: Path,
        record: Mapping[str, Any],
        since: Checkpoint | None,
        *,
        early: keras.callbacks.EarlyStopping,
        best: keras.callbacks.ModelCheckpoint,
    ) -> None:
        super().__init__()
        self.history = () if since is None else since.history
        self._folder, self._record, self._since = folder, record, since
        self._early, self._best = early, best

    def on_train_begin(self, logs: Logs = None) -> None:
        since = self._since
        if since is None:
            return
        # A killed process may have left the file of an epoch that it did not complete.
        network.set_weights(self.model, since.best)
        network.save(self.model, self._folder)
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
        if (self._folder / network.SCRATCH).exists():
            network.publish(self._folder)
        best = zip(network.weights(self.model), self._early.best_weights, strict=True)
        checkpoint.save(
            self._folder,
            Checkpoint(
                history=self.history,
                best_epoch=self._early.best_epoch + 1,
                best_loss=self._early.best,
                state=network.state(self.model),
                best=dict(best),
                record=self._record,
            ),
        )
