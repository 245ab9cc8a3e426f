"""Lines of batches → rows with their verdict, counted; refused rows are kept and read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.context import Context
from bitstorm.core import durable_io
from bitstorm.core.errors import DataError
from bitstorm.core.schema import CSV_COLUMNS, CSV_RULES, PARTITION
from bitstorm.core.workspace import file_url
from bitstorm.ingest.deduplicate import Provenance, with_place
from bitstorm.ingest.parse import (
    BATCH_COLUMNS,
    reason,
    to_prices,
    with_fields,
    with_rule,
    with_values,
)
from bitstorm.store import landing, rejects
from bitstorm.store.landing import Batch

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


# Refused rows have no month; spread over so many, one batch of them alone is no single task.
_SPREAD = 32
_GOOD = "verdict is null or verdict < 0"


def provenance(batch: Batch) -> Provenance:
    """What decides between this batch and others."""
    s = batch.sidecar
    return Provenance(
        batch.sha256, None if s is None else s.granularity_ms, None if s is None else s.fetched_at
    )


def checked_lines(
    spark: SparkSession,
    context: Context,
    batches: Sequence[Batch],
    folder: Path,
    *,
    ranking: Sequence[Provenance],
) -> DataFrame:
    """Every data line of the batches staged in `folder`, with its values and its `rule`; `rank`
    is its batch's place in the ranking."""
    future_ms = int(context.settings.ingest.future_seconds * 1000)
    lines, names = landing.read_lines(spark, folder)
    by_name = {batch.staged_name: batch for batch in batches}
    by_file = {number: by_name[name] for number, name in names.items()}
    lines = _numbered(lines, by_file, ranking=ranking, future_ms=future_ms)
    return checked(context, lines)


def checked(context: Context, lines: DataFrame) -> DataFrame:
    """The lines with their values, `rule` and `warning`, as the settings hold the rules."""
    ingest = context.settings.ingest
    return (
        lines.transform(with_fields)
        .transform(with_values)
        .transform(
            with_rule,
            warn=[rule for rule, action in ingest.rules.items() if action == "warn"],
            max_jump=ingest.max_jump,
        )
    )


@dataclass(frozen=True)
class Counted:
    """Rows by batch: all, refused, and of the good those that stand at their time and those that
    do not; refused and warned ones by rule; and the months of the good ones."""

    read: Mapping[str, int]
    refused: Mapping[str, int]
    won: Mapping[str, int]
    lost: Mapping[str, int]
    by_rule: Mapping[str, int]
    warned: Mapping[str, int]
    months: frozenset[str]

    def total(self, *, refused: bool = False) -> int:
        return sum((self.refused if refused else self.read).values())


def to_judged(checked: DataFrame) -> DataFrame:
    """The checked rows as prices with `rank`, `line` and `verdict`: null, or by its place among
    the rules the one that a row is refused for, negative where it is only to warn."""
    from pyspark.sql import functions as F

    # One number instead of two texts: what is kept per row is what the next passes cost. (And no
    # str_to_map: it makes a JVM load all of Unicode's title cases, a second of a small job.)
    names = F.split(F.lit(" ".join(CSV_RULES)), " ")

    def place(name: str) -> Column:
        return F.array_position(names, F.col(name)).cast("int")

    verdict = F.when(F.col("rule").isNotNull(), place("rule")).when(
        F.col("warning").isNotNull(), -place("warning")
    )
    return to_prices(checked.withColumn("verdict", verdict), keep=("rank", "line", "verdict"))


@contextmanager
def placed(judged: DataFrame) -> Iterator[DataFrame]:
    """The judged rows with their `place` among themselves, kept for the block: one pass over the
    lines serves the counts and what is written."""
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    nowhere = F.concat(F.lit("refused-"), (F.col("line") % _SPREAD).cast("string"))
    spread = judged.withColumn(PARTITION, F.coalesce(PARTITION, nowhere))
    rows = with_place(spread).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        yield rows
    finally:
        rows.unpersist()


def only_good(placed: DataFrame) -> DataFrame:
    """The rows that no rule refuses."""
    return placed.where(_GOOD).drop("verdict")


def count_by_rule(placed: DataFrame, ranking: Sequence[Provenance]) -> Counted:
    """One pass over the judged rows with their place."""
    from pyspark.sql import functions as F

    rows = [
        {**row.asDict(), "batch": ranking[row["rank"]].batch, **_spelled(row["verdict"])}
        for row in placed.groupBy("rank", "verdict", PARTITION)
        .agg(
            F.count("*").alias("count"),
            F.count_if(F.col("place") == 1).alias("won"),
            F.count_if(F.col("place") > 1).alias("lost"),
        )
        .collect()
    ]
    bad = [row for row in rows if row["rule"] is not None]
    good = [row for row in rows if row["rule"] is None]
    return Counted(
        read=sums((row["batch"], row["count"]) for row in rows),
        refused=sums((row["batch"], row["count"]) for row in bad),
        won=sums((row["batch"], row["won"]) for row in good),
        lost=sums((row["batch"], row["lost"]) for row in good),
        by_rule=sums((row["rule"], row["count"]) for row in bad),
        warned=sums((row["warning"], row["count"]) for row in good if row["warning"] is not None),
        months=frozenset(row[PARTITION] for row in good),
    )


def _spelled(verdict: int | None) -> dict[str, str | None]:
    """The rule and the warning that a verdict of `to_judged` stands for."""
    name = None if verdict is None else tuple(CSV_RULES)[abs(verdict) - 1]
    refused = verdict is not None and verdict > 0
    return {"rule": name if refused else None, "warning": None if refused else name}


def refuse_to_go_on(counted: Counted, rules: Mapping[str, str]) -> None:
    """Raise DataError where rows break a rule that is to fail the run."""
    fatal = [
        f"{count:,} rows break {rule}"
        for rule, count in counted.by_rule.items()
        if rules.get(rule) == "fail"
    ]
    if fatal:
        raise DataError(
            f"{' and '.join(fatal)}, which ingest.rules sets to fail the run: nothing was "
            "published; correct or remove the batch, or set the rule to refuse"
        )


def keep_refused(
    context: Context,
    checked: DataFrame,
    *,
    ranking: Sequence[Provenance],
    facts: Mapping[str, Mapping[str, Any]],
) -> dict[str, Path]:
    """Write the refused rows with their reasons, streamed batch by batch."""
    from pyspark.sql import functions as F

    bad = checked.where(F.col("rule").isNotNull()).sort("rank", "line")
    rows = (row.asDict() for row in bad.toLocalIterator())
    explained = (
        {**row, "batch": ranking[row["rank"]].batch, "reason": reason(row["rule"], row)}
        for row in rows
    )
    return rejects.keep_rows(context.workspace.rejects, explained, facts=facts)


def _numbered(
    lines: DataFrame,
    by_file: Mapping[int, Batch],
    *,
    ranking: Sequence[Provenance],
    future_ms: int,
) -> DataFrame:
    """Data lines with `line` (the header is line 1) and what is known of their batch.

    Spark reads a large file in chunks that know nothing of each other; how many lines lie in the
    chunks before is counted first, so each line's number is exact.
    """
    from pyspark.sql import functions as F

    ranks = {source: rank for rank, source in enumerate(ranking)}
    chunks = (
        lines.groupBy("file", "block")
        .agg(F.min("ordinal").alias("first"), F.count("*").alias("lines"))
        .orderBy("file", "block")
        .collect()
    )
    rows: list[tuple[Any, ...]] = []
    before: dict[int, int] = {}
    for chunk in chunks:
        offset = before.get(chunk["file"], 0)
        before[chunk["file"]] = offset + chunk["lines"]
        batch = by_file[chunk["file"]]
        zero, rank = chunk["first"] - offset - 1, ranks[provenance(batch)]
        rows.append((chunk["file"], chunk["block"], zero, rank, *_facts(batch, future_ms)))
    places = ", ".join(f"at_{name} int" for name in CSV_COLUMNS)
    facts = lines.sparkSession.createDataFrame(
        rows,
        "file bigint, block bigint, zero bigint, "
        "rank int, width int, not_after_ms bigint, numeric boolean, "
        f"{places}",
    )
    blank = F.trim("text") == ""
    return (
        lines.join(F.broadcast(facts), ["file", "block"])
        .withColumn("line", F.col("ordinal") - F.col("zero"))
        .where((F.col("line") > 1) & ~blank)
        .select("text", "line", *BATCH_COLUMNS)
    )


def _facts(batch: Batch, future_ms: int) -> tuple[Any, ...]:
    return (
        len(batch.columns),
        batch.seen_ms + future_ms,
        batch.numeric,
        *[batch.columns.index(n) if n in batch.columns else None for n in CSV_COLUMNS],
    )


def sums(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The counts of each key together."""
    found: dict[str, int] = {}
    for key, count in pairs:
        found[key] = found.get(key, 0) + count
    return found


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
        key = durable_io.bytes_hash(f"{batch}:{row['lines']}".encode())
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
