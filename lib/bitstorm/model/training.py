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
# What Adam's own paper suggests, at the batch size that Keras takes by default.
BASE_LEARNING_RATE, BASE_BATCH_SIZE = 0.001, 32


@dataclass(frozen=True)
class Rules:
    """`epochs` at most; `patience` epochs without a better validation loss end it before."""

    epochs: int
    patience: int
    batch_size: int
    seed: int


@dataclass(frozen=True)
class Fitted:
    """`best_epoch` counts from 1; losses are mean squared errors of the scaled target."""

    epochs: int
    best_epoch: int
    best_validation_loss: float
    seconds: float


def auto_learning_rate(batch_size: int) -> float:
    """Of Adam. With k times the windows a step, sqrt(k) times the rate: Malladi, Lyu, Panigrahi and
    Arora, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms" (2022)."""
    return BASE_LEARNING_RATE * math.sqrt(batch_size / BASE_BATCH_SIZE)


def fit(
    network: Any,
    *,
    train: Feed,
    validation: Feed,
    rules: Rules,
    folder: Path,
    progress: Callable[[Progress], None],
    record: Mapping[str, Any],
    since: Checkpoint | None = None,
) -> Fitted:
    """Train a network by `network.seeded` from the start, or from `since`, until `rules` end it.

    After each epoch a checkpoint (with `record`), a row of `history.csv`, and where it is the best
    so far `best.keras` are written into the folder. An epoch whose loss is not a finite number is
    the last one; the best before it counts, and ModelError is raised when there is none. Raises
    BrokenOff, in a sentence that names the way on, where a signal came, the feed failed, or the
    disk is full. Afterwards the network has the best epoch's weights.
    """
    import tensorflow as tf
    from keras.callbacks import EarlyStopping, ModelCheckpoint, TerminateOnNaN

    from bitstorm.model import callbacks
    from bitstorm.model.network import SCRATCH

    stop = Stop()
    size, done = rules.batch_size, 0 if since is None else since.epochs
    goes_on = since is None or since.goes_on(epochs=rules.epochs, patience=rules.patience)
    told = callbacks.Progress(
        Meter(len(train), batch_size=size, epochs=rules.epochs, tell=progress)
    )
    early = EarlyStopping(monitor="val_loss", patience=rules.patience, restore_best_weights=True)
    best = ModelCheckpoint(folder / SCRATCH, monitor="val_loss", save_best_only=True)
    state = callbacks.ResumableState(folder, record, since, early=early, best=best)
    with breaking_off(folder, lambda: len(state.history), tf.errors.OpError):
        history = callbacks.History(folder, state.history)
        try:
            with stop.catch_signals(), without_third_party_warnings(), _quiet():
                network.fit(
                    train.dataset(batch_size=size, seed=rules.seed, epoch=lambda: told.epoch),
                    validation_data=validation.dataset(batch_size=size),
                    initial_epoch=done,
                    # None of a run that was stopped between its end and its record.
                    epochs=rules.epochs if goes_on else done,
                    callbacks=[
                        told,
                        early,
                        best,
                        history,
                        TerminateOnNaN(),
                        state,
                        callbacks.StopOnSignal(stop),
                    ],
                    verbose=0,
                )
        finally:
            # What ends a training by an error doesn't tell the callbacks.
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
def breaking_off(
    folder: Path, epochs: Callable[[], int], *failures: type[Exception]
) -> Iterator[None]:
    """What ends the block early ends it as BrokenOff, with the way on after so many epochs: a
    signal, the disk, or one of the feed's failures."""
    ends: tuple[type[Exception], ...] = (BrokenOff, OSError, *failures)
    try:
        yield
    except ends as error:
        reason = reason_of(error)
        if isinstance(error, OSError):
            reason = f"{folder} cannot be written to: {error.strerror or reason}"
        where = f"after epoch {epochs()}" if epochs() else "from the start"
        way = f"`bitstorm train --resume {folder.name}` goes on {where}"
        raise BrokenOff(f"the training broke off ({reason}): {way}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keras says on standard output that a loss is not finite; so does the error."""
    import keras

    before = keras.config.is_interactive_logging_enabled()
    keras.config.disable_interactive_logging()
    try:
        yield
    finally:
        if before:
            keras.config.enable_interactive_logging()


_TELL_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """Where an epoch is. `loss` is that of the windows so far; `val_loss` is known at its end."""

    epoch: int
    epochs: int
    windows: int
    of_windows: int
    loss: float
    val_loss: float | None
    windows_per_second: float
    # Until the last epoch that there can be, at the present rate.
    seconds_left: float


class Meter:
    """Times epochs and tells their progress, ten times a second at most."""

    def __init__(
        self, windows: int, *, batch_size: int, epochs: int, tell: Callable[[Progress], None]
    ) -> None:
        self._windows, self._batch_size, self._epochs = windows, batch_size, epochs
        self._tell = tell
        self._epoch = 0
        self._began = self._told = self._trained = 0.0

    def begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._began = self._told = time.monotonic()

    def batch(self, batches: int, loss: float) -> None:
        """So many batches of the epoch are done."""
        now = time.monotonic()
        if now - self._told > _TELL_SECONDS:
            self._told = now
            seen = min(batches * self._batch_size, self._windows)
            self._say(seen, now - self._began, loss, None)

    def trained(self) -> None:
        """The epoch's validation begins."""
        self._trained = time.monotonic()

    def end(self, loss: float, val_loss: float) -> float:
        """The epoch's seconds."""
        self._say(self._windows, self._trained - self._began, loss, val_loss)
        return round(time.monotonic() - self._began, 3)

    def _say(self, seen: int, seconds: float, loss: float, val_loss: float | None) -> None:
        rate = seen / seconds
        left = (self._epochs - self._epoch + 1) * self._windows - seen
        self._tell(
            Progress(
                epoch=self._epoch,
                epochs=self._epochs,
                windows=seen,
                of_windows=self._windows,
                loss=loss,
                val_loss=val_loss,
                windows_per_second=rate,
                seconds_left=left / rate,
            )
        )
