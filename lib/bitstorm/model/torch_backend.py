"""The stacked LSTM of the contract in PyTorch, on the CPU; `loop` trains it.

It trains as the Keras network does: with the same distributions of first weights, one bias a gate,
Keras' formula of Adam, and the same early stopping, files and states.

Files hold the weights in Keras' layout. For a layer of u cells on k inputs Keras has `kernel`
(k, 4u), `recurrent_kernel` (u, 4u) and one `bias` (4u,), with the gates in the order i, f, c, o.
PyTorch has `weight_ih_l0` (4u, k), `weight_hh_l0` (4u, u) and two biases (4u,), which it adds, with
the gates in the same order (its g is Keras' c). So the matrices are transposed, and the second bias
stays zero.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from bitstorm.core import durable_io
from bitstorm.core.errors import ModelError, first_line
from bitstorm.model.checkpoint import Arrays, check_shapes
from bitstorm.model.team import ALONE, Team

if TYPE_CHECKING:
    import torch


BEST = "best.npz"
# Keras' name → PyTorch's name, of all trainable weights.
_LSTM = {"kernel": "weight_ih_l0", "recurrent_kernel": "weight_hh_l0", "bias": "bias_ih_l0"}
_NAMES = {
    **{f"{n}/{ours}": f"{n}.{name}" for n in ("lstm", "lstm_1") for ours, name in _LSTM.items()},
    **{f"dense/{ours}": f"dense.{name}" for ours, name in (("kernel", "weight"), ("bias", "bias"))},
}
# Keras' Adam; in PyTorch epsilon is 1e-8 and has another place in the formula.
BETAS = (0.9, 0.999)
EPSILON = 1e-7
_MOMENTS = ("exp_avg", "exp_avg_sq")


def to_torch(weights: Arrays) -> dict[str, np.ndarray]:
    """Keras' layout → PyTorch's, as contiguous copies."""
    return {theirs: _transposed(weights[ours]) for ours, theirs in _NAMES.items()}


def from_torch(weights: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """PyTorch's layout → Keras', as contiguous copies; the exact inverse of `to_torch`."""
    return {ours: _transposed(weights[theirs]) for ours, theirs in _NAMES.items()}


def _transposed(matrix: Any) -> np.ndarray:
    return np.array(np.transpose(matrix), order="C")


def build(*, features: int, units: int, dropout: float, generator: torch.Generator) -> Any:
    """The module: float32 (n, look_back, features) → (n,), with Keras' first weights.

    LSTM → Dropout → LSTM → Dropout → Linear. Kernels are Glorot uniform and recurrent kernels
    orthogonal, drawn from the generator. Biases are zero, except one for the forget gates.
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
        # PyTorch adds a second bias. If both were trained, their sum would take steps twice as big.
        nn.init.zeros_(layer.bias_hh_l0).requires_grad_(False)
    nn.init.xavier_uniform_(module.dense.weight, generator=generator)
    nn.init.zeros_(module.dense.bias)
    return module


def seeded(
    *, look_back: int, features: int, learning_rate: float, seed: int, **build_options: Any
) -> TorchNetwork:
    """A network whose first weights and dropout follow from the seed alone; the other options
    go to `build`."""
    # PyTorch reads this once, when it is loaded. Without it waiting threads spin, and a step takes
    # ten times as long while a JVM is busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    generator = torch.Generator().manual_seed(seed)
    module = build(features=features, generator=generator, **build_options)
    # The generator's state after the weights are drawn decides on the dropout.
    return TorchNetwork(module, (look_back, features), learning_rate, generator.get_state())


class TorchNetwork:
    """A module from `build`, its optimiser, and the random state of its dropout. Windows are NumPy
    arrays, float32 (n, look_back, features); targets are float32 (n,)."""

    library = "torch"

    def __init__(
        self, module: Any, shape: tuple[int, int], learning_rate: float, random: torch.Tensor
    ) -> None:
        import torch

        self.module = module
        self._shape = shape
        self._random = random
        self._steps = 0
        trained = [parameter for _, parameter in self._trainable()]
        self._optimizer = torch.optim.Adam(trained, lr=learning_rate, betas=BETAS, eps=EPSILON)
        # PyTorch makes the moments at the first step, but a saved state always has them.
        for parameter in trained:
            self._optimizer.state[parameter] = {
                "step": torch.zeros(()),
                **{moment: torch.zeros_like(parameter) for moment in _MOMENTS},
            }

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Call `step` in this block: it is deterministic there, and dropout draws from the
        network's own random state. nn.Dropout knows only the process' generator, so the block puts
        the state into it and restores it afterwards."""
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

    def reseed(self, entropy: Sequence[int]) -> None:
        """Let the dropout follow from these numbers alone."""
        import torch

        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        self._random = torch.Generator().manual_seed(seed).get_state()

    def step(self, window: np.ndarray, target: np.ndarray, team: Team = ALONE) -> float:
        """Take one step of the optimiser; the batch's mean squared error before the step. Each
        worker of a team computes its share of the batch, and all take the same step."""
        import torch

        self._optimizer.zero_grad()
        share = team.share(len(target))
        errors = self.module(torch.from_numpy(window[share])) - torch.from_numpy(target[share])
        loss = errors.square().sum() / len(target)
        loss.backward()
        gradients = [parameter.grad.numpy() for _, parameter in self._trainable()]
        whole = team.add(gradients, float(loss.detach()))
        self._steps += 1
        # Keras: m · α/(√v + ε) with α = lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ). PyTorch divides √v by √(1 − β₂ᵗ)
        # before it adds ε, so an ε divided by it, too, gives Keras' step.
        self._optimizer.param_groups[0]["eps"] = EPSILON / math.sqrt(1 - BETAS[1] ** self._steps)
        self._optimizer.step()
        return whole

    def predict(self, window: np.ndarray) -> np.ndarray:
        """The network's output, float32 (n,), without dropout."""
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
        """The trainable weights, in Keras' layout and by Keras' names."""
        return from_torch(self.module.state_dict())

    def set_weights(self, weights: Arrays) -> None:
        """Replace the trainable weights. Raises ModelError where a name or a shape differs."""
        import torch

        check_shapes(weights, self.weights())
        tensors = {name: torch.from_numpy(value) for name, value in to_torch(weights).items()}
        # Not strict: the second biases are missing, and stay zero.
        self.module.load_state_dict(tensors, strict=False)

    def state(self) -> dict[str, np.ndarray]:
        """Weights and Adam's moments by Keras' names, Adam's steps, and the random state."""
        found = {f"weights/{name}": value for name, value in self.weights().items()}
        for moment in _MOMENTS:
            values = {name: self._optimizer.state[p][moment] for name, p in self._trainable()}
            found |= {f"optimizer/{moment}/{n}": value for n, value in from_torch(values).items()}
        found["optimizer/steps"] = np.array(self._steps, np.int64)
        found["random"] = self._random.numpy().copy()
        return found

    def restore(self, state: Arrays) -> None:
        """Continue from a `state()`. Raises ModelError where it belongs to another network."""
        import torch

        check_shapes(state, self.state())
        self.set_weights(_with_prefix("weights/", state))
        self._steps = int(state["optimizer/steps"])
        self._random = torch.from_numpy(np.array(state["random"], np.uint8))
        saved = {m: to_torch(_with_prefix(f"optimizer/{m}/", state)) for m in _MOMENTS}
        for name, parameter in self._trainable():
            moments = self._optimizer.state[parameter]
            moments["step"].fill_(self._steps)
            for moment, values in saved.items():
                moments[moment].copy_(torch.from_numpy(values[name]))

    @staticmethod
    def save_best(folder: Path, weights: Arrays) -> None:
        """Write `best.npz` durably."""
        stream = io.BytesIO()
        np.savez(stream, **weights)
        durable_io.replace(folder / BEST, stream.getvalue())

    def load(self, content: bytes) -> None:
        """Load the weights from the bytes of a `best.npz`, without pickle. Raises ModelError, its
        text a reason, where it holds anything else."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                weights = dict(arrays)
        except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise ModelError(f"{BEST} cannot be read: {first_line(error)}") from None
        self.set_weights(weights)

    def _trainable(self) -> Iterator[tuple[str, Any]]:
        return ((n, p) for n, p in self.module.named_parameters() if p.requires_grad)


def _with_prefix(prefix: str, state: Arrays) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}
