"""Training by Keras: its `fit` on the feed's data set, with its callbacks and ours; progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitstorm.core.errors import BrokenOff, ModelError
from bitstorm.core.stopping import Stop
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.model.checkpoint import Checkpoint, Epoch
from bitstorm.model.feed import Feed, reason_of

AUTO_BATCH_SIZE = 256
# Adam's paper suggests this rate; Keras takes this batch size by default.
BASE_LEARNING_RATE, BASE_BATCH_SIZE = 0.001, 32


@dataclass(frozen=True)
class Progress:
    """The state of an epoch. `loss` is the mean over the windows so far; `val_loss` is None before
    the epoch's end. `seconds_left` lasts until the last allowed epoch, at the present rate."""

    epoch: int
    epochs: int
    windows: int
    of_windows: int
    loss: float
    val_loss: float | None
    windows_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Task:
    """What `fit` needs in addition to the network.

    The training ends after `epochs`, or after `patience` epochs without a better validation loss.
    `seed` decides the order of the windows. All files go into `folder`; each checkpoint holds
    `record`. The training continues from `since`, if given.
    """

    train: Feed
    validation: Feed
    epochs: int
    patience: int
    batch_size: int
    seed: int
    folder: Path
    record: Mapping[str, Any]
    since: Checkpoint | None = None
    progress: Callable[[Progress], None] = lambda _: None


@dataclass(frozen=True)
class Fitted:
    """`best_epoch` counts from 1; losses are mean squared errors of the scaled target."""

    epochs: int
    best_epoch: int
    best_validation_loss: float
    seconds: float


def auto_learning_rate(batch_size: int) -> float:
    """Adam's learning rate: sqrt(k) times the base rate for k times the base batch size (Malladi,
    Lyu, Panigrahi and Arora, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms",
    2022)."""
    return BASE_LEARNING_RATE * math.sqrt(batch_size / BASE_BATCH_SIZE)


def fit(network: Any, task: Task) -> Fitted:
    """Train a network from `network.seeded`; afterwards it has the weights of the best epoch.

    Each epoch writes a checkpoint and a row of `history.csv`; the best epoch so far also writes
    `best.keras`. An epoch whose loss is not finite is the last one. Raises ModelError where no
    epoch has a finite loss. Raises BrokenOff, with the command to resume, after a signal, where the
    feed fails, and where the disk is full.
    """
    import tensorflow as tf
    from keras.callbacks import EarlyStopping, ModelCheckpoint, TerminateOnNaN

    from bitstorm.model import callbacks
    from bitstorm.model.network import SCRATCH

    stop, since = Stop(), task.since
    done = 0 if since is None else since.epochs
    has_next = since is None or since.has_next(task.epochs, task.patience)
    progress = callbacks.ReportProgress(EpochTimer(task))
    early = EarlyStopping(monitor="val_loss", patience=task.patience, restore_best_weights=True)
    best = ModelCheckpoint(task.folder / SCRATCH, monitor="val_loss", save_best_only=True)
    state = callbacks.ResumableState(task, early, best)
    size = task.batch_size
    with ends_as_broken_off(task.folder, lambda: len(state.history), tf.errors.OpError):
        history = callbacks.History(task.folder, state.history)
        ours = [progress, early, best, history, TerminateOnNaN(), state]
        try:
            with stop.catch_signals(), without_third_party_warnings(), _keras_silenced():
                network.fit(
                    task.train.dataset(
                        batch_size=size, seed=task.seed, epoch=lambda: progress.epoch
                    ),
                    validation_data=task.validation.dataset(batch_size=size),
                    initial_epoch=done,
                    # No epoch is left where the process ended between the last epoch and run.json.
                    epochs=task.epochs if has_next else done,
                    callbacks=[*ours, callbacks.StopOnSignal(stop)],
                    verbose=0,
                )
        finally:
            # Keras does not call this after an error.
            with suppress(OSError):
                history.on_train_end()
    return outcome(state.history, early.best_epoch + 1, early.best)


def outcome(history: tuple[Epoch, ...], best_epoch: int, best_loss: float | None) -> Fitted:
    """Raises ModelError where no epoch has a finite loss."""
    if best_loss is None or not math.isfinite(best_loss):
        raise ModelError(
            "the training loss is not a finite number; expected it to fall: "
            "lower training.learning_rate or look at the data with `bitstorm report`"
        )
    seconds = sum(epoch.seconds for epoch in history)
    return Fitted(len(history), best_epoch, best_loss, seconds)


@contextmanager
def ends_as_broken_off(
    folder: Path, epochs: Callable[[], int], *failures: type[Exception]
) -> Iterator[None]:
    """Raise BrokenOff, with the command to resume, where a signal, the disk or one of the feed's
    `failures` ends the block; `epochs()` counts the complete epochs."""
    ends: tuple[type[Exception], ...] = (BrokenOff, OSError, *failures)
    try:
        yield
    except ends as error:
        reason = reason_of(error)
        if isinstance(error, OSError):
            reason = f"{folder} cannot be written to: {error.strerror or reason}"
        raise broken_off(folder, epochs(), reason) from error


def broken_off(folder: Path, epochs: int, reason: str) -> BrokenOff:
    """The error of a training that ends early after so many complete epochs."""
    where = f"after epoch {epochs}" if epochs else "from the start"
    way = f"`bitstorm train --resume {folder.name}` goes on {where}"
    return BrokenOff(f"the training broke off ({reason}): {way}")


@contextmanager
def _keras_silenced() -> Iterator[None]:
    """Keras prints on standard output that a loss is not finite; the error says so already."""
    import keras

    before = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        yield
    finally:
        if before:
            keras.config.enable_interactive_logging()


_REPORT_SECONDS = 0.1


class EpochTimer:
    """Times the epochs of a task and reports their progress, at most ten times a second."""

    def __init__(self, task: Task) -> None:
        self._task, self._windows, self._epoch = task, len(task.train), 0
        self._began = self._reported = self._trained = 0.0

    def begin(self, epoch: int) -> None:
        """Start the epoch of this number, from 1."""
        self._epoch = epoch
        self._began = self._reported = time.monotonic()

    def batch(self, batches: int, loss: float) -> None:
        """Note that so many batches of the epoch are done."""
        now = time.monotonic()
        if now - self._reported > _REPORT_SECONDS:
            self._reported = now
            seen = min(batches * self._task.batch_size, self._windows)
            self._report(seen, now - self._began, loss, None)

    def trained(self) -> None:
        """Note that the epoch's validation begins."""
        self._trained = time.monotonic()

    def end(self, loss: float, val_loss: float) -> float:
        """End the epoch; its seconds."""
        self._report(self._windows, self._trained - self._began, loss, val_loss)
        return round(time.monotonic() - self._began, 3)

    def _report(self, seen: int, seconds: float, loss: float, val_loss: float | None) -> None:
        task, epoch, windows, rate = self._task, self._epoch, self._windows, seen / seconds
        left = ((task.epochs - epoch + 1) * windows - seen) / rate
        task.progress(
            Progress(epoch, task.epochs, seen, windows, loss, val_loss, rate, seconds_left=left)
        )
