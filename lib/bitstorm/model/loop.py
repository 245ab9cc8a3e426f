"""The plain training loop: PyTorch's network alone, and either backend's with several workers.

It has the rules, the files and the states of Keras' `fit` in `training`. In a team every worker
runs the loop, and rank 0 alone writes. All have the same losses, so all end after the same epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Any

import numpy as np

from bitstorm.core.errors import ModelError
from bitstorm.core.stopping import Stop
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.model import checkpoint
from bitstorm.model.checkpoint import Checkpoint, Epoch
from bitstorm.model.feed import Feed
from bitstorm.model.team import ALONE, Team
from bitstorm.model.training import EpochTimer, Fitted, Task, ends_as_broken_off, outcome
from bitstorm.model.windowing import Batch


def fit(network: Any, task: Task, team: Team = ALONE) -> Fitted:
    """As `training.fit`, for a `TorchNetwork` or a `KerasNetwork` with the weights of its seed."""
    stop, timer = Stop(), EpochTimer(task)
    at = task.since or Checkpoint((), 0, math.inf, {}, {}, task.record)
    writes = team.rank == 0
    with (
        # A feed's failure is a ModelError.
        ends_as_broken_off(task.folder, lambda: at.epochs, ModelError),
        stop.catch_signals(),
        without_third_party_warnings(),
    ):
        if writes:
            checkpoint.write_history(task.folder, at.history)
        if task.since is not None:
            if writes:
                # The file can be from an epoch that a killed process did not complete.
                network.save_best(task.folder, task.since.best)
            network.restore(task.since.state)
        while at.has_next(task.epochs, task.patience):
            epoch = _epoch(network, task, team, timer, stop, at.epochs)
            history = (*at.history, epoch)
            if writes:
                checkpoint.write_history(task.folder, history)
            if not epoch.finite:
                at = replace(at, history=history)
                break
            now = replace(at, history=history, state=network.state(), record=task.record)
            if epoch.val_loss < at.best_loss:
                best, loss = network.weights(), epoch.val_loss
                now = replace(now, best_epoch=epoch.epoch, best_loss=loss, best=best)
                if writes:
                    network.save_best(task.folder, best)
            if writes:
                checkpoint.save(task.folder, now)
            at = now
    fitted = outcome(at.history, at.best_epoch, at.best_loss)
    network.set_weights(at.best)
    return fitted


def _epoch(
    network: Any, task: Task, team: Team, timer: EpochTimer, stop: Stop, number: int
) -> Epoch:
    """Train and validate the epoch of this number, from 0."""

    def batches(feed: Feed, **order: int) -> AbstractContextManager[Iterator[Batch]]:
        return closing(feed.batches(network.library, batch_size=task.batch_size, **order))

    timer.begin(number + 1)
    if team.size > 1:
        # Each worker has a dropout of its own, and a resumed epoch has the same.
        network.reseed([task.seed, number, team.rank])
    total, seen = 0.0, 0
    with network.in_training(), batches(task.train, seed=task.seed, epoch=number) as drawn:
        for count, batch in enumerate(drawn, start=1):
            total += network.step(batch.window, batch.target, team) * len(batch)
            seen += len(batch)
            timer.batch(count, total / seen)
            stop.check()
    timer.trained()
    squares = 0.0
    with batches(task.validation) as drawn:
        for batch in drawn:
            share = team.share(len(batch))
            error = network.predict(batch.window[share]).astype(np.float64) - batch.target[share]
            squares += float(error @ error)
            stop.check()
    loss, val_loss = total / seen, team.add([], squares) / len(task.validation)
    return Epoch(number + 1, loss, val_loss, timer.end(loss, val_loss))
