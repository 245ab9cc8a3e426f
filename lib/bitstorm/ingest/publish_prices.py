"""Merges good rows with the stored rows of their months into the next snapshot of `prices`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from bitstorm.context import Context
from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import Overtaken
from bitstorm.core.file_system import files_of
from bitstorm.core.results import Result
from bitstorm.core.schema import LINEAGE, PRICES
from bitstorm.ingest import deduplicate, validate
from bitstorm.ingest.deduplicate import Provenance
from bitstorm.ingest.validate import Counts
from bitstorm.spark.stage import kept
from bitstorm.store import rejects, snapshots
from bitstorm.store.landing import Batch, Refused
from bitstorm.store.publish import Change, Draft, publish
from bitstorm.store.seal_tasks import on_cluster
from bitstorm.store.snapshots import Snapshot

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Ingested(Result):
    """read = accepted + duplicate + superseded + refused, over the new batches.

    A row is superseded where a later line of its batch has the same time and another price.
    `replaced` counts stored rows that lost to a better observation of the same time; `warned`
    counts, by rule, accepted rows that break a rule with the action `warn`; `snapshot` is None
    while the data set does not exist.
    """

    batches: int = 0
    read: int = 0
    accepted: int = 0
    duplicate: int = 0
    superseded: int = 0
    refused: int = 0
    replaced: int = 0
    warned: Mapping[str, int] = field(default_factory=dict)
    refused_batches: tuple[Refused, ...] = ()
    unsettled_batches: int = 0
    known_batches: int = 0
    snapshot: str | None = None
    rows: int = 0
    first_ms: int | None = None
    last_ms: int | None = None

    def at(self, snapshot: Snapshot | None) -> Ingested:
        """A copy with the ID, rows and time range of this snapshot."""
        if snapshot is None:
            return self
        m = snapshot.manifest
        return replace(self, snapshot=m.id, rows=m.rows, first_ms=m.first_ms, last_ms=m.last_ms)

    @property
    def idle(self) -> bool:
        return self.batches == 0 and not self.refused_batches


def run_with_lock(context: Context, act: Callable[[], T], *, doing: str) -> T:
    """Run `act` with the lock of `prices` and return its result.

    On a mount without locks another run may publish first: then `act` runs again, on the newest
    snapshot. Raises StoreError when another run holds the lock for over `ingest.lock_seconds`.
    """
    wait_seconds = context.settings.ingest.lock_seconds
    with writer_lock(files_of(context.workspace.prices).folder, wait_seconds=wait_seconds):
        while True:
            try:
                return act()
            except Overtaken:
                context.console.say(f"another run has published first: {doing} again")


def publish_merged(
    context: Context,
    good: DataFrame,
    *,
    ranking: tuple[Provenance, ...],
    operation: str,
    parent: Snapshot | None,
    known: Mapping[str, dict[str, Any]],
    counts: Counts,
    tallies: Mapping[str, dict[str, Any]],
) -> tuple[Snapshot, dict[str, dict[str, Any]]]:
    """Merge good rows (prices with `rank`, `line` and `place`) into the parent's months; publish.

    `counts` are of these rows and the refused ones. `tallies` are by their key in the ledger, each
    with the `batch` of its rows, `name`, `read` and `refused`. They are returned with the number of
    each outcome, which is counted, not derived.
    """
    from bitstorm.store import petastorm_io

    months = counts.months
    with ExitStack() as stack:
        rows, outcomes = good, counts.outcomes
        if parent is not None and months & {file.month for file in parent.manifest.files}:
            merged, ranking = _merged(good, ranking, parent, months)
            rows = stack.enter_context(kept(merged, context.workspace.cache))
            outcomes = _outcomes(rows.where("fresh"), ranking)
        winners = rows.where("place = 1")
        complete = {
            key: {
                **{name: value for name, value in tally.items() if name != "batch"},
                **{name: n.get(tally["batch"], 0) for name, n in outcomes.items()},
            }
            for key, tally in tallies.items()
        }

        def write(draft: Draft) -> Change:
            if months:
                write_rows(winners, draft, ranking)
            ledger = {**known, **complete}
            return Change(
                months,
                with_lineage=True,
                batches=complete,
                ledger=ledger,
                each_month=on_cluster(good.sparkSession),
            )

        snapshot = publish(
            context.workspace.prices,
            table=PRICES,
            schema=petastorm_io.BitcoinSchema,
            parent=parent,
            operation=operation,
            write=write,
        )
    return snapshot, complete


def write_rows(winners: DataFrame, draft: Draft, ranking: tuple[Provenance, ...]) -> None:
    """Write prices and their lineage; the rows are in the order that `with_place` gives."""
    from bitstorm.store import petastorm_io

    lineage = deduplicate.with_lineage(winners, ranking)
    petastorm_io.write_dataset(winners, draft.folder, PRICES, presorted=True)
    petastorm_io.write_partitioned(lineage, draft.lineage, LINEAGE, presorted=True)


def stored_rows(
    spark: SparkSession,
    parent: Snapshot,
    months: Collection[str],
    ranking: tuple[Provenance, ...] = (),
) -> tuple[DataFrame, tuple[Provenance, ...]]:
    """The parent's rows of these months with `rank` and `line`, and the ranking of their batches
    together with the given ones.

    Raises SnapshotDamaged where a file has changed, before any of its rows is merged.
    """
    from bitstorm.store import petastorm_io

    wanted = set(months)
    snapshots.check_content(parent, months=wanted)
    sources = snapshots.lineage_values(parent, wanted, deduplicate.SOURCE_COLUMNS)
    together = deduplicate.to_ranking([*ranking, *(Provenance(*source) for source in sources)])
    prices = petastorm_io.read_spark(spark, parent, PRICES, months=wanted)
    lineage = petastorm_io.read_lineage(spark, parent, months=wanted)
    lineage = lineage.select("timestamp", *deduplicate.LINEAGE_COLUMNS)
    return prices.join(deduplicate.with_rank(lineage, together), "timestamp"), together


def _merged(
    good: DataFrame, ranking: tuple[Provenance, ...], parent: Snapshot, months: Collection[str]
) -> tuple[DataFrame, tuple[Provenance, ...]]:
    """The good rows (`fresh`) and the stored ones with their common `place`."""
    stored, together = stored_rows(good.sparkSession, parent, months, ranking)
    fresh = deduplicate.with_new_rank(good.drop("place", "superseded"), ranking, together)
    rows = fresh.withColumn("fresh", F.lit(True)).unionByName(
        stored.withColumn("fresh", F.lit(False))
    )
    return deduplicate.with_place(rows), together


def _outcomes(fresh: DataFrame, ranking: tuple[Provenance, ...]) -> dict[str, dict[str, int]]:
    """The number of rows by outcome and batch."""
    rows = fresh.groupBy("rank").agg(*validate.outcome_counts()).collect()
    return validate.outcomes_by_batch(
        {**row.asDict(), "batch": ranking[row["rank"]].batch} for row in rows
    )


def publish_checked(
    context: Context,
    base: Ingested,
    checked: DataFrame,
    *,
    ready: Sequence[Batch],
    ranking: tuple[Provenance, ...],
    parent: Snapshot | None,
    known: dict[str, dict[str, Any]],
) -> Ingested:
    """Count the checked lines, save the refused ones and publish the good ones; return `base`
    with the counts and the new snapshot."""
    with validate.persist_with_place(context, validate.to_checked_prices(checked)) as rows:
        counts = validate.count_by_rule(rows, ranking)
        validate.check_fatal_rules(counts, context.settings.ingest.rules)
        total = replace(
            base,
            read=sum(counts.read.values()),
            refused=sum(counts.refused.values()),
            warned=counts.warned,
        )
        if total.refused:
            facts = {batch.sha256: rejects.batch_facts(batch) for batch in ready}
            # Batches without a refused row are not parsed again.
            ranks = [n for n, source in enumerate(ranking) if counts.refused.get(source.batch)]
            again = checked.where(checked["rank"].isin(ranks))
            validate.save_refused(context, again, ranking=ranking, facts=facts)
        if parent is None and not counts.months:
            return total
        snapshot, tallies = publish_merged(
            context,
            validate.only_good(rows),
            ranking=ranking,
            operation="ingest",
            parent=parent,
            known=known,
            counts=counts,
            tallies={
                b.sha256: {
                    "batch": b.sha256,
                    "name": b.name,
                    "read": counts.read.get(b.sha256, 0),
                    "refused": counts.refused.get(b.sha256, 0),
                }
                for b in ready
            },
        )
    return with_outcome(total, snapshot, tallies)


def with_outcome(
    total: Ingested, snapshot: Snapshot, tallies: Mapping[str, Mapping[str, Any]]
) -> Ingested:
    """`total` with the number of each outcome, the replaced rows, and the new snapshot."""
    outcomes = {n: sum(tally[n] for tally in tallies.values()) for n in snapshots.OUTCOMES}
    replaced = total.rows + outcomes["accepted"] - snapshot.manifest.rows
    return replace(total, **outcomes, replaced=replaced).at(snapshot)
