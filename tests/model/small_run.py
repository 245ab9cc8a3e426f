"""A small training on windows of an array."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LOOK_BACK = 4
SHAPE: dict[str, Any] = {
    "look_back": LOOK_BACK,
    "features": 1,
    "units": 4,
    "dropout": 0.2,
    "learning_rate": 0.02,
}


@dataclass(frozen=True)
class InMemory:
    """Windows of an array, served as a feed does."""

    window: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def dataset(
        self, *, batch_size: int, seed: int | None = None, epoch: Callable[[], int] = lambda: 0
    ) -> Any:
        import tensorflow as tf

        shape = (None, *self.window.shape[1:])
        batches = tf.data.Dataset.from_generator(
            lambda: self.batches(batch_size, seed, epoch()),
            output_signature=(tf.TensorSpec(shape, tf.float32), tf.TensorSpec((None,), tf.float32)),
        )
        return batches.apply(tf.data.experimental.assert_cardinality(-(-len(self) // batch_size)))

    def batches(self, batch_size: int, seed: int | None, number: int) -> Iterator[Any]:
        order = np.arange(len(self))
        if seed is not None:
            order = np.random.default_rng([seed, number]).permutation(len(self))
        for begin in range(0, len(self), batch_size):
            place = order[begin : begin + batch_size]
            yield self.window[place], self.target[place]


def made(folder: Path) -> Path:
    """150 and 37 windows whose target is their last value's opposite, with noise."""
    random = np.random.default_rng(2)
    window = random.normal(size=(187, LOOK_BACK, 1)).astype(np.float32)
    target = (-window[:, -1, 0] + random.normal(0, 0.1, 187)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "windows.npz", window=window, target=target)
    return folder


def feeds(folder: Path) -> tuple[InMemory, InMemory]:
    with np.load(folder / "windows.npz") as arrays:
        window, target = arrays["window"], arrays["target"]
    return InMemory(window[:150], target[:150]), InMemory(window[150:], target[150:])


def new_network(*, seed, **wanted):
    from bitstorm.model import network

    return network.seeded(**{**SHAPE, **wanted}, seed=seed)


def fitted(out, train, validation, network, *, seed, told=None, since=None, **rules):
    from bitstorm.model import loop, torch_backend, training

    usual = {"epochs": 4, "patience": 9, "batch_size": 16}
    by = loop if isinstance(network, torch_backend.TorchNetwork) else training
    task = training.Task(
        train=train,
        validation=validation,
        folder=out,
        progress=(lambda at: None) if told is None else told,
        record={"run": out.name},
        since=since,
        **{**usual, "seed": seed, **rules},
    )
    return by.fit(network, task)


def losses(out: Path) -> list[tuple[str, str]]:
    """(loss, val_loss) by epoch as the text of the file: equal only when every bit is."""
    with (out / "history.csv").open(newline="") as stream:
        return [(row["loss"], row["val_loss"]) for row in csv.DictReader(stream)]


def trained(folder, *, seed, **rules):
    """The outcome, the losses by epoch, and the folder."""
    out = folder / f"run-{seed}-{len(list(folder.iterdir()))}"
    out.mkdir()
    network = new_network(seed=seed)
    return fitted(out, *feeds(folder), network, seed=seed, **rules), losses(out), out
