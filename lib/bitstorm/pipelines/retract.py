"""`retract`: takes a wrong batch out again, as a new snapshot; what it had displaced comes back."""

from __future__ import annotations

import os
from dataclasses import dataclass

from bitstorm.context import Context
from bitstorm.core.errors import UsageError
from bitstorm.core.schema import PRICES
from bitstorm.ingest.deduplicate import to_ranking, with_place
from bitstorm.ingest.publish_prices import run_with_lock, stored_rows, write_rows
from bitstorm.ingest.select_batches import find_batch, months_of, other_batches
from bitstorm.ingest.validate import checked_lines, only_good, provenance, to_checked_prices
from bitstorm.store import landing, petastorm_io, snapshots
from bitstorm.store.publish import Change, Draft, publish


@dataclass(frozen=True)
class Retracted:
    """`removed` rows of the batch are gone; at `restored` of their times another batch's
    observation stands again. `absent_batches` were ingested but no longer lie in `landing/`, so
    what they had said of these times cannot come back."""

    batch: str
    name: str
    removed: int
    restored: int
    absent_batches: int
    snapshot: str
    rows: int


def retract(context: Context, batch: str, *, reason: str) -> Retracted:
    """Take out the batch of that file name or hash (its first digits will do)."""
    if not reason.strip():
        raise UsageError("--reason is empty; say why, it stays in the history")
    return run_with_lock(
        context, lambda: _retract(context, batch, reason=reason), doing="retracting"
    )


def _retract(context: Context, batch: str, *, reason: str) -> Retracted:
    workspace = context.workspace
    parent = snapshots.required(workspace.prices)
    ledger = snapshots.read_ledger(parent)
    sha256 = find_batch(batch, ledger)
    name = ledger[sha256]["name"]
    months = months_of(parent, sha256)
    others, absent = other_batches(context, ledger, sha256)
    entry = {**ledger[sha256], "retracted": reason}
    staging = workspace.cache / f"staging-{os.getpid()}"
    with context.spark("retract") as spark, landing.stage_batches(others, staging) as folder:
        stored, ranking = stored_rows(spark, parent, months, to_ranking(map(provenance, others)))
        stored = stored.persist()
        ranks = [rank for rank, source in enumerate(ranking) if source.batch == sha256]
        wrong = stored["rank"].isin(ranks)
        removed = stored.where(wrong).select("timestamp")
        kept = stored.where(~wrong)
        candidates = kept
        if others and months:
            lines = checked_lines(spark, context, others, folder, ranking=ranking)
            again = only_good(to_checked_prices(lines))
            candidates = kept.unionByName(again.join(removed, "timestamp", "left_semi"))
        winners = with_place(candidates).where("place = 1").persist()
        rows, held, left = removed.count(), kept.count(), winners.count()

        def write(draft: Draft) -> Change:
            if left:
                write_rows(winners, draft, ranking)
            return Change(
                frozenset(months),
                with_lineage=True,
                may_lose_keys=True,
                ledger={**ledger, sha256: entry},
                details={"retracted": sha256},
            )

        made = publish(
            workspace.prices,
            table=PRICES,
            schema=petastorm_io.BitcoinSchema,
            parent=parent,
            operation="retract",
            reason=reason,
            write=write,
        )
        stored.unpersist()
        winners.unpersist()
    return Retracted(sha256, name, rows, left - held, absent, made.id, made.manifest.rows)
