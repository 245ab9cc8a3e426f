"""Fitting a network, epoch by epoch: one loop for every backend, and a state after each epoch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bitstorm import filesystem
from bitstorm.errors import BrokenOff, ModelError
from bitstorm.model import checkpoint
from bitstorm.model.checkpoint import Checkpoint
from bitstorm.model.learner import Learner
from bitstorm.model.standing import Epoch, Standing
from bitstorm.model.supervision import Stop, Supervised, end_overdue
from bitstorm.quiet import third_party_warnings_hushed

AUTO_BATCH_SIZE = 256
# What Adam's own paper suggests, at the batch size that Keras takes by default.
BASE_LEARNING_RATE, BASE_BATCH_SIZE = 0.001, 32
HISTORY = "history.csv"
_TELL_SECONDS = 0.1

Batches = Iterator[tuple[Any, Any]]


class Windows(Protocol):
    """What the loop asks of a feed."""

    def __len__(self) -> int: ...

    def epoch(
        self, *, batch_size: int, seed: int | None = None, number: int = 0
    ) -> AbstractContextManager[Batches]: ...


@dataclass(frozen=True)
class Rules:
    """`epochs` at most; `patience` epochs without a better validation loss end it before."""

    epochs: int
    patience: int
    batch_size: int
    seed: int
    deadline_seconds: float


def auto_learning_rate(batch_size: int) -> float:
    """Of Adam. With k times the windows a step, sqrt(k) times the rate: Malladi, Lyu, Panigrahi and
    Arora, "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms" (2022)."""
    return BASE_LEARNING_RATE * math.sqrt(batch_size / BASE_BATCH_SIZE)


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
    # Share of the epoch's time that was spent waiting for a batch.
    waiting: float


@dataclass(frozen=True)
class Fitted:
    """`best_epoch` counts from 1; losses are mean squared errors of the scaled target."""

    epochs: int
    best_epoch: int
    best_validation_loss: float
    seconds: float
    data_wait_share: float
    best_file: str


def fit(
    learner: Learner,
    *,
    train: Windows,
    validation: Windows,
    rules: Rules,
    folder: Path,
    progress: Callable[[Progress], None],
    record: Mapping[str, Any],
    since: Checkpoint | None = None,
) -> Fitted:
    """Train from the start, or from `since`, until `rules` end it.

    After each epoch a checkpoint (with `record`), `history.csv`, and where it is the best so far
    the network's weights are written into the folder. An epoch whose loss is not a finite number
    is the last one; the best before it counts, and ModelError is raised when there is none. Raises
    BrokenOff, in a sentence that names the way on, where a signal came, the feed failed or stood
    still, or the disk is full. Afterwards the learner has the best epoch's weights.
    """
    stop = Stop()
    standing = Standing() if since is None else since.standing
    best = dict(since.best) if since is not None else {}
    best_file = ""

    def overdue(name: str) -> None:
        end_overdue(_way_on(f"stopped by {name}", folder, standing))

    passes = _passes(train, validation, rules, first=standing.epochs)
    try:
        if since is not None:
            with _writing(folder):
                best_file = _restore(learner, since, folder)
        with (
            third_party_warnings_hushed(),
            stop.installed(overdue),
            Supervised(passes, stop=stop, deadline_seconds=rules.deadline_seconds) as stream,
        ):
            while standing.goes_on(epochs=rules.epochs, patience=rules.patience):
                epoch = _epoch(learner, stream, standing, rules, len(train), progress)
                with _writing(folder):
                    after = standing.after(epoch)
                    if after.best_epoch == epoch.epoch:
                        best = learner.weights()
                    if epoch.finite:
                        checkpoint.save(folder, Checkpoint(after, learner.state(), best, record))
                    standing = after
                    if standing.best_epoch == epoch.epoch:
                        best_file = learner.save_best(folder)
                    filesystem.replace(folder / HISTORY, standing.to_csv().encode())
    except BrokenOff as error:
        raise BrokenOff(_way_on(str(error), folder, standing)) from error.__cause__
    if not math.isfinite(standing.best_loss):
        raise ModelError(
            "the training loss is not a finite number; expected it to fall: "
            "lower training.learning_rate or look at the data with `bitstorm report`"
        )
    learner.set_weights(best)
    return Fitted(
        epochs=standing.epochs,
        best_epoch=standing.best_epoch,
        best_validation_loss=standing.best_loss,
        seconds=standing.seconds,
        data_wait_share=standing.waited / standing.seconds if standing.seconds else 0.0,
        best_file=best_file,
    )


def _restore(learner: Learner, since: Checkpoint, folder: Path) -> str:
    """The state of the checkpoint, and the files that belong to it: a killed run may have left
    those of an epoch that it did not complete. The name of the best network's file."""
    # An epoch that is saved has a finite loss, so there is a best one.
    learner.set_weights(since.best)
    best_file = learner.save_best(folder)
    learner.restore(since.state)
    filesystem.replace(folder / HISTORY, since.standing.to_csv().encode())
    return best_file


def _passes(
    train: Windows, validation: Windows, rules: Rules, *, first: int
) -> Iterator[tuple[str, Any, Any]]:
    """The batches of all epochs to come, in one stream: the next pass is opened while the last
    batches of the one before it are still being computed."""
    for number in range(first, rules.epochs):
        passes = (
            ("training", train.epoch(batch_size=rules.batch_size, seed=rules.seed, number=number)),
            ("validation", validation.epoch(batch_size=rules.batch_size)),
        )
        for part, one in passes:
            with one as batches:
                for window, target in batches:
                    yield part, window, target
            yield f"end of {part}", None, None


def _epoch(
    learner: Learner,
    stream: Supervised[tuple[str, Any, Any]],
    standing: Standing,
    rules: Rules,
    windows: int,
    progress: Callable[[Progress], None],
) -> Epoch:
    began, waited = time.monotonic(), stream.waited
    number = standing.epochs + 1
    told = began

    def tell(loss: float, seen: int, rate: float, val_loss: float | None) -> None:
        seconds = time.monotonic() - began
        left = (rules.epochs - number + 1) * windows - seen
        share = (stream.waited - waited) / seconds
        progress(
            Progress(number, rules.epochs, seen, windows, loss, val_loss, rate, left / rate, share)
        )

    total, seen = 0.0, 0
    for part, window, target in stream:
        if part != "training":
            break
        n = len(target)
        total += float(learner.fit_batch(window, target)) * n
        seen += n
        if time.monotonic() - told > _TELL_SECONDS:
            told = time.monotonic()
            tell(total / seen, seen, seen / (told - began), None)
    loss, rate = total / seen, seen / (time.monotonic() - began)
    total, checked = 0.0, 0
    for part, window, target in stream:
        if part != "validation":
            break
        error = learner.predict(window).astype(np.float64) - np.asarray(target, np.float64)
        total += float(error @ error)
        checked += len(error)
    val_loss = total / checked
    tell(loss, seen, rate, val_loss)
    return Epoch(
        number,
        loss,
        val_loss,
        round(time.monotonic() - began, 3),
        round(stream.waited - waited, 4),
    )


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or (str(error).splitlines() or [type(error).__name__])[0]
        raise BrokenOff(f"{folder} cannot be written to: {reason}") from error


def _way_on(reason: str, folder: Path, standing: Standing) -> str:
    where = f"after epoch {standing.epochs}" if standing.epochs else "from the start"
    command = f"bitstorm train --resume {folder.name}"
    return f"the training broke off ({reason}): `{command}` goes on {where}"
