"""`ingest`: new CSV batches → the `prices` data set."""

from __future__ import annotations

from bitstorm.context import Context
from bitstorm.core.time import now_ms
from bitstorm.ingest.deduplicate import to_ranking
from bitstorm.ingest.publish_prices import Ingested, publish_checked, run_with_lock
from bitstorm.ingest.select_batches import split_by_origin
from bitstorm.ingest.validate import checked_lines, provenance
from bitstorm.store import landing, rejects, snapshots


def ingest(context: Context) -> Ingested:
    """Add all new batches of the landing folder to `prices`, as a new snapshot.

    Raises StoreError where another process holds the lock for longer than `ingest.lock_seconds`.
    """
    return run_with_lock(context, lambda: _ingest(context), doing="merging")


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
    origin, ready, strangers = split_by_origin(found.ready, workspace.bound_to(), context)
    newly_refused = tuple(
        refused
        for refused in (*found.refused, *strangers)
        if rejects.save_batch(workspace.rejects, refused)
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
    staging = workspace.cache / "staging"
    with context.spark("ingest") as spark, landing.stage_batches(ready, staging) as folder:
        ranking = to_ranking(map(provenance, ready))
        rows = checked_lines(spark, context, ready, folder, ranking=ranking)
        return publish_checked(
            context, base, rows, ready=ready, ranking=ranking, parent=parent, known=known
        )
