"""Prices of any sampling to the points of IndicatorSchema, in parallel over one long series.

The series is cut into blocks (see `windows`). Each block also gets the earlier observations that
its values depend on. One kernel in numpy makes the grid, the recursive columns and the bands (see
`kernel`); Spark's window functions make the rest. Only the running maximum depends on more than a
block has: a scan over one row a block carries it on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from bitstorm.core.schema import PARTITION, indicator_table
from bitstorm.indicators.kernel import (
    Grid,
    Points,
    highest_of_runs,
    indicator_columns,
    rows_remembered,
    to_points,
)
from bitstorm.indicators.windows import SIZE, Blocks, in_blocks, trend, with_windows
from bitstorm.ingest.parse import month_of

# Raise it when the values of a column change: an update links only stored months of the same
# number and the same columns.
FORMULAS = 4


@dataclass(frozen=True)
class Span:
    """The points to compute: labels from `first` to `last` (in steps since 1970, both included).

    `last_ms` is the newest observation of the series: a label after it is not complete. Where a run
    of points begins before `first`, `highest` is its highest price (USD) before `first`.
    """

    first: int
    last: int
    last_ms: int
    highest: float = 0.0


def span_of(first_ms: int, last_ms: int, *, grid: Grid) -> Span:
    """All points of a series whose observations lie from `first_ms` to `last_ms` (ms UTC)."""
    return Span(-(-first_ms // grid.step_ms), -(-last_ms // grid.step_ms), last_ms)


def observed_after_ms(span: Span, *, grid: Grid, windows: Sequence[int]) -> int:
    """The points of the span depend on no observation up to this time (ms UTC)."""
    before = rows_remembered(windows) + grid.max_gap + 1
    return (span.first - before - 1) * grid.step_ms


def from_prices(
    prices: DataFrame, *, grid: Grid, windows: Sequence[int], span: Span, size: int = SIZE
) -> DataFrame:
    """`IndicatorSchema` for observations: `timestamp` (int64 ms UTC, distinct) and `price`
    (float32, USD, > 0).

    A value is null until its whole window exists since the last cut. Observations up to
    `observed_after_ms` are not needed. `size` is the number of points of a block.
    """
    further = grid.max_gap + 1
    blocks = Blocks(size, before=rows_remembered(windows) + further, after=further)
    # The first point of the span has index 0, so that a short series is one block.
    index = F.ceil(F.col("timestamp") / F.lit(grid.step_ms)) - F.lit(span.first)
    seen = prices.select(index.alias("index"), "timestamp", "price")
    if span.last - span.first < size:
        # One task needs no shuffle.
        seen = seen.coalesce(1).select(
            F.lit(0).cast("bigint").alias("block"),
            "timestamp",
            "price",
            F.lit(span.highest).alias("highest"),
        )
    else:
        seen = in_blocks(seen, blocks).where(F.col("block") >= 0).drop("index")
        seen = seen.repartition("block")
        seen = seen.join(F.broadcast(_highest_before(seen, blocks, grid, span)), "block", "left")
    # Spark would take a bound method for a function of a key and rows.
    kernel = _Kernel(blocks, grid, span, tuple(windows))
    return (
        seen.groupBy("block")
        .applyInArrow(lambda rows: kernel.indicators(rows), kernel.schema())
        .transform(with_windows, windows=windows)
        .where(blocks.owned())
        .select(
            "*",
            "made.*",
            ((F.col("index") + span.first) * grid.step_ms).alias("timestamp"),
            trend(windows).alias("trend"),
        )
        .withColumn(PARTITION, month_of(F.col("timestamp")))
        .select(*indicator_table(windows).names)
    )


def _highest_before(seen: DataFrame, blocks: Blocks, grid: Grid, span: Span) -> DataFrame:
    """`block` and `highest`: the highest price before the block of the run of points that continues
    at its first point. At most one row a block."""
    kernel = _Kernel(blocks, grid, span, ())
    ends = seen.groupBy("block").applyInArrow(
        lambda rows: kernel.last_run(rows), "block bigint, begun boolean, highest double"
    )
    start = seen.sparkSession.range(1).select(
        F.lit(-1).cast("bigint"), F.lit(True), F.lit(span.highest)
    )
    until_here = (Window.unboundedPreceding, Window.currentRow)
    order = Window.partitionBy(F.lit(0)).orderBy("block").rowsBetween(*until_here)
    run = Window.partitionBy("run").orderBy("block").rowsBetween(*until_here)
    return (
        ends.union(start)
        .withColumn("run", F.count_if("begun").over(order))
        .select((F.col("block") + 1).alias("block"), F.max("highest").over(run).alias("highest"))
    )


@dataclass(frozen=True)
class _Kernel:
    """Computes one block. Its rows are `block`, `timestamp` and `price`, in any order; `index`
    counts from the first point of the span."""

    blocks: Blocks
    grid: Grid
    span: Span
    windows: tuple[int, ...]

    def last_run(self, rows: pa.Table) -> pa.Table:
        """Whether the last run of the block's own points begins among them (`begun`), and its
        `highest` price in the block."""
        points, begin = self._points(rows)
        own = (points.index >= begin) & (points.index < begin + self.blocks.size)
        place, price = points.place[own], points.price[own]
        found = []
        if len(place):
            begun = bool(place[-1] < len(place))
            run = price[-1 - place[-1] :] if begun else price
            found = [{"block": begin // self.blocks.size, "begun": begun, "highest": run.max()}]
        kinds = {"block": pa.int64(), "begun": pa.bool_(), "highest": pa.float64()}
        return pa.Table.from_pylist(found, schema=pa.schema(kinds))

    def schema(self) -> str:
        """The schema of the rows that `indicators` returns, as a DDL text."""
        nothing = to_points(np.zeros(0, np.int64), np.zeros(0), grid=self.grid, last_ms=0)
        names = [*indicator_columns(nothing, windows=self.windows), "drawdown"]
        made = ", ".join(["imputed boolean", *(f"{n} double" for n in names)])
        return f"block bigint, index bigint, price float, made struct<{made}>"

    def indicators(self, rows: pa.Table) -> pa.Table:
        """The block's own points, and the earlier ones that their windows reach. The columns that
        windows don't need are one struct, `made`: Spark sorts and copies it as one."""
        points, begin = self._points(rows)
        columns = indicator_columns(points, windows=self.windows)
        price = points.price.astype(np.float64)
        highest = self._highest(points, begin, rows["highest"][0].as_py())
        # Not price / highest - 1: a small drawdown would lose digits.
        columns["drawdown"] = (price - highest) / highest
        made = {"imputed": points.imputed, **columns}
        end = begin + self.blocks.size
        shown = (points.index >= begin - max(self.windows)) & (points.index < end)
        arrays = [pa.array(values[shown], from_pandas=True) for values in made.values()]
        return pa.table(
            {
                "block": pa.repeat(rows["block"][0], int(shown.sum())),
                "index": points.index[shown],
                "price": points.price[shown],
                "made": pa.StructArray.from_arrays(arrays, list(made)),
            }
        )

    def _points(self, rows: pa.Table) -> tuple[Points, int]:
        """The points from the block's rows, and the index of its first own point."""
        points = to_points(
            rows["timestamp"].to_numpy(),
            rows["price"].to_numpy(),
            grid=self.grid,
            last_ms=self.span.last_ms,
        )
        begin = rows["block"][0].as_py() * self.blocks.size
        return replace(points, index=points.index - self.span.first), begin

    def _highest(self, points: Points, begin: int, carried: float | None) -> np.ndarray:
        """The highest price (USD) of the run up to each point, float64 (n,)."""
        highest = highest_of_runs(points)
        # A later first point has no observation in the `max_gap` points before it: a cut.
        unseen = len(points) and points.index[0] <= begin - self.blocks.before + self.grid.max_gap
        if unseen and carried is not None:
            end = np.append(np.flatnonzero(points.place == 0), len(points))[1]
            highest[:end] = np.maximum(highest[:end], carried)
        return highest
