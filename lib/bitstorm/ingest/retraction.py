"""A batch that is to be taken out again: which one is meant, its months, and the other batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bitstorm.context import Context
from bitstorm.core.errors import NothingToDo, UsageError
from bitstorm.core.time import now_ms
from bitstorm.store import landing
from bitstorm.store.landing import Batch
from bitstorm.store.snapshots import Snapshot


def find_batch(batch: str, ledger: Mapping[str, Mapping[str, Any]]) -> str:
    """The hash of the ingested batch of that file name or hash (its first digits will do)."""
    wanted = batch.lower()
    found = [sha for sha, t in ledger.items() if t["name"] == batch or sha == wanted]
    if not found and len(wanted) >= 6:
        found = [sha for sha in ledger if sha.startswith(wanted)]
    if len(found) != 1:
        what = "no ingested batch" if not found else f"{len(found)} ingested batches"
        raise UsageError(
            f"{what} called {batch!r}; give the file's name, or the hash that "
            "`bitstorm history` shows"
        )
    if ledger[found[0]].get("retracted"):
        raise NothingToDo(f"{batch} was retracted before: {ledger[found[0]]['retracted']}")
    return found[0]


def months_of(parent: Snapshot, sha256: str) -> set[str]:
    """The months that have rows of the batch, from one column of the lineage."""
    import pyarrow.parquet as pq

    return {
        file.month
        for file in parent.manifest.lineage
        if pq.read_table(
            parent.lineage / file.path, columns=["line"], filters=[("batch", "=", sha256)]
        ).num_rows
    }


def other_batches(
    context: Context, ledger: Mapping[str, Mapping[str, Any]], sha256: str
) -> tuple[list[Batch], int]:
    """The other ingested batches that still lie in the landing folder, and how many do not."""
    found = landing.survey(context.workspace.landing, known={}, settle_seconds=0.0, now_ms=now_ms())
    wanted = {sha for sha, t in ledger.items() if sha != sha256 and not t.get("retracted")}
    others = [batch for batch in found.ready if batch.sha256 in wanted]
    return others, len(wanted) - len(others)
