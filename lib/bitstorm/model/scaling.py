"""What brings features and target near one: fitted on the training part only, kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from bitstorm.errors import DataError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

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


def fit(rows: DataFrame, columns: Sequence[str], *, method: Method) -> dict[str, Scale]:
    """Scales of the columns over the rows: one aggregate, nulls left out.

    `standard`: mean and population sd; `min_max`: minimum and range; `deviation`: root mean
    square without a shift, so that a return of zero stays zero. Raises DataError, with the numbers,
    for a column that is constant or has no value.
    """
    from pyspark.sql import functions as F

    shifts = {"standard": F.avg, "min_max": F.min, "deviation": lambda _: F.lit(0.0)}
    scales = {
        "standard": F.stddev_pop,
        "min_max": lambda c: F.max(c) - F.min(c),
        "deviation": lambda c: F.sqrt(F.avg(F.col(c) * F.col(c))),
    }
    # In double from the start: the range of a float column would be rounded to a float.
    found = (
        rows.select(*[F.col(c).cast("double").alias(c) for c in columns])
        .agg(
            *[shifts[method](c).alias(f"shift_{c}") for c in columns],
            *[scales[method](c).alias(f"scale_{c}") for c in columns],
            *[F.count(c).alias(f"count_{c}") for c in columns],
            *[F.min(c).alias(f"least_{c}") for c in columns],
            F.count("*").alias("rows"),
        )
        .collect()[0]
    )
    fitted: dict[str, Scale] = {}
    for column in columns:
        shift, scale = found[f"shift_{column}"], found[f"scale_{column}"]
        if shift is None or scale is None or not scale > 0:
            values, rows = found[f"count_{column}"], found["rows"]
            state = (
                f"is {found[f'least_{column}']:g} at all {values:,} points that have one"
                if values
                else f"has no value at any of {rows:,} points"
            )
            raise DataError(
                f"{column} {state} in the training part, so there is nothing to learn from it; "
                "expected it to vary: take more or other data"
            )
        fitted[column] = Scale(shift, scale)
    return fitted
