"""`ingest --replay-rejects`: refused rows that are good by now → the `prices` data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.context import Context
from bitstorm.core import hashing
from bitstorm.core.schema import CSV_COLUMNS
from bitstorm.core.workspace import file_url
from bitstorm.ingest.deduplicate import SOURCE_COLUMNS, Provenance, ranked, with_rank
from bitstorm.ingest.publish_prices import as_only_writer, publish_merged
from bitstorm.ingest.validate import (
    checked,
    count_by_rule,
    keep_refused,
    only_good,
    placed,
    refuse_to_go_on,
    to_judged,
)
from bitstorm.pipelines.ingest import Ingested, with_outcome
from bitstorm.store import rejects, snapshots

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
    return as_only_writer(context, lambda: _replay(context), doing="replaying")


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
        sources = lines.select(*SOURCE_COLUMNS).distinct().collect()
        ranking = ranked(Provenance(*source) for source in sources)
        rows = checked(context, with_rank(lines, ranking))
        with placed(to_judged(rows)) as judged:
            counted = count_by_rule(judged, ranking)
        refuse_to_go_on(counted, context.settings.ingest.rules)
        total = replace(base, read=counted.total(), refused=counted.total(refused=True))
        taken = _taken(rows.where(F.col("rule").isNull()), ranking)
        new = {key: tally for key, tally in taken.items() if key not in known}
        if new:
            batches = {tally["batch"] for tally in new.values()}
            ranks = [rank for rank, source in enumerate(ranking) if source.batch in batches]
            fresh = rows.where(F.col("rule").isNull() & F.col("rank").isin(ranks))
            with placed(to_judged(fresh)) as judged:
                snapshot, tallies = publish_merged(
                    context,
                    only_good(judged),
                    ranking=ranking,
                    operation="replay",
                    parent=parent,
                    known=known,
                    counted=count_by_rule(judged, ranking),
                    tallies=new,
                )
            total = with_outcome(replace(total, batches=len(new)), snapshot, tallies)
        if taken:
            _keep_the_rest(context, rows, files, ranking)
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
            F.lit(False).alias("numeric"),
            *[place.alias(f"at_{name}") for place, name in zip(places, CSV_COLUMNS, strict=True)],
        )
    )


def _taken(good: DataFrame, ranking: Sequence[Provenance]) -> dict[str, dict[str, Any]]:
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
        key = hashing.of_bytes(f"{batch}:{row['lines']}".encode())
        found[key] = {
            "batch": batch,
            "name": f"{row['file']} (replayed)",
            "read": row["read"],
            "refused": 0,
        }
    return found


def _keep_the_rest(
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
