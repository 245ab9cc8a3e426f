"""Decides between observations of the same time.

The winner has the finer granularity, then the later `fetched_at`, then the smaller batch hash,
then the later line. So the order in which batches arrive does not matter. The driver ranks the
batches once, and each row carries the rank of its batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from bitstorm.core.schema import PARTITION

# The provenance of a row: hash and line of its batch, and the facts that decide between batches.
LINEAGE_COLUMNS = ("batch", "line", "granularity_ms", "fetched_at")
_KINDS = ("string", "bigint", "bigint")
_FEW = 64
_RANKED = pa.schema(
    [
        ("batch", pa.string()),
        ("granularity_ms", pa.int64()),
        ("fetched_at", pa.int64()),
        ("rank", pa.int32()),
    ]
)


class Provenance(NamedTuple):
    """The facts that decide between batches; None where a batch does not state one."""

    batch: str
    granularity_ms: int | None
    fetched_at: int | None


SOURCE_COLUMNS = Provenance._fields


def to_ranking(sources: Iterable[Provenance]) -> tuple[Provenance, ...]:
    """The distinct sources, the best one first. The `rank` of a source is its place here."""

    def order(source: Provenance) -> tuple[float, float, str]:
        granularity, fetched = source.granularity_ms, source.fetched_at
        return (
            float("inf") if granularity is None else granularity,
            float("inf") if fetched is None else -fetched,
            source.batch,
        )

    return tuple(sorted(set(sources), key=order))


def with_rank(rows: DataFrame, ranking: tuple[Provenance, ...]) -> DataFrame:
    """Replace the columns of Provenance by `rank`. The ranking must hold every row's source."""
    rest = [name for name in rows.columns if name not in SOURCE_COLUMNS]
    if len(ranking) <= _FEW:
        # To search an array takes less time than to start the job for a join.
        places = F.split(F.lit(" ".join(_key(*source) for source in ranking)), " ")
        parts = [F.coalesce(F.col(name).cast("string"), F.lit("")) for name in SOURCE_COLUMNS]
        rank = (F.array_position(places, F.concat_ws("/", *parts)) - 1).cast("int")
        return rows.select(*rest, rank.alias("rank"))
    places = [{**source._asdict(), "rank": rank} for rank, source in enumerate(ranking)]
    # Of an Arrow table Spark makes rows without a Python on the executors.
    table = pa.Table.from_pylist(places, schema=_RANKED)
    known = rows.sparkSession.createDataFrame(table)
    same = [rows[name].eqNullSafe(known[name]) for name in SOURCE_COLUMNS]
    return rows.join(F.broadcast(known), same).select(*[rows[name] for name in rest], "rank")


def with_lineage(rows: DataFrame, ranking: tuple[Provenance, ...]) -> DataFrame:
    """Replace `rank` by the columns of Provenance; the rows keep their order."""
    columns = {
        name: F.get(_constants([source[n] for source in ranking], kind), F.col("rank"))
        for n, (name, kind) in enumerate(zip(SOURCE_COLUMNS, _KINDS, strict=True))
    }
    return rows.withColumns(columns).drop("rank")


def with_new_rank(
    rows: DataFrame, ranking: tuple[Provenance, ...], new: tuple[Provenance, ...]
) -> DataFrame:
    """Replace the `rank` in `ranking` by that in `new`, which has all sources of `ranking`."""
    places = {source: rank for rank, source in enumerate(new)}
    ranks = _constants([places[source] for source in ranking], "int")
    return rows.withColumn("rank", F.get(ranks, F.col("rank")))


def with_place(rows: DataFrame) -> DataFrame:
    """Add `place`: 1 for the winner of a timestamp, 2 and on for the others. Add `superseded`: a
    later line of the same batch has the same time and another price.

    Needs `timestamp`, its `month`, `price`, `rank` and `line`. Each month ends up in one partition,
    sorted by time, as `write_dataset` needs it: one shuffle and one sort serve all.
    """
    last_line = F.desc("line")
    order = Window.partitionBy(PARTITION, "timestamp").orderBy("rank", last_line)
    in_batch = Window.partitionBy(PARTITION, "timestamp", "rank").orderBy(last_line)
    in_batch = in_batch.rowsBetween(Window.unboundedPreceding, Window.currentRow)
    # A refused row has no price, and is not superseded.
    superseded = F.coalesce(F.col("price") != F.first("price").over(in_batch), F.lit(False))
    return (
        rows.repartition(PARTITION)
        .withColumn("place", F.row_number().over(order))
        .withColumn("superseded", superseded)
    )


def _constants(values: Iterable[object], kind: str) -> Column:
    """An array of constants, null where a value is None.

    Spark splits one text once; an array of literals would take a call into the JVM for each.
    """
    text = " ".join("null" if value is None else str(value) for value in values)
    return F.split(F.lit(text), " ").try_cast(f"array<{kind}>")


def _key(*source: object) -> str:
    return "/".join("" if value is None else str(value) for value in source)
