"""Good rows and the stored ones of their months → the next snapshot of `prices`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from bitstorm.context import Context
from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import Overtaken
from bitstorm.core.results import Result
from bitstorm.core.schema import LINEAGE, PRICES
from bitstorm.ingest.deduplicate import (
    LINEAGE_COLUMNS,
    SOURCE_COLUMNS,
    Provenance,
    ranked,
    reranked,
    with_lineage,
    with_place,
    with_rank,
)
from bitstorm.ingest.validate import (
    Counted,
    count_by_rule,
    keep_refused,
    only_good,
    placed,
    refuse_to_go_on,
    sums,
    to_judged,
)
from bitstorm.store import rejects, snapshots
from bitstorm.store.landing import Batch, Refused
from bitstorm.store.publish import Change, Draft, publish
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Ingested(Result):
    """read = accepted + duplicate + refused, over the batches that were taken.

    `replaced` counts stored rows that a better observation of the same time took the place of;
    `warned` counts rows that were taken although they break a rule that is only to warn, by rule;
    `snapshot` is None when the data set still does not exist.
    """

    batches: int = 0
    read: int = 0
    accepted: int = 0
    duplicate: int = 0
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
        """The same with what this snapshot holds."""
        if snapshot is None:
            return self
        m = snapshot.manifest
        return replace(self, snapshot=m.id, rows=m.rows, first_ms=m.first_ms, last_ms=m.last_ms)

    @property
    def idle(self) -> bool:
        return self.batches == 0 and not self.refused_batches


def as_only_writer(context: Context, act: Callable[[], T], *, doing: str) -> T:
    """What `act` returns, run while no other run writes `prices`; on a mount without locks, run
    again on the newest snapshot whenever another run has published first.

    Raises StoreError when another run holds the data set for longer than `ingest.lock_seconds`.
    """
    wait_seconds = context.settings.ingest.lock_seconds
    with writer_lock(context.workspace.prices, wait_seconds=wait_seconds):
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
    counted: Counted,
    tallies: Mapping[str, dict[str, Any]],
) -> tuple[Snapshot, dict[str, dict[str, Any]]]:
    """Merge good rows (prices with `rank`, `line` and `place`) into the parent's months; publish.

    `counted` is of these rows and the refused ones. `tallies` are by their key in the ledger, each
    with the `batch` of its rows, `name`, `read` and `refused`; they come back with `accepted` and
    `duplicate`, counted, not derived.
    """
    from pyspark.sql import functions as F

    from bitstorm.store import petastorm_io

    workspace, months = context.workspace, counted.months
    with ExitStack() as stack:
        placed, won, lost = good, counted.won, counted.lost
        if parent is not None and months & {file.month for file in parent.manifest.files}:
            placed, ranking = _merged(good, ranking, parent, months)
            stack.callback(placed.unpersist)
            won, lost = _outcome(placed.where("fresh"), ranking)
        winners = placed.where(F.col("place") == 1)
        complete = {
            key: {
                **{name: value for name, value in tally.items() if name != "batch"},
                "accepted": won.get(tally["batch"], 0),
                "duplicate": lost.get(tally["batch"], 0),
            }
            for key, tally in tallies.items()
        }

        def write(draft: Draft) -> Change:
            if months:
                write_rows(winners, draft, ranking)
            return Change(
                months,
                with_lineage=True,
                batches=complete,
                ledger={**known, **complete},
            )

        snapshot = publish(
            workspace.prices,
            table=PRICES,
            schema=petastorm_io.BitcoinSchema,
            parent=parent,
            operation=operation,
            write=write,
        )
    return snapshot, complete


def write_rows(winners: DataFrame, draft: Draft, ranking: tuple[Provenance, ...]) -> None:
    """Prices and their lineage, from rows as `with_place` leaves them."""
    from bitstorm.store import petastorm_io

    lineage = with_lineage(winners, ranking)
    petastorm_io.write_dataset(winners, draft.folder, PRICES, arranged=True)
    petastorm_io.write_partitioned(lineage, draft.lineage, LINEAGE, arranged=True)


def stored_rows(
    spark: SparkSession,
    parent: Snapshot,
    months: Collection[str],
    ranking: tuple[Provenance, ...] = (),
) -> tuple[DataFrame, tuple[Provenance, ...]]:
    """The parent's rows of these months with their `rank` and `line`, and the ranking of their
    batches and the given ones together. Raises SnapshotDamaged before a row that is not what was
    written could be merged into anything."""
    from bitstorm.store import petastorm_io

    wanted = set(months)
    snapshots.check_content(parent, months=wanted)
    sources = {
        Provenance(*found) for found in snapshots.lineage_values(parent, wanted, SOURCE_COLUMNS)
    }
    together = ranked([*ranking, *sources])
    prices = petastorm_io.read_spark(spark, parent, PRICES, months=wanted)
    lineage = petastorm_io.read_lineage(spark, parent, months=wanted)
    origin = with_rank(lineage.select("timestamp", *LINEAGE_COLUMNS), together)
    return prices.join(origin, "timestamp"), together


def _merged(
    good: DataFrame, ranking: tuple[Provenance, ...], parent: Snapshot, months: Collection[str]
) -> tuple[DataFrame, tuple[Provenance, ...]]:
    """The good rows and the stored ones with their place among each other, kept."""
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    stored, together = stored_rows(good.sparkSession, parent, months, ranking)
    fresh = good.drop("place")
    fresh = reranked(fresh, ranking, together).withColumn("fresh", F.lit(True))
    rows = fresh.unionByName(stored.withColumn("fresh", F.lit(False)))
    return with_place(rows).persist(StorageLevel.MEMORY_AND_DISK), together


def _outcome(
    fresh: DataFrame, ranking: tuple[Provenance, ...]
) -> tuple[dict[str, int], dict[str, int]]:
    """How many rows of each batch stand at their time, and how many do not."""
    from pyspark.sql import functions as F

    won, lost = F.count_if(F.col("place") == 1), F.count_if(F.col("place") > 1)
    rows = fresh.groupBy("rank").agg(won.alias("won"), lost.alias("lost")).collect()
    by_batch = [(ranking[row["rank"]].batch, row) for row in rows]
    return (
        sums((batch, row["won"]) for batch, row in by_batch),
        sums((batch, row["lost"]) for batch, row in by_batch),
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
    """Count the verdicts, keep the refused rows, publish the good ones; `base` with the result."""
    with placed(to_judged(checked)) as rows:
        counted = count_by_rule(rows, ranking)
        refuse_to_go_on(counted, context.settings.ingest.rules)
        total = replace(
            base,
            read=counted.total(),
            refused=counted.total(refused=True),
            warned=counted.warned,
        )
        if total.refused:
            facts = {batch.sha256: rejects.batch_facts(batch) for batch in ready}
            # Batches without a refused row are not parsed again.
            ranks = [n for n, source in enumerate(ranking) if counted.refused.get(source.batch)]
            again = checked.where(checked["rank"].isin(ranks))
            keep_refused(context, again, ranking=ranking, facts=facts)
        if parent is None and not counted.months:
            return total
        snapshot, tallies = publish_merged(
            context,
            only_good(rows),
            ranking=ranking,
            operation="ingest",
            parent=parent,
            known=known,
            counted=counted,
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
    accepted = sum(tally["accepted"] for tally in tallies.values())
    return replace(
        total,
        accepted=accepted,
        duplicate=sum(tally["duplicate"] for tally in tallies.values()),
        replaced=total.rows + accepted - snapshot.manifest.rows,
    ).at(snapshot)
