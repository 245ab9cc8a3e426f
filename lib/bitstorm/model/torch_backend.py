"""The stacked LSTM of the contract in PyTorch, on the CPU, and the plain loop that trains it.

It starts, learns and forgets as the Keras one does, so that a run does not depend on the library:
the same distributions of first weights, one bias a gate, Adam by Keras' formula, the same early
stopping, files and states.

Its weights go over to Keras' layout, the portable one, and back. Keras keeps a layer of u cells on
k inputs as `kernel` (k, 4u), `recurrent_kernel` (u, 4u) and one `bias` (4u,), the gates in the
order i, f, c, o; PyTorch as `weight_ih_l0` (4u, k), `weight_hh_l0` (4u, u) and two biases (4u,)
that it adds, the gates in the same order (its g is Keras' c). So the matrices are transposed, and
the second of the two biases stays zero.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from bitstorm.core import durable_io
from bitstorm.core.errors import ModelError, first_line
from bitstorm.core.stopping import Stop
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.model import checkpoint
from bitstorm.model.checkpoint import Arrays, Checkpoint, Epoch, check_shapes
from bitstorm.model.feed import Feed
from bitstorm.model.training import Fitted, Meter, Progress, Rules, breaking_off, outcome
from bitstorm.model.windowing import Batch

if TYPE_CHECKING:
    import torch


BEST = "best.npz"
# Portable name → PyTorch's, of all that learns.
_NAMES = {
    **{
        f"{layer}/{ours}": f"{layer}.{theirs}_l0"
        for layer in ("lstm", "lstm_1")
        for ours, theirs in (
            ("kernel", "weight_ih"),
            ("recurrent_kernel", "weight_hh"),
            ("bias", "bias_ih"),
        )
    },
    "dense/kernel": "dense.weight",
    "dense/bias": "dense.bias",
}
# Keras' Adam: PyTorch's own epsilon is 1e-8, and stands elsewhere in the formula.
BETAS = (0.9, 0.999)
EPSILON = 1e-7
_MOMENTS = ("exp_avg", "exp_avg_sq")


def to_torch(weights: Arrays) -> dict[str, np.ndarray]:
    """Portable weights → those of PyTorch that learn, each contiguous and a copy."""
    return {theirs: _turned(weights[ours]) for ours, theirs in _NAMES.items()}


def from_torch(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The way back, exact."""
    return {ours: _turned(weights[theirs]) for ours, theirs in _NAMES.items()}


def _turned(matrix: Any) -> np.ndarray:
    return np.array(np.transpose(matrix), order="C")


def build(*, features: int, units: int, dropout: float, generator: torch.Generator) -> Any:
    """The module: float32 (n, look_back, features) → (n,), with Keras' first weights.

    LSTM → Dropout → LSTM → Dropout → Linear. Kernels are Glorot uniform, recurrent kernels
    orthogonal, biases zero but for the forget gates' one, all drawn from the generator.
    """
    from torch import nn

    class StackedLstm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(features, units, batch_first=True)
            self.dropout = nn.Dropout(dropout)
            self.lstm_1 = nn.LSTM(units, units, batch_first=True)
            self.dropout_1 = nn.Dropout(dropout)
            self.dense = nn.Linear(units, 1)

        def forward(self, window: torch.Tensor) -> torch.Tensor:
            series, _ = self.lstm(window)
            _, (last, _) = self.lstm_1(self.dropout(series))
            return self.dense(self.dropout_1(last[0]))[:, 0]

    module = StackedLstm()
    for layer in (module.lstm, module.lstm_1):
        nn.init.xavier_uniform_(layer.weight_ih_l0, generator=generator)
        nn.init.orthogonal_(layer.weight_hh_l0, generator=generator)
        nn.init.zeros_(layer.bias_ih_l0)
        nn.init.ones_(layer.bias_ih_l0.data[units : 2 * units])
        # PyTorch adds a second bias. Trained as well it would double every step of their sum.
        nn.init.zeros_(layer.bias_hh_l0).requires_grad_(False)
    nn.init.xavier_uniform_(module.dense.weight, generator=generator)
    nn.init.zeros_(module.dense.bias)
    return module


def seeded(
    *,
    look_back: int,
    features: int,
    units: int,
    dropout: float,
    learning_rate: float,
    seed: int,
) -> TorchNetwork:
    """A network whose weights, and whose dropout, follow from the seed alone."""
    # Read once, when PyTorch is loaded. Its threads else spin while they wait for one another,
    # which beside a busy JVM makes a step ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    generator = torch.Generator().manual_seed(seed)
    module = build(features=features, units=units, dropout=dropout, generator=generator)
    # What is left after the weights are drawn decides on the dropout.
    return TorchNetwork(module, (look_back, features), learning_rate, generator.get_state())


class TorchNetwork:
    """A module by `build` with its optimiser, and the random state of its dropout. Windows are
    float32 (n, look_back, features) of numpy, targets float32 (n,)."""

    def __init__(
        self, module: Any, shape: tuple[int, int], learning_rate: float, random: torch.Tensor
    ) -> None:
        import torch

        self.module = module
        self._shape = shape
        self._random = random
        self._steps = 0
        learnt = [p for p in module.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(learnt, lr=learning_rate, betas=BETAS, eps=EPSILON)
        # An optimiser has no moments before its first step; a state always holds them.
        for parameter in learnt:
            self._optimizer.state[parameter] = {
                "step": torch.zeros(()),
                **{moment: torch.zeros_like(parameter) for moment in _MOMENTS},
            }

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """For `step`: deterministic, and drawing from the network's own random state. nn.Dropout
        knows only the process' generator, which is given back as it was."""
        import torch

        strict = torch.are_deterministic_algorithms_enabled()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random)
            torch.use_deterministic_algorithms(True)
            self.module.train()
            try:
                yield
            finally:
                self._random = torch.get_rng_state()
                torch.use_deterministic_algorithms(strict)
                self.module.eval()

    def step(self, window: np.ndarray, target: np.ndarray) -> float:
        """One step of the optimiser; the batch's mean squared error before it."""
        import torch

        self._optimizer.zero_grad()
        said = self.module(torch.from_numpy(window))
        loss = (said - torch.from_numpy(target)).square().mean()
        loss.backward()
        self._steps += 1
        # Keras: m · α/(√v + ε) with α = lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ); PyTorch divides √v by
        # √(1 − β₂ᵗ) before it adds ε. With ε divided by it, too, the two are one.
        self._optimizer.param_groups[0]["eps"] = EPSILON / math.sqrt(1 - BETAS[1] ** self._steps)
        self._optimizer.step()
        return float(loss.detach())

    def predict(self, window: np.ndarray) -> np.ndarray:
        """float32 (n,), without dropout."""
        import torch

        if window.shape[1:] != self._shape:
            raise ModelError(
                f"found windows of shape {window.shape}, expected (n, {self._shape[0]}, "
                f"{self._shape[1]}): train again on these features"
            )
        self.module.eval()
        with torch.inference_mode():
            return self.module(torch.from_numpy(window)).numpy()

    def weights(self) -> dict[str, np.ndarray]:
        """By their portable names."""
        return from_torch(self.module.state_dict())

    def set_weights(self, weights: Arrays) -> None:
        """Raises ModelError where names or shapes are others."""
        import torch

        check_shapes(weights, self.weights())
        found = to_torch(weights)
        # The second biases are not among them, and stay zero.
        self.module.load_state_dict(
            {n: torch.from_numpy(value) for n, value in found.items()}, strict=False
        )

    def state(self) -> dict[str, np.ndarray]:
        """Weights and Adam's moments by their portable names, its steps, and the random state."""
        found = {f"weights/{name}": value for name, value in self.weights().items()}
        for moment in _MOMENTS:
            kept = {name: self._optimizer.state[p][moment] for name, p in self._learnt()}
            found |= {f"optimizer/{moment}/{n}": value for n, value in from_torch(kept).items()}
        found["optimizer/steps"] = np.array(self._steps, np.int64)
        found["random"] = self._random.numpy().copy()
        return found

    def restore(self, state: Arrays) -> None:
        """Go on from what `state` gave. Raises ModelError where it is of another network."""
        import torch

        check_shapes(state, self.state())
        self.set_weights(_below("weights/", state))
        self._steps = int(state["optimizer/steps"])
        self._random = torch.from_numpy(np.array(state["random"], np.uint8))
        kept = {m: to_torch(_below(f"optimizer/{m}/", state)) for m in _MOMENTS}
        for name, parameter in self._learnt():
            moments = self._optimizer.state[parameter]
            moments["step"].fill_(self._steps)
            for moment, values in kept.items():
                moments[moment].copy_(torch.from_numpy(values[name]))

    def load(self, content: bytes) -> None:
        """Take the weights of a `best.npz`, nothing of it unpickled. Raises ModelError, its text a
        reason, where it holds anything else."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                weights = {name: kept[name] for name in kept.files}
        except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise ModelError(f"{BEST} cannot be read: {first_line(error)}") from None
        self.set_weights(weights)

    def _learnt(self) -> Iterator[tuple[str, Any]]:
        return ((n, p) for n, p in self.module.named_parameters() if p.requires_grad)


def _below(prefix: str, state: Arrays) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}


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
        stop.catch_signals(),
        without_third_party_warnings(),
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
