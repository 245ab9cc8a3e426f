"""`retract`: a new snapshot of `prices` without a wrong batch, with the rows it had displaced."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from bitstorm.context import Context
from bitstorm.core.errors import UsageError
from bitstorm.core.results import Result
from bitstorm.core.schema import PRICES
from bitstorm.ingest.deduplicate import to_ranking, with_place
from bitstorm.ingest.publish_prices import run_with_lock, stored_rows, write_rows
from bitstorm.ingest.select_batches import find_batch, months_of, other_batches
from bitstorm.ingest.validate import checked_lines, only_good, provenance, to_checked_prices
from bitstorm.spark.stage import kept
from bitstorm.store import landing, petastorm_io, snapshots
from bitstorm.store.publish import Change, Draft, publish
from bitstorm.store.seal_tasks import on_cluster


@dataclass(frozen=True, repr=False)
class Retracted(Result):
    """`removed` rows of the batch were removed; at `restored` of their times an observation of
    another batch replaces them. `absent_batches` were ingested but are no longer in `landing/`, so
    their observations cannot come back."""

    batch: str
    name: str
    removed: int
    restored: int
    absent_batches: int
    snapshot: str
    rows: int


def retract(context: Context, batch: str, *, reason: str) -> Retracted:
    """Remove the batch with this file name or hash (or the hash's first digits). Raises UsageError
    where the reason is empty, or not exactly one batch matches."""
    if not reason.strip():
        raise UsageError("--reason is empty; expected a reason, which the history keeps")
    return run_with_lock(context, lambda: _retract(context, batch, reason), doing="retracting")


def _retract(context: Context, batch: str, reason: str) -> Retracted:
    workspace = context.workspace
    parent = snapshots.required(workspace.prices)
    ledger = snapshots.read_ledger(parent)
    sha256 = find_batch(batch, ledger)
    name = ledger[sha256]["name"]
    months = months_of(parent, sha256)
    others, absent = other_batches(context, ledger, sha256)
    entry = {**ledger[sha256], "retracted": reason}
    staging = workspace.cache / "staging"
    with ExitStack() as stack:
        spark = stack.enter_context(context.spark("retract"))
        folder = stack.enter_context(landing.stage_batches(others, staging))
        found, ranking = stored_rows(spark, parent, months, to_ranking(map(provenance, others)))
        stored = stack.enter_context(kept(found, workspace.cache))
        ranks = [rank for rank, source in enumerate(ranking) if source.batch == sha256]
        wrong = stored["rank"].isin(ranks)
        removed = stored.where(wrong).select("timestamp")
        remaining = stored.where(~wrong)
        candidates = remaining
        if others and months:
            lines = checked_lines(spark, context, others, folder, ranking=ranking)
            again = only_good(to_checked_prices(lines))
            candidates = remaining.unionByName(again.join(removed, "timestamp", "left_semi"))
        best = with_place(candidates).where("place = 1")
        winners = stack.enter_context(kept(best, workspace.cache))
        rows, others_rows, all_rows = removed.count(), remaining.count(), winners.count()

        def write(draft: Draft) -> Change:
            if all_rows:
                write_rows(winners, draft, ranking)
            return Change(
                frozenset(months),
                with_lineage=True,
                may_lose_keys=True,
                ledger={**ledger, sha256: entry},
                details={"retracted": sha256},
                each_month=on_cluster(spark),
            )

        new = publish(
            workspace.prices,
            table=PRICES,
            schema=petastorm_io.BitcoinSchema,
            parent=parent,
            operation="retract",
            reason=reason,
            write=write,
        )
    restored = all_rows - others_rows
    return Retracted(sha256, name, rows, restored, absent, new.id, new.manifest.rows)
