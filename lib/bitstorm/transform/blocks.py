"""One ordered series cut into blocks, so that windows over it are computed in parallel, exactly.

A row's place in the series is its `index`. Block n owns the rows with n * size <= index <
(n + 1) * size, and is given a copy of those `before` (and `after`) it. A window that reaches back
no further than that sees in its block the very rows that it would see in the whole series. Where
indexes follow each other without a hole the series runs on; a hole cuts it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec

# With a thousand rows carried along, sums over a block have 2^16 terms at most (see `moments`),
# and one block fits into a few megabytes.
SIZE = 61_440
_BUCKETS = 64


@dataclass(frozen=True)
class Blocks:
    """How a series is cut: each block owns `size` indexes and sees `before` and `after` more."""

    size: int = SIZE
    before: int = 0
    after: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.before < 0 or self.after < 0:
            raise ValueError(f"{self} is no way to cut a series: size >= 1, the others >= 0")

    @property
    def rows(self) -> int:
        """The most rows that one block can hold."""
        return self.before + self.size + self.after

    @property
    def begin(self) -> Column:
        """The first index that the row's block sees."""
        from pyspark.sql import functions as F

        return F.col("block") * self.size - self.before

    def owned(self) -> Column:
        """Whether the row is its block's own, not one carried along."""
        from pyspark.sql import functions as F

        return F.col("block") == F.floor(F.col("index") / self.size)

    def cut(self, before: Column) -> Column:
        """Whether the row begins the series anew; `before` is the index of the row before it in
        the block. The first row does unless it is the first that the block can see: what came
        before that, nobody here knows."""
        from pyspark.sql import functions as F

        return F.coalesce(before != F.col("index") - 1, F.col("index") > self.begin)


def in_blocks(rows: DataFrame, blocks: Blocks) -> DataFrame:
    """Each row once for every block that sees it, with the block's number in `block` (int64).

    Needs `index` (int64, no two rows with the same). Windows over `series()` shuffle by block.
    """
    from pyspark.sql import functions as F

    first = F.floor((F.col("index") - blocks.after) / blocks.size)
    last = F.floor((F.col("index") + blocks.before) / blocks.size)
    seen = F.when(first == last, F.array(last)).otherwise(F.sequence(first, last))
    return rows.select(F.explode(seen).alias("block"), *rows.columns)


def series(*order: str) -> WindowSpec:
    """The window over a block in the series' order. `order` may name columns that ascend with
    `index` and are to come before it, so that windows over parts of a block need no other sort."""
    from pyspark.sql import Window

    return Window.partitionBy("block").orderBy(*order, "index")


def numbered(rows: DataFrame, *, by: str, buckets: int = _BUCKETS) -> DataFrame:
    """Rows of any sampling with their `index` (int64, from 0, without a hole) in the order of `by`.

    `by` is a column of distinct int64. Each of the rows' pieces counts them, and a scan over those
    counts, one row a piece, tells where each begins. One aggregate runs at once, on the driver.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    pieces = in_pieces(rows, by=by, buckets=buckets)
    inside = F.row_number().over(Window.partitionBy("piece").orderBy(by))
    sizes = pieces.groupBy("piece").agg(F.count("*").alias("size"))
    scan = Window.partitionBy(F.lit(0)).orderBy("piece").rowsBetween(Window.unboundedPreceding, -1)
    offsets = sizes.select("piece", F.coalesce(F.sum("size").over(scan), F.lit(0)).alias("offset"))
    return (
        pieces.withColumn("inside", inside)
        .join(F.broadcast(offsets), "piece")
        .select(*rows.columns, (F.col("offset") + F.col("inside") - 1).alias("index"))
    )


def in_pieces(rows: DataFrame, *, by: str, buckets: int = _BUCKETS) -> DataFrame:
    """Rows with their `piece` (int32, from 0), `buckets` of them in the order of `by`.

    Cut at the quantiles of `by`, so that a dense year makes no larger pieces than a sparse one.
    """
    from pyspark.sql import functions as F

    shares = [n / buckets for n in range(1, buckets)]
    found = rows.agg(F.percentile_approx(by, shares, 10_000).alias("edges")).collect()[0]["edges"]
    return rows.withColumn("piece", _searched(F.col(by), sorted(set(found or []))))


def _searched(value: Column, edges: list[int], first: int = 0) -> Column:
    """How many of the ascending edges lie at or below the value: a binary search."""
    from pyspark.sql import functions as F

    if not edges:
        return F.lit(first)
    middle = len(edges) // 2
    return F.when(value < edges[middle], _searched(value, edges[:middle], first)).otherwise(
        _searched(value, edges[middle + 1 :], first + middle + 1)
    )
