"""What brings features and target near one: fitted on the training part only, kept as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from bitstorm.core.errors import DataError
from bitstorm.model import windowing
from bitstorm.model.windowing import Frame

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
    """One `Scale` a feature, and the target's."""

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


def fit(frame: Frame, blocks: Iterable[Mapping[str, np.ndarray]], *, last: int) -> Scaler:
    """Of the features over the points up to the grid index `last`, and of the target over those
    whose target lies up to it. `blocks` are the series' columns (see `windowing`), some at a time.

    For log returns mean and population sd, of the target the root mean square without a shift, so
    that a return of zero stays zero; for prices minimum and range. Raises DataError, with the
    numbers, for a column that is constant or has no value.
    """
    spreads = {name: Spread() for name in (*frame.features, "target")}
    points = 0
    for columns in blocks:
        count, values = windowing.known(frame, columns, last=last)
        points += count
        spreads = {name: spread.with_more(values[name]) for name, spread in spreads.items()}
    by_return = frame.target == "log_return"
    return Scaler(
        {
            name: _scale(name, spreads[name], points, "standard" if by_return else "min_max")
            for name in frame.features
        },
        _scale("target", spreads["target"], points, "deviation" if by_return else "min_max"),
    )


@dataclass(frozen=True)
class Spread:
    """Of the numbers seen so far; `squares` is the sum of the squared deviations from the mean."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    most: float = -math.inf

    def with_more(self, values: np.ndarray) -> Spread:
        """Merged as Chan, Golub and LeVeque (1979) do it: nothing cancels."""
        if not len(values):
            return self
        count, mean = self.count + len(values), float(values.mean())
        apart = mean - self.mean
        return Spread(
            count,
            self.mean + apart * len(values) / count,
            self.squares
            + float(((values - mean) ** 2).sum())
            + apart**2 * self.count * len(values) / count,
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
    state = (
        f"is {spread.least:g} at all {spread.count:,} points that have one"
        if spread.count
        else f"has no value at any of {points:,} points"
    )
    raise DataError(
        f"{name} {state} in the training part, so there is nothing to learn from it; "
        "expected it to vary: take more or other data"
    )
