"""The stacked LSTM of the contract, as a module of PyTorch's own, on the CPU.

It starts, learns and forgets as the Keras one does, so that a run does not depend on what computed
it: the same distributions of first weights, one bias a gate, Adam by Keras' formula.
"""

from __future__ import annotations

import io
import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from bitstorm import filesystem
from bitstorm.errors import ModelError
from bitstorm.model import torch_weights
from bitstorm.model.learner import Arrays

if TYPE_CHECKING:
    import torch

BEST = "best.npz"
# Keras' Adam: PyTorch's own epsilon is 1e-8, and stands elsewhere in the formula.
BETAS = (0.9, 0.999)
EPSILON = 1e-7


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


def learner(
    *,
    look_back: int,
    features: int,
    units: int,
    dropout: float,
    learning_rate: float,
    seed: int,
) -> TorchLearner:
    """A network whose weights, and whose dropout, follow from the seed alone.

    Neither the process' seeds nor its deterministic mode are set: the learner has its own for each
    of its calls.
    """
    # Read once, when PyTorch is loaded. Its threads else spin while they wait for one another,
    # which beside a busy JVM makes a step ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    import torch

    generator = torch.Generator().manual_seed(seed)
    module = build(features=features, units=units, dropout=dropout, generator=generator)
    return TorchLearner(
        module,
        shape=(look_back, features),
        learning_rate=learning_rate,
        # What is left after the weights are drawn decides on the dropout.
        random=generator.get_state(),
    )


class TorchLearner:
    """A `Learner` (see there) of a module by `build`. Windows and targets are float32 tensors or
    arrays; a window of another shape than (n, look_back, features) is a ModelError."""

    backend = "torch"

    def __init__(
        self, module: Any, *, shape: tuple[int, int], learning_rate: float, random: torch.Tensor
    ) -> None:
        import torch

        self.module = module
        self._shape = shape
        self._random = random
        learnt = [p for p in module.parameters() if p.requires_grad]
        self._optimizer = torch.optim.Adam(learnt, lr=learning_rate, betas=BETAS, eps=EPSILON)
        # An optimiser has no moments before its first step; a state always holds them.
        for parameter in learnt:
            self._optimizer.state[parameter] = {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        self._steps = 0

    def fit_batch(self, window: Any, target: Any) -> torch.Tensor:
        given, wanted = self._window(window), _tensor(target)
        with self._own_ways():
            self.module.train()
            self._optimizer.zero_grad()
            loss = (self.module(given) - wanted).square().mean()
            loss.backward()
            self._steps += 1
            # Keras: m · α/(√v + ε) with α = lr·√(1 − β₂ᵗ)/(1 − β₁ᵗ); PyTorch divides √v by
            # √(1 − β₂ᵗ) before it adds ε. With ε divided by it, too, the two are one.
            self._optimizer.param_groups[0]["eps"] = EPSILON / math.sqrt(
                1 - BETAS[1] ** self._steps
            )
            self._optimizer.step()
        return loss.detach()

    def predict(self, window: Any) -> np.ndarray:
        import torch

        given = self._window(window)
        with self._own_ways(), torch.inference_mode():
            self.module.eval()
            return self.module(given).numpy()

    def weights(self) -> dict[str, np.ndarray]:
        return torch_weights.from_torch(_arrays(self.module.state_dict()))

    def set_weights(self, weights: Arrays) -> None:
        import torch

        torch_weights.check(weights, self._shapes())
        found = torch_weights.to_torch(weights)
        self.module.load_state_dict(
            {name: torch.from_numpy(value.astype(np.float32)) for name, value in found.items()}
        )

    def state(self) -> dict[str, np.ndarray]:
        """Weights and Adam's moments by their portable names, its steps, and the generator."""
        found = {f"weights/{name}": value for name, value in self.weights().items()}
        for moment in ("exp_avg", "exp_avg_sq"):
            for name, value in self._moments(moment).items():
                found[f"optimizer/{moment}/{name}"] = value
        found["optimizer/steps"] = np.array(self._steps, np.int64)
        found["random"] = self._random.numpy().copy()
        return found

    def restore(self, state: Arrays) -> None:
        import torch

        torch_weights.check(state, {name: value.shape for name, value in self.state().items()})
        self.set_weights(_below("weights/", state))
        self._steps = int(state["optimizer/steps"])
        self._random = torch.from_numpy(np.array(state["random"], np.uint8))
        kept = {
            moment: torch_weights.to_torch(_below(f"optimizer/{moment}/", state))
            for moment in ("exp_avg", "exp_avg_sq")
        }
        for name, parameter in self._learnt():
            moments = self._optimizer.state[parameter]
            moments["step"].fill_(self._steps)
            for moment, values in kept.items():
                moments[moment].copy_(torch.from_numpy(values[name]))

    def save_best(self, folder: Path) -> str:
        stream = io.BytesIO()
        np.savez(stream, **self.weights())
        filesystem.replace(folder / BEST, stream.getvalue())
        return BEST

    def load(self, content: bytes) -> None:
        """Take the weights of a file by `save_best`, nothing of it unpickled. Raises ModelError,
        its text a reason, where it holds anything else."""
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as kept:
                weights = {name: kept[name] for name in kept.files}
        except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{BEST} cannot be read: {reason}") from None
        self.set_weights(weights)

    def _window(self, window: Any) -> torch.Tensor:
        given = _tensor(window)
        if tuple(given.shape[1:]) != self._shape:
            raise ModelError(
                f"found windows of shape {tuple(given.shape)}, expected (n, {self._shape[0]}, "
                f"{self._shape[1]}): train again on these features"
            )
        return given

    @contextmanager
    def _own_ways(self) -> Iterator[None]:
        """Deterministic, and drawing from the learner's own generator: nn.Dropout knows only the
        process' one, which is given back as it was."""
        import torch

        process, strict = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
        torch.set_rng_state(self._random)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            self._random = torch.get_rng_state()
            torch.set_rng_state(process)
            torch.use_deterministic_algorithms(strict)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return torch_weights.shapes(
            features=self.module.lstm.input_size, units=self.module.lstm.hidden_size
        )

    def _learnt(self) -> Iterator[tuple[str, Any]]:
        return ((n, p) for n, p in self.module.named_parameters() if p.requires_grad)

    def _moments(self, moment: str) -> dict[str, np.ndarray]:
        kept = {name: self._optimizer.state[p][moment] for name, p in self._learnt()}
        for layer in torch_weights.LAYERS:
            # The second bias does not learn.
            kept[f"{layer}.bias_hh_l0"] = kept[f"{layer}.bias_ih_l0"].new_zeros(
                kept[f"{layer}.bias_ih_l0"].shape
            )
        return torch_weights.from_torch(_arrays(kept))


def _tensor(values: Any) -> torch.Tensor:
    import torch

    if isinstance(values, torch.Tensor):
        return values
    # A copy where it must be: PyTorch warns of arrays that it could not write to.
    array = np.require(np.asarray(values), np.float32, ["C", "W"])
    return torch.from_numpy(array)


def _arrays(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def _below(prefix: str, state: Arrays) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}
