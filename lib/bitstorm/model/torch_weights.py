"""The network's weights between Keras' layout, which is the portable one, and PyTorch's.

Keras keeps a layer of u cells on k inputs as `kernel` (k, 4u), `recurrent_kernel` (u, 4u) and one
`bias` (4u,), the gates in the order i, f, c, o; PyTorch as `weight_ih_l0` (4u, k), `weight_hh_l0`
(4u, u) and two biases (4u,) that it adds, the gates in the same order (its g is Keras' c). So the
matrices are transposed, and of the two biases the second stays zero.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bitstorm.errors import ModelError

LAYERS = ("lstm", "lstm_1")


def shapes(*, features: int, units: int) -> dict[str, tuple[int, ...]]:
    """The portable names in their order, and the shape of each."""
    found: dict[str, tuple[int, ...]] = {}
    for layer, inputs in zip(LAYERS, (features, units), strict=True):
        found[f"{layer}/kernel"] = (inputs, 4 * units)
        found[f"{layer}/recurrent_kernel"] = (units, 4 * units)
        found[f"{layer}/bias"] = (4 * units,)
    return {**found, "dense/kernel": (units, 1), "dense/bias": (1,)}


def to_torch(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Portable weights → a PyTorch `state_dict` of arrays, each contiguous and a copy."""
    found: dict[str, np.ndarray] = {}
    for layer in LAYERS:
        bias = weights[f"{layer}/bias"]
        found[f"{layer}.weight_ih_l0"] = _turned(weights[f"{layer}/kernel"])
        found[f"{layer}.weight_hh_l0"] = _turned(weights[f"{layer}/recurrent_kernel"])
        found[f"{layer}.bias_ih_l0"] = np.array(bias)
        found[f"{layer}.bias_hh_l0"] = np.zeros_like(bias)
    found["dense.weight"] = _turned(weights["dense/kernel"])
    found["dense.bias"] = np.array(weights["dense/bias"])
    return found


def from_torch(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The way back, exact for what `to_torch` gave; two biases become their sum."""
    found: dict[str, np.ndarray] = {}
    for layer in LAYERS:
        found[f"{layer}/kernel"] = _turned(weights[f"{layer}.weight_ih_l0"])
        found[f"{layer}/recurrent_kernel"] = _turned(weights[f"{layer}.weight_hh_l0"])
        found[f"{layer}/bias"] = weights[f"{layer}.bias_ih_l0"] + weights[f"{layer}.bias_hh_l0"]
    found["dense/kernel"] = _turned(weights["dense.weight"])
    found["dense/bias"] = np.array(weights["dense.bias"])
    return found


def check(found: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ModelError, its text a reason, unless names and shapes are the expected ones."""
    there = {name: tuple(np.shape(value)) for name, value in found.items()}
    wrong = sorted(n for n in expected.keys() | there.keys() if expected.get(n) != there.get(n))
    if wrong:
        raise ModelError(
            f"these are the weights of another network: {wrong[0]} is "
            f"{there.get(wrong[0], 'not there')}, expected {expected.get(wrong[0], 'none')}"
        )


def _turned(matrix: np.ndarray) -> np.ndarray:
    return np.array(np.transpose(matrix), order="C")
