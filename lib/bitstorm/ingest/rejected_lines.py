"""Refused rows that are kept: read as lines of their batches, what is taken back, and the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.context import Context
from bitstorm.core import durable_io
from bitstorm.core.schema import CSV_COLUMNS
from bitstorm.core.workspace import file_url
from bitstorm.ingest.deduplicate import Provenance
from bitstorm.ingest.validate import keep_refused
from bitstorm.store import rejects

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


_RECORD = (
    "file string, line bigint, text string, batch string, columns array<string>, "
    "seen_ms bigint, granularity_ms bigint, fetched_at bigint"
)


def rejected_lines(context: Context, spark: SparkSession) -> DataFrame:
    """The refused rows as lines of their batches."""
    from pyspark.sql import functions as F

    future_ms = int(context.settings.ingest.future_seconds * 1000)
    places = [
        F.nullif(F.array_position("columns", F.lit(name)), F.lit(0)).cast("int") - 1
        for name in CSV_COLUMNS
    ]
    return (
        spark.read.schema(_RECORD)
        .option("pathGlobFilter", "*.jsonl")
        .json(file_url(context.workspace.rejects / "rows"))
        .select(
            "*",
            F.size("columns").alias("width"),
            (F.col("seen_ms") + future_ms).alias("not_after_ms"),
            F.lit(False).alias("numeric"),
            *[place.alias(f"at_{name}") for place, name in zip(places, CSV_COLUMNS, strict=True)],
        )
    )


def tally_taken(good: DataFrame, ranking: Sequence[Provenance]) -> dict[str, dict[str, Any]]:
    """A tally for the good rows of each batch, by a key made of the batch and its lines."""
    from pyspark.sql import functions as F

    lines = F.array_join(
        F.transform(F.sort_array(F.collect_list("line")), lambda n: n.cast("string")), ","
    )
    rows = (
        good.groupBy("rank")
        .agg(lines.alias("lines"), F.first("file").alias("file"), F.count("*").alias("read"))
        .collect()
    )
    found = {}
    for row in rows:
        batch = ranking[row["rank"]].batch
        key = durable_io.of_bytes(f"{batch}:{row['lines']}".encode())
        found[key] = {
            "batch": batch,
            "name": f"{row['file']} (replayed)",
            "read": row["read"],
            "refused": 0,
        }
    return found


def keep_the_rest(
    context: Context, rows: DataFrame, files: Sequence[Path], ranking: Sequence[Provenance]
) -> None:
    """Write the files of refused rows anew without those that were taken."""
    from pyspark.sql import functions as F

    names = ("file", "columns", "seen_ms")
    facts: dict[str, Mapping[str, Any]] = {}
    for row in rows.groupBy("rank").agg(*[F.first(n).alias(n) for n in names]).collect():
        source = ranking[row["rank"]]
        facts[source.batch] = {
            **{name: row[name] for name in names},
            "granularity_ms": source.granularity_ms,
            "fetched_at": source.fetched_at,
        }
    # Spark reads the files that this replaces: what stays is taken out of them first.
    kept = rows.where(F.col("rule").isNotNull()).localCheckpoint()
    written = set(keep_refused(context, kept, ranking=ranking, facts=facts).values())
    for batch, fact in facts.items():
        path = rejects.rows_path(context.workspace.rejects, batch, str(fact["file"]))
        if path in files and path not in written:
            path.unlink()
