"""Exponential recurrences y[n] = d * y[n-1] + u[n] with Spark window functions, no UDF.

Written out, y[n] is the sum of u[i] * d^(n-i). Inside a tile of TILE rows that is d^o times a
running sum of u[i] * d^(-o_i), o the offset in the tile: the scaling stays below e^600 for any
d >= 1/3 (span 2), where over a whole series it would leave the range of a double. Between tiles
the state is carried by a short fold over the tiles before; those whose weight d^(TILE * k) lies
below 1e-20 cannot change a double and are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

TILE = 512
_NEGLIGIBLE = 1e-20


@dataclass(frozen=True)
class Recurrence:
    """`name` becomes y for the inputs u in `column` (double, 0 before the recurrence starts).

    `decay` is d, in [1/3, 1).
    """

    name: str
    column: str
    decay: float

    def __post_init__(self) -> None:
        if not 1 / 3 <= self.decay < 1:
            raise ValueError(f"decay {self.decay} of {self.name} is not in [1/3, 1)")

    @property
    def reach(self) -> int:
        """How many whole tiles back the state still counts."""
        return max(1, math.ceil(math.log(_NEGLIGIBLE) / (TILE * math.log(self.decay))))


def with_recurrences(rows: DataFrame, recurrences: Sequence[Recurrence]) -> DataFrame:
    """Append one double column for each recurrence.

    Needs `segment` and `position` (0-based inside the segment, without holes): every recurrence
    starts anew with each segment.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    tile = F.floor(F.col("position") / TILE)
    offset = (F.col("position") % TILE).cast("double")
    running = (
        Window.partitionBy("segment", "tile")
        .orderBy("position")
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )

    def inside(r: Recurrence) -> Column:
        # pow is right to the last digit or the one before; exp(o * log d) is only to o digits.
        up, down = (
            F.pow(F.lit(r.decay), -F.col("tile_offset")),
            F.pow(F.lit(r.decay), "tile_offset"),
        )
        return down * F.sum(F.col(r.column) * up).over(running)

    tiled = rows.withColumn("tile", tile).withColumn("tile_offset", offset)
    partial = tiled.select("*", *[inside(r).alias(f"inside_{r.name}") for r in recurrences])

    def carried(r: Recurrence) -> Column:
        before = Window.partitionBy("segment").orderBy("tile").rowsBetween(-r.reach, -1)
        states = F.collect_list(f"last_{r.name}").over(before)
        return F.aggregate(
            states, F.lit(0.0), lambda state, last: state * F.lit(r.decay**TILE) + last
        )

    # Every tile but a segment's last is full, so one factor carries across any of them.
    summaries = partial.groupBy("segment", "tile").agg(
        *[F.max_by(f"inside_{r.name}", "position").alias(f"last_{r.name}") for r in recurrences]
    )
    states = summaries.select(
        "segment", "tile", *[carried(r).alias(f"state_{r.name}") for r in recurrences]
    )

    def joined(r: Recurrence) -> Column:
        weight = F.pow(F.lit(r.decay), F.col("tile_offset") + 1)
        return (F.col(f"inside_{r.name}") + weight * F.col(f"state_{r.name}")).alias(r.name)

    return partial.join(states, ["segment", "tile"]).select(
        *rows.columns, *[joined(r) for r in recurrences]
    )
