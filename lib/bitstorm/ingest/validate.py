"""Checks the lines of batches against the rules, counts them, and saves the refused ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from bitstorm.context import Context
from bitstorm.core import durable_io
from bitstorm.core.errors import DataError
from bitstorm.core.schema import CSV_COLUMNS, CSV_RULES, PARTITION
from bitstorm.core.workspace import file_url
from bitstorm.ingest import parse
from bitstorm.ingest.deduplicate import Provenance, with_place
from bitstorm.spark.stage import kept
from bitstorm.store import landing, rejects
from bitstorm.store.landing import Batch
from bitstorm.store.snapshots import OUTCOMES

# Refused rows have no month. So many partitions share them, or one task would get them all.
_SPREAD = 32
_GOOD = "rule_code is null or rule_code < 0"
# What is known of a chunk: its place, and the facts of its batch (see `parse.BATCH_COLUMNS`).
_CHUNK = pa.schema(
    [
        *[(name, pa.int64()) for name in ("file", "block", "zero", "not_after_ms")],
        *[(name, pa.int32()) for name in ("rank", "width", *(f"at_{n}" for n in CSV_COLUMNS))],
        ("numeric", pa.bool_()),
    ]
)


def provenance(batch: Batch) -> Provenance:
    """The facts of the batch that decide between it and others."""
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
    """Every data line of the batches in the staging `folder`, as `with_rules` checks it; `rank` is
    the place of its batch in the ranking."""
    lines, names = landing.read_lines(spark, folder)
    by_name = {batch.staging_name: batch for batch in batches}
    by_file = {number: by_name[name] for number, name in names.items()}
    future_ms = int(context.settings.ingest.future_seconds * 1000)
    lines = _with_line_numbers(lines, by_file, ranking=ranking, future_ms=future_ms)
    return with_rules(context, lines)


def with_rules(context: Context, lines: DataFrame) -> DataFrame:
    """Add the values, `rule` and `warning` of each line, by the settings' actions for the rules."""
    ingest = context.settings.ingest
    return (
        lines.transform(parse.with_fields)
        .transform(parse.with_values)
        .transform(
            parse.with_rule,
            warn=[rule for rule, action in ingest.rules.items() if action == "warn"],
            max_jump=ingest.max_jump,
        )
    )


@dataclass(frozen=True)
class Counts:
    """Rows by batch: read, refused, and the others by outcome; by rule: refused and warned ones;
    and the months of the good rows."""

    read: Mapping[str, int]
    refused: Mapping[str, int]
    outcomes: Mapping[str, Mapping[str, int]]
    by_rule: Mapping[str, int]
    warned: Mapping[str, int]
    months: frozenset[str]


def to_checked_prices(checked: DataFrame) -> DataFrame:
    """Checked lines as prices with `rank`, `line` and `rule_code`.

    The code is null for a row that breaks no rule, the number of the rule (from 1, in the order of
    CSV_RULES) for a refused row, and the negative number for a row with a warning.
    """
    # One number instead of two texts: the width of a persisted row is the cost of later passes.
    # (str_to_map would make a JVM load all of Unicode's title cases, a second of a small job.)
    names = F.split(F.lit(" ".join(CSV_RULES)), " ")

    def number(name: str) -> Column:
        return F.array_position(names, F.col(name)).cast("int")

    code = F.when(F.col("rule").isNotNull(), number("rule")).when(
        F.col("warning").isNotNull(), -number("warning")
    )
    return parse.to_prices(
        checked.withColumn("rule_code", code), keep=("rank", "line", "rule_code")
    )


@contextmanager
def persist_with_place(context: Context, checked: DataFrame) -> Iterator[DataFrame]:
    """Checked prices with their `place` among themselves, persisted for the block: one pass over
    the lines serves the counts and the written rows."""
    no_month = F.concat(F.lit("refused-"), (F.col("line") % _SPREAD).cast("string"))
    spread = checked.withColumn(PARTITION, F.coalesce(PARTITION, no_month))
    with kept(with_place(spread), context.workspace.cache) as rows:
        yield rows


def only_good(checked: DataFrame) -> DataFrame:
    """The checked prices that no rule refuses."""
    return checked.where(_GOOD).drop("rule_code")


def outcome_counts() -> list[Column]:
    """Aggregates of good rows with their `place`: the number of each of `OUTCOMES`."""
    lost, superseded = F.col("place") > 1, F.col("superseded")
    conditions = (~lost, lost & ~superseded, lost & superseded)
    return [F.count_if(c).alias(n) for n, c in zip(OUTCOMES, conditions, strict=True)]


def outcomes_by_batch(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """The sums of `outcome_counts` by outcome and `batch`."""
    found = list(rows)
    return {n: sum_by_key((row["batch"], row[n]) for row in found) for n in OUTCOMES}


def count_by_rule(checked: DataFrame, ranking: Sequence[Provenance]) -> Counts:
    """Count checked prices with their `place`, in one pass."""
    groups = checked.groupBy("rank", "rule_code", PARTITION)
    rows = [
        {**row.asDict(), "batch": ranking[row["rank"]].batch, **_rule_and_warning(row["rule_code"])}
        for row in groups.agg(F.count("*").alias("count"), *outcome_counts()).collect()
    ]
    bad = [row for row in rows if row["rule"] is not None]
    good = [row for row in rows if row["rule"] is None]
    return Counts(
        read=sum_by_key((row["batch"], row["count"]) for row in rows),
        refused=sum_by_key((row["batch"], row["count"]) for row in bad),
        outcomes=outcomes_by_batch(good),
        by_rule=sum_by_key((row["rule"], row["count"]) for row in bad),
        warned=sum_by_key((row["warning"], row["count"]) for row in good if row["warning"]),
        months=frozenset(row[PARTITION] for row in good),
    )


def _rule_and_warning(code: int | None) -> dict[str, str | None]:
    """The names that a code of `to_checked_prices` stands for."""
    name = None if code is None else CSV_RULES[abs(code) - 1]
    refused = code is not None and code > 0
    return {"rule": name if refused else None, "warning": None if refused else name}


def check_fatal_rules(counts: Counts, rules: Mapping[str, str]) -> None:
    """Raise DataError where rows break a rule whose action is `fail`."""
    fatal = [
        f"{count:,} rows break {rule}"
        for rule, count in counts.by_rule.items()
        if rules.get(rule) == "fail"
    ]
    if fatal:
        raise DataError(
            f"{' and '.join(fatal)}, which ingest.rules sets to fail the run: nothing was "
            "published; correct or remove the batch, or set the rule to refuse"
        )


def save_refused(
    context: Context,
    checked: DataFrame,
    *,
    ranking: Sequence[Provenance],
    facts: Mapping[str, Mapping[str, Any]],
) -> dict[str, Path]:
    """Write the refused lines with their reasons, batch by batch; return the files by batch."""
    bad = checked.where(F.col("rule").isNotNull()).sort("rank", "line")
    rows = (row.asDict() for row in bad.toLocalIterator())
    explained = (
        {**row, "batch": ranking[row["rank"]].batch, "reason": parse.reason(row["rule"], row)}
        for row in rows
    )
    return rejects.save_rows(context.workspace.rejects, explained, facts=facts)


def _with_line_numbers(
    lines: DataFrame, by_file: Mapping[int, Batch], *, ranking: Sequence[Provenance], future_ms: int
) -> DataFrame:
    """Data lines with `line` (the header is line 1) and the facts of their batch.

    Spark reads a large file in chunks, and no chunk knows the others. So the lines of the chunks
    before are counted first.
    """
    ranks = {source: rank for rank, source in enumerate(ranking)}
    chunks = (
        lines.groupBy("file", "block")
        .agg(F.min("ordinal").alias("first"), F.count("*").alias("lines"))
        .orderBy("file", "block")
        .collect()
    )
    rows = []
    before: dict[int, int] = {}
    for chunk in chunks:
        offset = before.get(chunk["file"], 0)
        before[chunk["file"]] = offset + chunk["lines"]
        batch = by_file[chunk["file"]]
        facts = {
            "file": chunk["file"],
            "block": chunk["block"],
            "zero": chunk["first"] - offset - 1,
            "rank": ranks[provenance(batch)],
            "width": len(batch.columns),
            "not_after_ms": batch.seen_ms + future_ms,
            "numeric": batch.numeric,
        }
        rows.append(facts | {f"at_{n}": place for place, n in enumerate(batch.columns)})
    # Of an Arrow table Spark makes rows without a Python on the executors.
    known = lines.sparkSession.createDataFrame(pa.Table.from_pylist(rows, schema=_CHUNK))
    blank = F.trim("text") == ""
    return (
        lines.join(F.broadcast(known), ["file", "block"])
        .withColumn("line", F.col("ordinal") - F.col("zero"))
        .where((F.col("line") > 1) & ~blank)
        .select("text", "line", *parse.BATCH_COLUMNS)
    )


def sum_by_key(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """The sum of the counts of each key."""
    sums: dict[str, int] = {}
    for key, count in pairs:
        sums[key] = sums.get(key, 0) + count
    return sums


_RECORD = (
    "file string, line bigint, text string, batch string, columns array<string>, "
    "seen_ms bigint, granularity_ms bigint, fetched_at bigint"
)


def rejected_lines(context: Context, spark: SparkSession) -> DataFrame:
    """The refused rows in `rejects/` as lines of their batches."""
    future_ms = int(context.settings.ingest.future_seconds * 1000)

    def place(name: str) -> Column:
        return F.nullif(F.array_position("columns", F.lit(name)), F.lit(0)).cast("int") - 1

    return (
        spark.read.schema(_RECORD)
        .option("pathGlobFilter", "*.jsonl")
        .json(file_url(context.workspace.rejects / "rows"))
        .select(
            "*",
            F.size("columns").alias("width"),
            (F.col("seen_ms") + future_ms).alias("not_after_ms"),
            F.lit(False).alias("numeric"),
            *[place(name).alias(f"at_{name}") for name in CSV_COLUMNS],
        )
    )


def tallies_of_good(good: DataFrame, ranking: Sequence[Provenance]) -> dict[str, dict[str, Any]]:
    """A tally of the good rows of each batch, by the hash of the batch and its lines."""
    lines = F.array_join(
        F.transform(F.sort_array(F.collect_list("line")), lambda n: n.cast("string")), ","
    )
    rows = (
        good.groupBy("rank")
        .agg(lines.alias("lines"), F.first("file").alias("file"), F.count("*").alias("read"))
        .collect()
    )
    tallies = {}
    for row in rows:
        batch, name = ranking[row["rank"]].batch, f"{row['file']} (replayed)"
        key = durable_io.bytes_hash(f"{batch}:{row['lines']}".encode())
        tallies[key] = {"batch": batch, "name": name, "read": row["read"], "refused": 0}
    return tallies


def rewrite_refused(
    context: Context, rows: DataFrame, files: Sequence[Path], ranking: Sequence[Provenance]
) -> None:
    """Write the files of refused rows again, without the rows that are good now."""
    names = ("file", "columns", "seen_ms")
    facts: dict[str, Mapping[str, Any]] = {}
    for row in rows.groupBy("rank").agg(*[F.first(n).alias(n) for n in names]).collect():
        source = ranking[row["rank"]]
        facts[source.batch] = {
            **{name: row[name] for name in names},
            "granularity_ms": source.granularity_ms,
            "fetched_at": source.fetched_at,
        }
    # Spark reads the files that this replaces, so the refused rows are read from them first. They
    # are kept in files: cached rows are lost with their executor, and would be read again.
    with durable_io.private_folder(context.workspace.cache / "replay") as folder:
        rows.where(F.col("rule").isNotNull()).write.parquet(file_url(folder))
        refused = rows.sparkSession.read.parquet(file_url(folder))
        written = set(save_refused(context, refused, ranking=ranking, facts=facts).values())
    for batch, fact in facts.items():
        path = rejects.rows_path(context.workspace.rejects, batch, str(fact["file"]))
        if path in files and path not in written:
            path.unlink()
