"""Scaling of features and target: fitted on the training part only, saved as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from bitstorm.core.errors import DataError
from bitstorm.model import windowing
from bitstorm.model.windowing import Columns, WindowSpec

Method = Literal["standard", "min_max", "deviation"]


@dataclass(frozen=True)
class Scale:
    """x → (x - shift) / scale, in double."""

    shift: float
    scale: float

    def forward(self, value: Any) -> Any:
        return (value - self.shift) / self.scale

    def back(self, value: Any) -> Any:
        return value * self.scale + self.shift


@dataclass(frozen=True)
class Scaler:
    """One `Scale` for each feature and one for the target."""

    features: Mapping[str, Scale]
    target: Scale

    def to_json(self) -> dict[str, Any]:
        return {
            "features": {name: asdict(scale) for name, scale in self.features.items()},
            "target": asdict(self.target),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Scaler:
        return cls(
            {name: Scale(**scale) for name, scale in record["features"].items()},
            Scale(**record["target"]),
        )


def fit(spec: WindowSpec, blocks: Iterable[Columns], *, last: int) -> Scaler:
    """Fit on the features of the points, and on the targets, up to the grid index `last`.

    With log returns as the target: mean and population standard deviation of each feature, and the
    root mean square of the target, unshifted, so that a return of zero stays zero. With prices:
    minimum and range. Raises DataError, with the numbers, for a column that is constant or empty.
    """
    spreads = {name: Spread() for name in (*spec.features, "target")}
    points = 0
    for columns in blocks:
        count, values = windowing.scaler_values(spec, columns, last=last)
        points += count
        spreads = {name: spread.with_more(values[name]) for name, spread in spreads.items()}
    by_return = spec.target == "log_return"
    method: Method = "standard" if by_return else "min_max"
    return Scaler(
        {name: _scale(name, spreads[name], points, method) for name in spec.features},
        _scale("target", spreads["target"], points, "deviation" if by_return else "min_max"),
    )


@dataclass(frozen=True)
class Spread:
    """Count, mean and range of some numbers; `squares` is the sum of squared deviations."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    most: float = -math.inf

    def with_more(self, values: np.ndarray) -> Spread:
        """The spread of these numbers, too, by the formula of Chan, Golub and LeVeque (1979)."""
        if not len(values):
            return self
        count, mean = self.count + len(values), float(values.mean())
        apart = mean - self.mean
        own = float(((values - mean) ** 2).sum())
        return Spread(
            count,
            self.mean + apart * len(values) / count,
            self.squares + own + apart**2 * self.count * len(values) / count,
            min(self.least, float(values.min())),
            max(self.most, float(values.max())),
        )


def _scale(name: str, spread: Spread, points: int, method: Method) -> Scale:
    if spread.count and method == "deviation":
        found = Scale(0.0, math.sqrt(spread.squares / spread.count + spread.mean**2))
    elif spread.least < spread.most and method == "standard":
        found = Scale(spread.mean, math.sqrt(spread.squares / spread.count))
    elif spread.least < spread.most:
        found = Scale(spread.least, spread.most - spread.least)
    else:
        found = Scale(0.0, 0.0)
    if found.scale > 0:
        return found
    state = f"has no value at any of {points:,} points"
    if spread.count:
        state = f"is {spread.least:g} at all {spread.count:,} points that have a value"
    raise DataError(
        f"{name} {state} in the training part, so a network cannot learn from it; "
        "expected it to vary: take more or other data"
    )
