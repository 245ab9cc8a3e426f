"""`ingest --replay-rejects`: refused rows that are good by now → the `prices` data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.errors import Overtaken
from bitstorm.pipelines.context import Context
from bitstorm.pipelines.ingest import Ingested, with_outcome
from bitstorm.pipelines.judging import (
    checked,
    count_by_rule,
    keep_refused,
    only_good,
    refuse_to_go_on,
    to_judged,
)
from bitstorm.pipelines.merging import publish_merged
from bitstorm.schema import CSV_COLUMNS
from bitstorm.store import rejects, snapshots
from bitstorm.store.lock import writer_lock
from bitstorm.workspace import file_url

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_RECORD = (
    "file string, line bigint, text string, batch string, columns array<string>, "
    "seen_ms bigint, granularity_ms bigint, fetched_at bigint"
)


def replay(context: Context) -> Ingested:
    """Judge every refused row again, as the settings are now; take what is good.

    A row keeps its batch and line. In the ledger the rows taken back from a batch stand under a
    key of their own, which names them, so a replay that was killed after its commit takes nothing
    twice. What stays refused stays in `rejects/`, with the reason that holds now.
    """
    workspace, settings = context.workspace, context.settings
    with writer_lock(workspace.prices, wait_seconds=settings.ingest.lock_seconds):
        while True:
            try:
                return _replay(context)
            except Overtaken:
                context.console.say("another run has published first: replaying again")


def _replay(context: Context) -> Ingested:
    from pyspark.sql import functions as F

    workspace = context.workspace
    parent = snapshots.current(workspace.prices)
    known = snapshots.read_ledger(parent)
    base = Ingested(known_batches=len(known)).at(parent)
    retracted = {sha for sha, tally in known.items() if tally.get("retracted")}
    files = rejects.kept_rows(workspace.rejects)
    if not files:
        return base
    with context.spark("replay") as spark:
        lines = _read(context, spark).where(~F.col("batch").isin(list(retracted)))
        rows = checked(context, lines)
        counted = count_by_rule(to_judged(rows))
        refuse_to_go_on(counted, context.settings.ingest.rules)
        total = replace(base, read=counted.total(), refused=counted.total(refused=True))
        good = rows.where(F.col("rule").isNull())
        taken = _taken(good)
        new = {key: tally for key, tally in taken.items() if key not in known}
        if new:
            fresh = good.where(F.col("batch").isin([tally["batch"] for tally in new.values()]))
            snapshot, tallies = publish_merged(
                context,
                only_good(to_judged(fresh)),
                operation="replay",
                parent=parent,
                known=known,
                months=counted.months,
                tallies=new,
            )
            total = with_outcome(replace(total, batches=len(new)), snapshot, tallies)
        if taken:
            _keep_the_rest(context, rows, files)
    return total


def _read(context: Context, spark: SparkSession) -> DataFrame:
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
            *[place.alias(f"at_{name}") for place, name in zip(places, CSV_COLUMNS, strict=True)],
        )
    )


def _taken(good: DataFrame) -> dict[str, dict[str, Any]]:
    """A tally for the good rows of each batch, by a key made of the batch and its lines."""
    from pyspark.sql import functions as F

    lines = F.array_join(
        F.transform(F.sort_array(F.collect_list("line")), lambda n: n.cast("string")), ","
    )
    rows = (
        good.groupBy("batch")
        .agg(
            F.sha2(F.concat(F.col("batch"), F.lit(":"), lines), 256).alias("key"),
            F.first("file").alias("file"),
            F.count("*").alias("read"),
        )
        .collect()
    )
    return {
        row["key"]: {
            "batch": row["batch"],
            "name": f"{row['file']} (replayed)",
            "read": row["read"],
            "refused": 0,
        }
        for row in rows
    }


def _keep_the_rest(context: Context, rows: DataFrame, files: Sequence[Path]) -> None:
    """Write the files of refused rows anew without those that were taken."""
    from pyspark.sql import functions as F

    names = ("file", "columns", "seen_ms", "granularity_ms", "fetched_at")
    facts: dict[str, Mapping[str, Any]] = {
        row["batch"]: {name: row[name] for name in names}
        for row in rows.groupBy("batch").agg(*[F.first(n).alias(n) for n in names]).collect()
    }
    # Spark reads the files that this replaces: what stays is taken out of them first.
    kept = rows.where(F.col("rule").isNotNull()).localCheckpoint()
    written = set(keep_refused(context, kept, facts=facts).values())
    for batch, fact in facts.items():
        path = rejects.rows_path(context.workspace.rejects, batch, str(fact["file"]))
        if path in files and path not in written:
            path.unlink()
