"""Lines of batches → rows with their verdict, counted, and the refused ones kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.errors import DataError
from bitstorm.pipelines.context import Context
from bitstorm.schema import CSV_COLUMNS, PARTITION
from bitstorm.store import landing, rejects
from bitstorm.store.landing import Batch
from bitstorm.transform.contract import (
    BATCH_COLUMNS,
    reason,
    to_prices,
    with_fields,
    with_rule,
    with_values,
)
from bitstorm.transform.merge import LINEAGE_COLUMNS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def checked_lines(
    spark: SparkSession, context: Context, batches: Sequence[Batch], folder: Path
) -> DataFrame:
    """Every data line of the batches staged in `folder`, with its values and its `rule`."""
    future_ms = int(context.settings.ingest.future_seconds * 1000)
    lines = _numbered(spark, landing.read_lines(spark, folder), batches, future_ms=future_ms)
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
    """Rows by batch, refused rows by batch and by rule, and the months of the good ones."""

    read: Mapping[str, int]
    refused: Mapping[str, int]
    by_rule: Mapping[str, int]
    warned: Mapping[str, int]
    months: frozenset[str]

    def total(self, *, refused: bool = False) -> int:
        return sum((self.refused if refused else self.read).values())


def to_judged(checked: DataFrame) -> DataFrame:
    """The checked rows as prices with their lineage, `rule` and `warning`."""
    return to_prices(checked, keep=(*LINEAGE_COLUMNS, "rule", "warning"))


def only_good(judged: DataFrame) -> DataFrame:
    """The rows that no rule refuses, as prices with their lineage."""
    from pyspark.sql import functions as F

    return judged.where(F.col("rule").isNull()).drop("rule", "warning")


def count_by_rule(judged: DataFrame) -> Counted:
    """One pass over the judged rows."""
    rows = judged.groupBy("batch", "rule", "warning", PARTITION).count().collect()
    bad = [row for row in rows if row["rule"] is not None]
    warned = [row for row in rows if row["rule"] is None and row["warning"] is not None]
    return Counted(
        read=_sums((row["batch"], row["count"]) for row in rows),
        refused=_sums((row["batch"], row["count"]) for row in bad),
        by_rule=_sums((row["rule"], row["count"]) for row in bad),
        warned=_sums((row["warning"], row["count"]) for row in warned),
        months=frozenset(row[PARTITION] for row in rows if row[PARTITION] is not None),
    )


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
            "published; mend or remove the batch, or set the rule to refuse"
        )


def keep_refused(
    context: Context, checked: DataFrame, *, facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Path]:
    """Write the refused rows with their reasons, streamed batch by batch."""
    from pyspark.sql import functions as F

    bad = checked.where(F.col("rule").isNotNull()).sort("batch", "line")
    rows = (row.asDict() for row in bad.toLocalIterator())
    explained = ({**row, "reason": reason(row["rule"], row)} for row in rows)
    return rejects.keep_rows(context.workspace.rejects, explained, facts=facts)


def _numbered(
    spark: SparkSession, lines: DataFrame, ready: Sequence[Batch], *, future_ms: int
) -> DataFrame:
    """Data lines with `line` (the header is line 1) and what is known of their batch.

    Spark reads a large file in chunks that know nothing of each other; how many lines lie in the
    chunks before is counted first, so each line's number is exact.
    """
    from pyspark.sql import functions as F

    by_name = {batch.staged_name: batch for batch in ready}
    chunks = (
        lines.groupBy("file", "block")
        .agg(F.min("ordinal").alias("first"), F.count("*").alias("lines"))
        .orderBy("file", "block")
        .collect()
    )
    rows: list[tuple[Any, ...]] = []
    before: dict[str, int] = {}
    for chunk in chunks:
        offset = before.get(chunk["file"], 0)
        before[chunk["file"]] = offset + chunk["lines"]
        batch = by_name[chunk["file"]]
        rows.append(
            (chunk["file"], chunk["block"], chunk["first"] - offset - 1, *_facts(batch, future_ms))
        )
    places = ", ".join(f"at_{name} int" for name in CSV_COLUMNS)
    facts = spark.createDataFrame(
        rows,
        "file string, block bigint, zero bigint, batch string, width int, not_after_ms bigint, "
        f"{places}, granularity_ms bigint, fetched_at bigint",
    )
    blank = F.trim("text") == ""
    return (
        lines.join(F.broadcast(facts), ["file", "block"])
        .withColumn("line", F.col("ordinal") - F.col("zero"))
        .where((F.col("line") > 1) & ~blank)
        .select("text", "line", *BATCH_COLUMNS, "granularity_ms", "fetched_at")
    )


def _facts(batch: Batch, future_ms: int) -> tuple[Any, ...]:
    sidecar = batch.sidecar
    return (
        batch.sha256,
        len(batch.columns),
        batch.seen_ms + future_ms,
        *[batch.columns.index(n) if n in batch.columns else None for n in CSV_COLUMNS],
        None if sidecar is None else sidecar.granularity_ms,
        None if sidecar is None else sidecar.fetched_at,
    )


def _sums(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, count in pairs:
        found[key] = found.get(key, 0) + count
    return found
