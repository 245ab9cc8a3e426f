"""Which observation stands where several state the same time.

The winner has the finer granularity, then the later `fetched_at`, then the smaller batch hash,
then the earlier line. No part of that depends on the order in which batches arrived. What is the
same for all rows of a batch is ranked once, on the driver; the rows carry that one number.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from bitstorm.core.schema import PARTITION

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# The provenance of a row: its batch's hash, its line there, and what decides between batches.
LINEAGE_COLUMNS = ("batch", "line", "granularity_ms", "fetched_at")
_KINDS = ("string", "bigint", "bigint")
_FEW = 64


class Provenance(NamedTuple):
    """What decides between batches; `granularity_ms` and `fetched_at` may be unknown."""

    batch: str
    granularity_ms: int | None
    fetched_at: int | None


SOURCE_COLUMNS = Provenance._fields


def ranked(sources: Iterable[Provenance]) -> tuple[Provenance, ...]:
    """The distinct sources, the one that wins over all others first; a `rank` is a place here."""

    def order(source: Provenance) -> tuple[float, float, str]:
        granularity, fetched = source.granularity_ms, source.fetched_at
        return (
            float("inf") if granularity is None else granularity,
            float("inf") if fetched is None else -fetched,
            source.batch,
        )

    return tuple(sorted(set(sources), key=order))


def with_rank(rows: DataFrame, ranking: tuple[Provenance, ...]) -> DataFrame:
    """Replace the columns of Provenance by `rank`. Every row's source must be in the ranking."""
    from pyspark.sql import functions as F

    rest = [name for name in rows.columns if name not in SOURCE_COLUMNS]
    if len(ranking) <= _FEW:
        # A day into a long history: an array is searched sooner than the job for a join is started.
        places = F.split(F.lit(" ".join(_key(*source) for source in ranking)), " ")
        parts = [F.coalesce(F.col(name).cast("string"), F.lit("")) for name in SOURCE_COLUMNS]
        rank = (F.array_position(places, F.concat_ws("/", *parts)) - 1).cast("int")
        return rows.select(*rest, rank.alias("rank"))
    known = rows.sparkSession.createDataFrame(
        [(*source, rank) for rank, source in enumerate(ranking)],
        "batch string, granularity_ms bigint, fetched_at bigint, rank int",
    )
    same = [rows[name].eqNullSafe(known[name]) for name in SOURCE_COLUMNS]
    return rows.join(F.broadcast(known), same).select(*[rows[name] for name in rest], "rank")


def with_lineage(rows: DataFrame, ranking: tuple[Provenance, ...]) -> DataFrame:
    """Replace `rank` by the columns of Provenance; the order of the rows stays."""
    from pyspark.sql import functions as F

    columns = {
        name: F.get(_constants([source[n] for source in ranking], kind), F.col("rank"))
        for n, (name, kind) in enumerate(zip(SOURCE_COLUMNS, _KINDS, strict=True))
    }
    return rows.withColumns(columns).drop("rank")


def reranked(
    rows: DataFrame, ranking: tuple[Provenance, ...], other: tuple[Provenance, ...]
) -> DataFrame:
    """The rows with their `rank` in another ranking, which has all sources of the first."""
    from pyspark.sql import functions as F

    places = {source: rank for rank, source in enumerate(other)}
    moved = _constants([places[source] for source in ranking], "int")
    return rows.withColumn("rank", F.get(moved, F.col("rank")))


def with_place(rows: DataFrame) -> DataFrame:
    """Add `place`: 1 for the observation that stands at its timestamp, 2 and on for the others.

    Needs `timestamp`, its `month`, `rank` and `line`. The rows come out with each month in one
    partition, by time: as they are written, so that one shuffle and one sort serve both.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy(PARTITION, "timestamp").orderBy("rank", "line")
    return rows.repartition(PARTITION).withColumn("place", F.row_number().over(order))


def _constants(values: Iterable[object], kind: str) -> Column:
    """An array of constants, null where a value is None. One text, which Spark takes apart once:
    a look-up by place needs no join, and each literal of its own would be a call into the JVM."""
    from pyspark.sql import functions as F

    text = " ".join("null" if value is None else str(value) for value in values)
    return F.split(F.lit(text), " ").try_cast(f"array<{kind}>")


def _key(*source: object) -> str:
    return "/".join("" if value is None else str(value) for value in source)
