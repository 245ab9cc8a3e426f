"""Exponential recurrences y[n] = d * y[n-1] + u[n] over one long series, in parallel.

Written out, y[n] is the sum of u[i] * d^(n-i). Inside a tile, some thousand rows, that is a power
of d times a running sum of u[i] * d^(-i), scaled so that neither leaves the range of a double. What
a tile takes over from those before is linear in their last values: each tile's, computed from zero,
is one plain aggregate, a scan over those summaries (one row a tile at most) carries them on, and
each row is corrected by its tile's. Nothing is cut off before a double's range ends: after
thousands of rows without a movement the strength index is still the ratio of the two means that it
was before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitstorm.transform.blocks import Blocks

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

TILE = 4_096
# Natural logarithms: a double ends at e^709, and what is summed may be large itself; below e^-745
# it is 0.
_LARGEST, _SMALLEST = 640.0, 745.0


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
    def log(self) -> float:
        """Of the decay; below 0."""
        return math.log(self.decay)


def tile_size(recurrences: Sequence[Recurrence], largest: int = TILE) -> int:
    """The largest power of two of rows in which no weight leaves the range of a double."""
    steepest = max(-r.log for r in recurrences)
    tile = largest
    while tile / 2 * steepest > _LARGEST:
        tile //= 2
    return tile


def with_tile(rows: DataFrame, tile: int) -> DataFrame:
    """Append `tile`, the number of the row's tile in the whole series, and `offset` in it."""
    from pyspark.sql import functions as F

    return rows.withColumn("tile", F.floor(F.col("index") / tile)).withColumn(
        "offset", F.col("index") - F.col("tile") * tile
    )


def entering(tile: int) -> Column:
    """Whether the row's run has come from an earlier tile."""
    from pyspark.sql import functions as F

    return F.col("start").isNull() | (F.col("start") < F.col("tile") * tile)


def with_local(
    rows: DataFrame, recurrences: Sequence[Recurrence], *, tile: int, peak: str | None = None
) -> DataFrame:
    """Append one double column for each recurrence: y from zero at the start of the tile or run;
    and `peak_here`, the running maximum since then of the column `peak`, where one is named.

    Needs `block`, `tile`, `run`, `index` and `offset`.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    running = (
        Window.partitionBy("block", "tile", "run")
        .orderBy("index")
        .rowsBetween(Window.unboundedPreceding, Window.currentRow)
    )
    middle = tile // 2
    kept = rows.columns
    scales = {f"up_{r.name}": _power(r, middle - F.col("offset")) for r in recurrences}
    rows = rows.withColumns(scales)
    rows = rows.select(
        "*", *[(F.col(r.column) * F.col(f"up_{r.name}")).alias(f"in_{r.name}") for r in recurrences]
    )
    highest = [] if peak is None else [F.max(peak).over(running).alias("peak_here")]
    rows = rows.select(
        "*",
        *[F.sum(f"in_{r.name}").over(running).alias(f"sum_{r.name}") for r in recurrences],
        *highest,
    )
    return rows.select(
        *kept,
        *([] if peak is None else ["peak_here"]),
        *[(F.col(f"sum_{r.name}") / F.col(f"up_{r.name}")).alias(r.name) for r in recurrences],
    )


def corrected(r: Recurrence, state: Column, *, tile: int) -> Column:
    """The local value and what the tile takes over: `state` is y just before the tile."""
    from pyspark.sql import functions as F

    weight = _power(r, F.col("offset") + 1)
    return F.col(r.name) + F.when(entering(tile) & (state != 0), weight * state).otherwise(0.0)


def states(
    rows: DataFrame,
    recurrences: Sequence[Recurrence],
    *,
    blocks: Blocks,
    tile: int,
    peak: str,
    known: Mapping[str, float] | None = None,
    first_tile: int = 0,
) -> DataFrame:
    """What a tile takes over: `tile`, `peak_before` (the running maximum of the column `peak` in
    the run that enters it) and `state_NAME` for each recurrence (y just before it).

    One row for each tile that a run may enter: the one before it has a row at its last index, of
    which a series much sparser than the grid has few. No other tile takes over anything.

    Needs the inputs of the recurrences, and `block`, `tile`, `run`, `start` and `index`. Where the
    rows are the end of a series, from `first_tile` on, `known` is what a run that enters it brings:
    its `peak`, and y under each recurrence's name.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    to_end = (F.col("tile") + 1) * tile - 1 - F.col("index")
    parts = (
        rows.where(blocks.owned())
        .groupBy("block", "tile", "run")
        .agg(
            F.max("start").alias("start"),
            F.max("index").alias("last_index"),
            F.max(peak).alias("peak"),
            *[F.sum(F.col(r.column) * _power(r, to_end)).alias(r.name) for r in recurrences],
        )
    )
    names = [r.name for r in recurrences]
    last = parts.groupBy("tile").agg(
        F.max_by(F.struct("start", "last_index", "peak", *names), "run").alias("last")
    )
    summaries = (
        last.select("tile", "last.*")
        .where(F.col("last_index") == (F.col("tile") + 1) * tile - 1)
        .drop("last_index")
        .withColumn("cut", ~entering(tile))
    )
    if known is not None:
        # As if the tile before had cut the series and come to this.
        brought = [F.lit(float(known[name])).alias(name) for name in ("peak", *names)]
        one = rows.sparkSession.range(1, numPartitions=1).select(
            F.lit(first_tile - 1).cast("bigint").alias("tile"),
            F.lit(None).cast("bigint").alias("start"),
            *brought,
            F.lit(True).alias("cut"),
        )
        summaries = summaries.unionByName(one)
    order = Window.partitionBy(F.lit(0)).orderBy("tile")
    stretch = F.count_if("cut").over(order.rowsBetween(Window.unboundedPreceding, 0))
    summaries = summaries.withColumn("stretch", stretch)
    so_far = Window.partitionBy(F.lit(0), "stretch").orderBy("tile")
    summaries = summaries.withColumn(
        "peak", F.max("peak").over(so_far.rowsBetween(Window.unboundedPreceding, 0))
    )
    return summaries.select(
        (F.col("tile") + 1).alias("tile"),
        F.col("peak").alias("peak_before"),
        *[_carried(r, order, tile=tile).alias(f"state_{r.name}") for r in recurrences],
    )


def _carried(r: Recurrence, order: WindowSpec, *, tile: int) -> Column:
    """y after the tile: a fold over it and the tiles before it. Tiles without a cut have all their
    rows, so one factor carries across any of them; beyond some tiles it is 0."""
    from pyspark.sql import functions as F

    reach = max(1, math.ceil(_SMALLEST / (-r.log * tile)))
    so_far = F.collect_list(F.struct("cut", r.name)).over(order.rowsBetween(1 - reach, 0))
    factor = r.decay**tile
    return F.aggregate(
        so_far,
        F.lit(0.0),
        lambda y, part: F.when(part["cut"], part[r.name]).otherwise(y * factor + part[r.name]),
    )


def _power(r: Recurrence, steps: Column) -> Column:
    """d to a whole number of steps. pow is right to the last digit or the one before; exp(steps *
    log d) only to as many digits as steps leave."""
    from pyspark.sql import functions as F

    return F.pow(F.lit(r.decay), steps.cast("double"))
