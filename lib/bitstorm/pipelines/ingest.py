"""`ingest`: new CSV batches → the `prices` data set."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.errors import DataError, Overtaken
from bitstorm.instants import now_ms
from bitstorm.pipelines.context import Context
from bitstorm.schema import CSV_COLUMNS, LINEAGE, PARTITION, PRICES
from bitstorm.sidecar import Origin
from bitstorm.store import landing, petastorm_io, rejects, snapshots
from bitstorm.store.landing import Batch, Refused
from bitstorm.store.lock import writer_lock
from bitstorm.store.snapshots import Change, Draft, Snapshot
from bitstorm.transform.contract import (
    BATCH_COLUMNS,
    month_of,
    reason,
    to_prices,
    with_fields,
    with_rule,
    with_values,
)
from bitstorm.transform.merge import LINEAGE_COLUMNS, with_place

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class Ingested:
    """read = accepted + duplicate + refused, over the batches that were taken.

    `replaced` counts stored rows that a better observation of the same time took the place of;
    `warned` counts rows that were taken although they break a rule that is only to warn, by rule;
    `snapshot` is None when the data set still does not exist.
    """

    batches: int
    read: int
    accepted: int
    duplicate: int
    refused: int
    replaced: int
    warned: Mapping[str, int]
    refused_batches: tuple[Refused, ...]
    unsettled_batches: int
    known_batches: int
    snapshot: str | None
    rows: int
    first_ms: int | None
    last_ms: int | None

    @property
    def idle(self) -> bool:
        return self.batches == 0 and not self.refused_batches


def ingest(context: Context) -> Ingested:
    """Take every new batch of the landing folder into a new snapshot of `prices`.

    Raises StoreError when another run holds the data set for longer than `ingest.lock_seconds`.
    """
    workspace, settings = context.workspace, context.settings
    with writer_lock(workspace.prices, wait_seconds=settings.ingest.lock_seconds):
        while True:
            try:
                return _ingest(context)
            except Overtaken:
                # A mount without locks: the other run's snapshot is the parent now.
                context.console.say("another run has published first: merging again")


def _ingest(context: Context) -> Ingested:
    workspace, settings = context.workspace, context.settings
    parent = snapshots.current(workspace.prices)
    known = snapshots.read_ledger(parent)
    found = landing.survey(
        workspace.landing,
        known=known,
        settle_seconds=settings.ingest.settle_seconds,
        now_ms=now_ms(),
        cache=workspace.cache / "landing.json",
    )
    origin, ready, strangers = _of_one_origin(found.ready, workspace.bound_to(), context)
    newly_refused = tuple(
        refused
        for refused in (*found.refused, *strangers)
        if rejects.keep_batch(workspace.rejects, refused)
    )
    manifest = None if parent is None else parent.manifest
    base = Ingested(
        batches=len(ready),
        read=0,
        accepted=0,
        duplicate=0,
        refused=0,
        replaced=0,
        warned={},
        refused_batches=newly_refused,
        unsettled_batches=len(found.unsettled),
        known_batches=len(found.known),
        snapshot=None if manifest is None else manifest.id,
        rows=0 if manifest is None else manifest.rows,
        first_ms=None if manifest is None else manifest.first_ms,
        last_ms=None if manifest is None else manifest.last_ms,
    )
    if not ready:
        return base
    workspace.bind(origin)
    staging = workspace.cache / f"staging-{os.getpid()}"
    with context.spark("ingest") as spark, landing.staged(ready, staging) as folder:
        rows = checked_lines(spark, context, ready, folder)
        return _merge(context, base, rows, ready=ready, parent=parent, known=known)


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


def _of_one_origin(
    ready: Sequence[Batch], bound: Origin | None, context: Context
) -> tuple[Origin, list[Batch], list[Refused]]:
    """The batches that belong to the workspace's origin, and those that do not.

    An unbound workspace takes the origin of its first batch that states one. A file without a
    sidecar states none: whoever dropped it there vouches for it.
    """
    stated = [_origin(batch) for batch in ready]
    origin = bound or next((o for o in stated if o is not None), None)
    if origin is None:
        settings = context.settings.source
        origin = Origin("csv", settings.coin, settings.vs_currency)
    taken = [b for b, o in zip(ready, stated, strict=True) if o in (None, origin)]
    strangers = [
        Refused(
            batch.path,
            batch.sha256,
            "origin",
            f"its sidecar says ({stranger}), the workspace holds ({origin}); "
            "ingest it into another workspace",
        )
        for batch, stranger in zip(ready, stated, strict=True)
        if stranger not in (None, origin)
    ]
    return origin, taken, strangers


def _origin(batch: Batch) -> Origin | None:
    s = batch.sidecar
    return None if s is None else Origin(s.source, s.coin, s.vs_currency)


def _merge(
    context: Context,
    base: Ingested,
    checked: DataFrame,
    *,
    ready: Sequence[Batch],
    parent: Snapshot | None,
    known: dict[str, dict[str, Any]],
) -> Ingested:
    from pyspark.sql import functions as F

    rules = context.settings.ingest.rules
    counted = count_by_rule(checked)
    refuse_to_go_on(counted, rules)
    total = replace(
        base,
        read=counted.total(),
        refused=counted.total(refused=True),
        warned=counted.warned,
    )
    if total.refused:
        facts = {batch.sha256: rejects.batch_facts(batch) for batch in ready}
        keep_refused(context, checked, facts=facts)
    if parent is None and not counted.months:
        return total
    good = to_prices(checked.where(F.col("rule").isNull()), keep=LINEAGE_COLUMNS)
    snapshot, tallies = publish_merged(
        context,
        good,
        operation="ingest",
        parent=parent,
        known=known,
        months=counted.months,
        tallies={
            b.sha256: {
                "batch": b.sha256,
                "name": b.name,
                "read": counted.read.get(b.sha256, 0),
                "refused": counted.refused.get(b.sha256, 0),
            }
            for b in ready
        },
    )
    return with_outcome(total, snapshot, tallies)


def with_outcome(
    total: Ingested, snapshot: Snapshot, tallies: Mapping[str, Mapping[str, Any]]
) -> Ingested:
    """The result with what the merge made of the good rows."""
    manifest = snapshot.manifest
    accepted = sum(tally["accepted"] for tally in tallies.values())
    return replace(
        total,
        accepted=accepted,
        duplicate=sum(tally["duplicate"] for tally in tallies.values()),
        replaced=total.rows + accepted - manifest.rows,
        snapshot=snapshot.id,
        rows=manifest.rows,
        first_ms=manifest.first_ms,
        last_ms=manifest.last_ms,
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


def count_by_rule(checked: DataFrame) -> Counted:
    """One pass over the checked rows."""
    from pyspark.sql import functions as F

    month = F.when(F.col("rule").isNull(), month_of(F.col("timestamp"))).alias(PARTITION)
    rows = checked.groupBy("batch", "rule", "warning", month).count().collect()
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


def publish_merged(
    context: Context,
    good: DataFrame,
    *,
    operation: str,
    parent: Snapshot | None,
    known: Mapping[str, dict[str, Any]],
    months: frozenset[str],
    tallies: Mapping[str, dict[str, Any]],
) -> tuple[Snapshot, dict[str, dict[str, Any]]]:
    """Merge good rows (prices with lineage) into the parent's months and publish.

    `tallies` are by their key in the ledger, each with the `batch` of its rows, `name`, `read` and
    `refused`; they come back with `accepted` and `duplicate`, counted, not derived.
    """
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    workspace, spark = context.workspace, good.sparkSession
    fresh = good.withColumn("fresh", F.lit(True))
    if parent is not None and months:
        stored = stored_rows(spark, parent, set(months)).withColumn("fresh", F.lit(False))
        fresh = fresh.unionByName(stored)
    placed = with_place(fresh).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        counts = {
            row["batch"]: (row["won"], row["lost"])
            for row in placed.where("fresh")
            .groupBy("batch")
            .agg(
                F.count_if(F.col("place") == 1).alias("won"),
                F.count_if(F.col("place") > 1).alias("lost"),
            )
            .collect()
        }
        complete: dict[str, dict[str, Any]] = {}
        for key, tally in tallies.items():
            won, lost = counts.get(tally["batch"], (0, 0))
            told = {name: value for name, value in tally.items() if name != "batch"}
            complete[key] = {**told, "accepted": won, "duplicate": lost}
        winners = placed.where(F.col("place") == 1)

        def write(draft: Draft) -> Change:
            if months:
                petastorm_io.write_dataset(winners, draft.folder, PRICES, arranged=True)
                petastorm_io.write_partitioned(winners, draft.lineage, LINEAGE, arranged=True)
            return Change(
                months,
                with_lineage=True,
                batches=complete,
                ledger={**known, **complete},
            )

        snapshot = snapshots.publish(
            workspace.prices,
            table=PRICES,
            schema=petastorm_io.BitcoinSchema,
            parent=parent,
            operation=operation,
            write=write,
        )
    finally:
        placed.unpersist()
    return snapshot, complete


def stored_rows(spark: SparkSession, parent: Snapshot, months: set[str]) -> DataFrame:
    """The parent's rows of these months with their lineage. Raises SnapshotDamaged before one that
    is not what was written could be merged into anything."""
    snapshots.check_content(parent, months=months)
    prices = petastorm_io.read_spark(spark, parent, PRICES, months=months)
    lineage = petastorm_io.read_lineage(spark, parent, months=months)
    return prices.join(lineage.select("timestamp", *LINEAGE_COLUMNS), "timestamp")


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
