"""Selects batches: those of the workspace's origin, the one to retract, and the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq

from bitstorm.context import Context
from bitstorm.core.errors import NothingToDo, UsageError
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import now_ms
from bitstorm.store import landing
from bitstorm.store.landing import Batch, Refused
from bitstorm.store.snapshots import LINEAGE, Snapshot


def find_batch(batch: str, ledger: Mapping[str, Mapping[str, Any]]) -> str:
    """The hash of the ingested batch with that file name, hash, or first digits (at least 6) of
    the hash. Raises UsageError unless exactly one matches, NothingToDo for a retracted one."""
    wanted = batch.lower()
    found = [sha for sha, t in ledger.items() if t["name"] == batch or sha == wanted]
    if not found and len(wanted) >= 6:
        found = [sha for sha in ledger if sha.startswith(wanted)]
    if len(found) != 1:
        count = f"{len(found)} ingested batches" if found else "no ingested batch"
        raise UsageError(
            f"found {count} called {batch!r}, expected one: give the file's name, or the hash that "
            "`bitstorm history` shows"
        )
    if ledger[found[0]].get("retracted"):
        raise NothingToDo(f"{batch} is already retracted: {ledger[found[0]]['retracted']}")
    return found[0]


def months_of(parent: Snapshot, sha256: str) -> set[str]:
    """The months that have rows of the batch."""
    return {
        file.month
        for file in parent.manifest.lineage
        if pq.read_table(
            *parent.paths([file], LINEAGE), columns=["line"], filters=[("batch", "=", sha256)]
        ).num_rows
    }


def other_batches(
    context: Context, ledger: Mapping[str, Mapping[str, Any]], sha256: str
) -> tuple[list[Batch], int]:
    """The other ingested batches in the landing folder, and the number of those no longer there."""
    found = landing.survey(context.workspace.landing, known={}, settle_seconds=0.0, now_ms=now_ms())
    wanted = {sha for sha, t in ledger.items() if sha != sha256 and not t.get("retracted")}
    others = [batch for batch in found.ready if batch.sha256 in wanted]
    return others, len(wanted) - len(others)


def split_by_origin(
    ready: Sequence[Batch], bound: Origin | None, context: Context
) -> tuple[Origin, list[Batch], list[Refused]]:
    """The workspace's origin, the batches of it, and the others, refused.

    An unbound workspace takes the origin of its first batch that states one. A file without a
    sidecar states none and is accepted: its user answers for it.
    """
    stated = [_origin(batch) for batch in ready]
    origin = bound or next((o for o in stated if o is not None), None)
    if origin is None:
        settings = context.settings.source
        origin = Origin("csv", settings.coin, settings.vs_currency)
    accepted: list[Batch] = []
    refused: list[Refused] = []
    for batch, its in zip(ready, stated, strict=True):
        if its in (None, origin):
            accepted.append(batch)
            continue
        reason = (
            f"its sidecar says ({its}), the workspace holds ({origin}); "
            "ingest it into another workspace"
        )
        refused.append(Refused(batch.path, batch.sha256, "origin", reason))
    return origin, accepted, refused


def _origin(batch: Batch) -> Origin | None:
    s = batch.sidecar
    return None if s is None else Origin(s.source, s.coin, s.vs_currency)
