"""`ingest`: new CSV batches → the `prices` data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.errors import StoreError
from bitstorm.instants import now_ms
from bitstorm.pipelines.context import Context
from bitstorm.schema import CSV_COLUMNS, PARTITION, PRICES
from bitstorm.sidecar import Origin
from bitstorm.store import landing, petastorm_io, rejects, snapshots
from bitstorm.store.landing import Batch, Refused
from bitstorm.store.snapshots import Snapshot
from bitstorm.transform.contract import (
    BATCH_COLUMNS,
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
    `snapshot` is None when the data set still does not exist.
    """

    batches: int
    read: int
    accepted: int
    duplicate: int
    refused: int
    replaced: int
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


@dataclass(frozen=True)
class Tally:
    """The rows of one batch; a batch is taken only when they add up."""

    name: str
    read: int
    accepted: int
    duplicate: int
    refused: int

    def check(self) -> None:
        if self.read != self.accepted + self.duplicate + self.refused:
            raise StoreError(
                f"batch {self.name} does not add up: {self.read} rows read, but {self.accepted} "
                f"accepted + {self.duplicate} duplicate + {self.refused} refused; nothing was "
                "published, please report this"
            )


def ingest(context: Context) -> Ingested:
    """Take every new batch of the landing folder into a new snapshot of `prices`."""
    workspace, settings = context.workspace, context.settings
    parent = snapshots.current(workspace.prices)
    known: dict[str, Any] = {} if parent is None else parent.manifest.details["batches"]
    found = landing.survey(
        workspace.landing,
        known=known,
        settle_seconds=settings.ingest.settle_seconds,
        now_ms=now_ms(),
    )
    origin, ready, strangers = _of_one_origin(found.ready, workspace.bound_to(), context)
    newly_refused = tuple(
        refused
        for refused in (*found.refused, *strangers)
        if rejects.keep_batch(workspace.rejects, refused)
    )
    base = Ingested(
        batches=len(ready),
        read=0,
        accepted=0,
        duplicate=0,
        refused=0,
        replaced=0,
        refused_batches=newly_refused,
        unsettled_batches=len(found.unsettled),
        known_batches=len(found.known),
        snapshot=None if parent is None else parent.id,
        rows=0 if parent is None else parent.manifest.rows,
        first_ms=None if parent is None else parent.manifest.first_ms,
        last_ms=None if parent is None else parent.manifest.last_ms,
    )
    if not ready:
        return base
    workspace.bind(origin)
    staging = workspace.cache / f"staging-{os.getpid()}"
    with context.spark("ingest") as spark, landing.staged(ready, staging) as folder:
        return _merge(spark, context, base, ready=ready, folder=folder, parent=parent, known=known)


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
    spark: SparkSession,
    context: Context,
    base: Ingested,
    *,
    ready: Sequence[Batch],
    folder: Path,
    parent: Snapshot | None,
    known: dict[str, Any],
) -> Ingested:
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    workspace = context.workspace
    names = {batch.sha256: batch.name for batch in ready}
    future_ms = int(context.settings.ingest.future_seconds * 1000)
    lines = _numbered(spark, landing.read_lines(spark, folder), ready, future_ms=future_ms)
    checked = lines.transform(with_fields).transform(with_values).transform(with_rule)
    by_rule = checked.groupBy("batch", "rule").count().collect()
    read = _sums((row["batch"], row["count"]) for row in by_rule)
    refused = _sums((row["batch"], row["count"]) for row in by_rule if row["rule"] is not None)
    if refused:
        bad = checked.where(F.col("rule").isNotNull()).sort("batch", "line")
        rows = (row.asDict() for row in bad.toLocalIterator())
        explained = ({**row, "reason": reason(row["rule"], row)} for row in rows)
        rejects.keep_rows(workspace.rejects, explained, names=names)
    total = replace(base, read=sum(read.values()), refused=sum(refused.values()))
    if parent is None and total.read == total.refused:
        return total

    good = to_prices(checked.where(F.col("rule").isNull()), keep=LINEAGE_COLUMNS)
    stored = [] if parent is None else [_stored(spark, parent)]
    everything = good if not stored else stored[0].unionByName(good)
    placed = with_place(everything).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        counts = (
            placed.groupBy("batch")
            .agg(F.count_if(F.col("place") == 1).alias("won"), F.count("*").alias("all"))
            .collect()
        )
        won = {row["batch"]: row["won"] for row in counts}
        lost = {row["batch"]: row["all"] - row["won"] for row in counts}
        tallies = {
            b.sha256: Tally(
                b.name,
                read.get(b.sha256, 0),
                won.get(b.sha256, 0),
                lost.get(b.sha256, 0),
                refused.get(b.sha256, 0),
            )
            for b in ready
        }
        for tally in tallies.values():
            tally.check()
        winners = placed.where(F.col("place") == 1)

        def write(target: Path, lineage: Path) -> dict[str, Any]:
            petastorm_io.write_dataset(winners, target, PRICES)
            petastorm_io.write_partitioned(
                winners.select("timestamp", *LINEAGE_COLUMNS, PARTITION), lineage
            )
            records = {sha: vars(tally) for sha, tally in tallies.items()}
            return {"batches": {**known, **records}}

        snapshot = snapshots.publish(
            workspace.prices, table=PRICES.name, parent=parent, write=write
        )
    finally:
        placed.unpersist()
    accepted = sum(tally.accepted for tally in tallies.values())
    before = 0 if parent is None else parent.manifest.rows
    return replace(
        total,
        accepted=accepted,
        duplicate=sum(tally.duplicate for tally in tallies.values()),
        replaced=before + accepted - snapshot.manifest.rows,
        snapshot=snapshot.id,
        rows=snapshot.manifest.rows,
        first_ms=snapshot.manifest.first_ms,
        last_ms=snapshot.manifest.last_ms,
    )


def _stored(spark: SparkSession, parent: Snapshot) -> DataFrame:
    """The parent's rows with their lineage."""
    prices = petastorm_io.read_spark(spark, parent, PRICES)
    lineage = petastorm_io.read_lineage(spark, parent)
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


def _sums(pairs: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, count in pairs:
        found[key] = found.get(key, 0) + count
    return found
