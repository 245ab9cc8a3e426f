"""Training in PyTorch: a plain loop, with the early stopping, the files and the states of that by
Keras."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm.core import durable_io
from bitstorm.core.errors import ModelError
from bitstorm.core.third_party_noise import third_party_warnings_hushed
from bitstorm.model import checkpoint
from bitstorm.model.checkpoint import Arrays, Checkpoint, Epoch
from bitstorm.model.feed import Feed
from bitstorm.model.progress import Meter, Progress
from bitstorm.model.stopping import Stop
from bitstorm.model.torch_network import BEST, TorchNetwork
from bitstorm.model.training import Fitted, Rules, breaking_off, outcome
from bitstorm.model.windowing import Batch


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
    if since is not None:
        network.restore(since.state)
    with (
        # What fails in a feed is a ModelError.
        breaking_off(folder, lambda: at.epochs, ModelError),
        stop.installed(),
        third_party_warnings_hushed(),
    ):
        checkpoint.write_history(folder, at.history)
        if since is not None:
            # A killed process may have left the file of an epoch that it did not complete.
            _save_best(folder, since.best)
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

    def mean(feed: Feed, squares: Callable[[Batch], float], seed: int | None, epoch: int) -> float:
        """The mean squared error of a pass over the feed; `squares` is a batch's sum."""
        total, seen = 0.0, 0
        with closing(
            feed.torch_batches(batch_size=rules.batch_size, seed=seed, epoch=epoch)
        ) as drawn:
            for count, batch in enumerate(drawn, start=1):
                total += squares(batch)
                seen += len(batch)
                if seed is not None:
                    meter.batch(count, total / seen)
                stop.check()
        return total / seen

    def validated(batch: Batch) -> float:
        error = network.predict(batch.window).astype(np.float64) - batch.target
        return float(error @ error)

    meter.begin(number + 1)
    with network.in_training():
        loss = mean(train, lambda b: network.step(b.window, b.target) * len(b), rules.seed, number)
    meter.trained()
    val_loss = mean(validation, validated, None, 0)
    return Epoch(number + 1, loss, val_loss, meter.end(loss, val_loss))


def _save_best(folder: Path, weights: Arrays) -> None:
    stream = io.BytesIO()
    np.savez(stream, **weights)
    durable_io.replace(folder / BEST, stream.getvalue())
