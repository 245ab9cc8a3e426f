"""`ingest`: new CSV batches → the `prices` data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bitstorm.context import Context
from bitstorm.core.results import Result
from bitstorm.core.time import now_ms
from bitstorm.ingest.deduplicate import Provenance, ranked
from bitstorm.ingest.origin import of_one_origin
from bitstorm.ingest.publish_prices import as_only_writer, publish_merged
from bitstorm.ingest.validate import (
    checked_lines,
    count_by_rule,
    keep_refused,
    only_good,
    placed,
    provenance,
    refuse_to_go_on,
    to_judged,
)
from bitstorm.store import landing, rejects, snapshots
from bitstorm.store.landing import Batch, Refused
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


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


def ingest(context: Context) -> Ingested:
    """Take every new batch of the landing folder into a new snapshot of `prices`.

    Raises StoreError when another run holds the data set for longer than `ingest.lock_seconds`.
    """
    return as_only_writer(context, lambda: _ingest(context), doing="merging")


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
    origin, ready, strangers = of_one_origin(found.ready, workspace.bound_to(), context)
    newly_refused = tuple(
        refused
        for refused in (*found.refused, *strangers)
        if rejects.keep_batch(workspace.rejects, refused)
    )
    base = Ingested(
        batches=len(ready),
        refused_batches=newly_refused,
        unsettled_batches=len(found.unsettled),
        known_batches=len(found.known),
    ).at(parent)
    if not ready:
        return base
    workspace.bind(origin)
    staging = workspace.cache / f"staging-{os.getpid()}"
    with context.spark("ingest") as spark, landing.staged(ready, staging) as folder:
        ranking = ranked(map(provenance, ready))
        rows = checked_lines(spark, context, ready, folder, ranking=ranking)
        return _merge(context, base, rows, ready=ready, ranking=ranking, parent=parent, known=known)


def _merge(
    context: Context,
    base: Ingested,
    checked: DataFrame,
    *,
    ready: Sequence[Batch],
    ranking: tuple[Provenance, ...],
    parent: Snapshot | None,
    known: dict[str, dict[str, Any]],
) -> Ingested:
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
