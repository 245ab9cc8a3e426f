"""Training in PyTorch: a plain loop, with the early stopping, the files and the states of that by
Keras."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm import filesystem
from bitstorm.errors import BrokenOff, ModelError
from bitstorm.model import checkpoint
from bitstorm.model.checkpoint import Arrays, Checkpoint, Epoch
from bitstorm.model.feed import Feed
from bitstorm.model.framing import Batch
from bitstorm.model.progress import Meter, Progress
from bitstorm.model.stopping import Stop
from bitstorm.model.torch_network import BEST, TorchNetwork
from bitstorm.model.training import Fitted, Rules, breaking_off, outcome
from bitstorm.quiet import third_party_warnings_hushed


def fit(
    network: TorchNetwork,
    *,
    train: Feed,
    validation: Feed,
    rules: Rules,
    folder: Path,
    progress: Callable[[Progress], None],
    record: Mapping[str, Any],
    since: Checkpoint | None = None,
) -> Fitted:
    """As `training.fit`, for a network by `torch_network.seeded`; it writes `best.npz`."""
    stop = Stop()
    at = since or Checkpoint((), 0, math.inf, {}, {}, record)
    meter = Meter(len(train), batch_size=rules.batch_size, epochs=rules.epochs, tell=progress)
    with (
        breaking_off(folder, lambda: at.epochs),
        stop.installed(),
        third_party_warnings_hushed(),
    ):
        checkpoint.write_history(folder, at.history)
        if since is not None:
            # A killed process may have left the file of an epoch that it did not complete.
            _save_best(folder, since.best)
            network.restore(since.state)
        while at.goes_on(epochs=rules.epochs, patience=rules.patience):
            epoch = _epoch(network, train, validation, rules, meter, stop, at.epochs)
            history = (*at.history, epoch)
            checkpoint.write_history(folder, history)
            if not epoch.finite:
                at = replace(at, history=history)
                break
            now = replace(at, history=history, state=network.state(), record=record)
            if epoch.val_loss < at.best_loss:
                now = replace(
                    now,
                    best_epoch=epoch.epoch,
                    best_loss=epoch.val_loss,
                    best=network.weights(),
                )
                _save_best(folder, now.best)
            checkpoint.save(folder, now)
            at = now
    fitted = outcome(at.history, at.best_epoch, at.best_loss)
    network.set_weights(at.best)
    return fitted


def _epoch(
    network: TorchNetwork,
    train: Feed,
    validation: Feed,
    rules: Rules,
    meter: Meter,
    stop: Stop,
    number: int,
) -> Epoch:
    """The epoch of this number, from 0."""
    meter.begin(number + 1)
    size = rules.batch_size
    total, seen, batches = 0.0, 0, 0
    with network.in_training(), closing(_drawn(train, size, rules.seed, number)) as drawn:
        for batch in drawn:
            total += network.step(batch.window, batch.target) * len(batch)
            seen += len(batch)
            batches += 1
            meter.batch(batches, total / seen)
            stop.check()
    loss = total / seen
    meter.trained()
    total, seen = 0.0, 0
    with closing(_drawn(validation, size, None, 0)) as drawn:
        for batch in drawn:
            error = network.predict(batch.window).astype(np.float64) - batch.target
            total += float(error @ error)
            seen += len(batch)
            stop.check()
    val_loss = total / seen
    return Epoch(number + 1, loss, val_loss, meter.end(loss, val_loss))


def _drawn(
    feed: Feed, batch_size: int, seed: int | None, epoch: int
) -> Generator[Batch, None, None]:
    """A pass whose failure breaks the training off."""
    try:
        yield from feed.torch_batches(batch_size=batch_size, seed=seed, epoch=epoch)
    except ModelError as error:
        raise BrokenOff(str(error)) from error


def _save_best(folder: Path, weights: Arrays) -> None:
    stream = io.BytesIO()
    np.savez(stream, **weights)
    filesystem.replace(folder / BEST, stream.getvalue())
