"""The loop with a linear network: any number of workers goes the way of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from bitstorm.model import checkpoint, loop
from bitstorm.model.team import ALONE, Team
from bitstorm.model.training import Fitted, Task
from bitstorm.model.windowing import Batch
from model.test_team import together

BATCH, EPOCHS = 16, 3


@dataclass(frozen=True)
class InMemory:
    """Windows of three values, whose target follows from them."""

    window: np.ndarray

    def __len__(self) -> int:
        return len(self.window)

    def batches(
        self, library: str, *, batch_size: int, seed: int | None = None, epoch: int = 0
    ) -> Iterator[Batch]:
        order = np.arange(len(self))
        if seed is not None:
            order = np.random.default_rng([seed, epoch]).permutation(len(self))
        for begin in range(0, len(self), batch_size):
            window = self.window[order[begin : begin + batch_size]]
            target = window[:, :, 0] @ np.array([0.5, -1, 2], np.float32)
            yield Batch(window, target, target, target, target)


@dataclass
class Linear:
    """A network with three weights and steps down the gradient."""

    library = "numpy"
    kernel: np.ndarray = field(default_factory=lambda: np.zeros(3, np.float32))
    steps: int = 0
    entropy: list[Sequence[int]] = field(default_factory=list)

    def in_training(self) -> Any:
        return nullcontext()

    def reseed(self, entropy: Sequence[int]) -> None:
        self.entropy.append(entropy)

    def step(self, window: np.ndarray, target: np.ndarray, team: Team = ALONE) -> float:
        share = team.share(len(target))
        error = self.predict(window[share]) - target[share]
        gradient = (2 * error @ window[share, :, 0] / len(target)).astype(np.float32)
        loss = team.add([gradient], float(error @ error) / len(target))
        self.kernel, self.steps = self.kernel - np.float32(0.05) * gradient, self.steps + 1
        return loss

    def predict(self, window: np.ndarray) -> np.ndarray:
        return window[:, :, 0] @ self.kernel

    def weights(self) -> dict[str, np.ndarray]:
        return {"kernel": self.kernel.copy()}

    def set_weights(self, weights: Any) -> None:
        self.kernel = weights["kernel"].copy()

    state, restore = weights, set_weights

    def save_best(self, folder: Any, weights: Any) -> None:
        np.savez(folder / "best.npz", **weights)


# The last batch of an epoch has two windows: fewer than some teams have workers.
@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_team_goes_the_way_of_one_worker(tmp_path, size):
    drawn = np.random.default_rng(8).normal(size=(130, 3, 1)).astype(np.float32)
    train, validation = InMemory(drawn[:98]), InMemory(drawn[98:])
    reports: list[Any] = []

    def trained(name: str, network: Linear, team: Team = ALONE) -> Fitted:
        folder = tmp_path / name
        folder.mkdir()
        task = Task(
            train=train,  # type: ignore[arg-type]
            validation=validation,  # type: ignore[arg-type]
            epochs=EPOCHS,
            patience=9,
            batch_size=BATCH,
            seed=5,
            folder=folder,
            record={},
            progress=reports.append,
        )
        return loop.fit(network, task, team)

    alone = Linear()
    expected = trained("alone", alone)
    networks = [Linear() for _ in range(size)]
    outcome, _ = together(
        size, lambda team: team.done(vars(trained(str(team.rank), networks[team.rank], team)))
    )
    assert (outcome["epochs"], outcome["best_epoch"]) == (expected.epochs, expected.best_epoch)
    best = pytest.approx(expected.best_validation_loss, rel=1e-5)
    assert outcome["best_validation_loss"] == best
    for rank, network in enumerate(networks):
        assert network.steps == alone.steps == EPOCHS * 7
        assert network.kernel == pytest.approx(alone.kernel, abs=1e-6)
        # The same bits in all of them, and a dropout for each.
        assert network.kernel.tobytes() == networks[0].kernel.tobytes()
        assert network.entropy == [[5, number, rank] for number in range(EPOCHS)]
    assert alone.entropy == []
    ours, theirs = (checkpoint.load(tmp_path / name)[0] for name in ("alone", "0"))
    assert ours is not None and theirs is not None
    for one, other in zip(ours.history, theirs.history, strict=True):
        assert (other.loss, other.val_loss) == pytest.approx((one.loss, one.val_loss), rel=1e-5)
    # Rank 0 alone writes.
    assert {path.name for path in tmp_path.iterdir() if any(path.iterdir())} == {"alone", "0"}
