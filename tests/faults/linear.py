"""The smallest learner there is: a linear model in numpy, with momentum and noise.

It lets a whole training be struck a hundred times in seconds; what it is trained by is all ours.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from bitstorm import filesystem


class Linear:
    """A `Learner`: target = window · kernel, inputs at random multiplied by 1 ± 0.1."""

    backend = "numpy"

    def __init__(self, look_back: int, seed: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._kernel = self._random.normal(size=look_back).astype(np.float32)
        self._momentum = np.zeros(look_back, np.float32)

    def fit_batch(self, window: Any, target: Any) -> float:
        noisy = window[:, :, 0] * self._random.normal(1, 0.1, window.shape[:2]).astype(np.float32)
        error = noisy @ self._kernel - target
        self._momentum = 0.9 * self._momentum - 0.02 * (error @ noisy) / len(target)
        self._kernel = self._kernel + self._momentum
        return float(np.mean(error**2))

    def predict(self, window: Any) -> np.ndarray:
        return window[:, :, 0] @ self._kernel

    def weights(self) -> dict[str, np.ndarray]:
        return {"dense/kernel": self._kernel.copy()}

    def set_weights(self, weights: Any) -> None:
        self._kernel = np.array(weights["dense/kernel"])

    def state(self) -> dict[str, np.ndarray]:
        # 128 bits each, in words of 32.
        inside = self._random.bit_generator.state["state"]
        words = [inside[name] >> 32 * i & 0xFFFFFFFF for name in ("state", "inc") for i in range(4)]
        seeds = np.array(words, np.uint32)
        return {**self.weights(), "momentum": self._momentum.copy(), "seeds": seeds}

    def restore(self, state: Any) -> None:
        self.set_weights(state)
        self._momentum = np.array(state["momentum"])
        words = [int(word) for word in state["seeds"]]
        numbers = [sum(words[k + i] << 32 * i for i in range(4)) for k in (0, 4)]
        inside = self._random.bit_generator.state
        inside["state"] = {"state": numbers[0], "inc": numbers[1]}
        self._random.bit_generator.state = inside

    def save_best(self, folder: Path) -> str:
        buffer = io.BytesIO()
        np.savez(buffer, **self.weights())
        filesystem.replace(folder / "best.npz", buffer.getvalue())
        return "best.npz"
