"""`history`, `verify`, `rollback` and `gc`: what was published, whether it still is what it was."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from bitstorm.context import Context
from bitstorm.core.errors import NothingToDo, SnapshotDamaged, SnapshotMissing
from bitstorm.core.results import Result
from bitstorm.core.time import iso
from bitstorm.store import maintenance, snapshots
from bitstorm.store import manifest as manifests
from bitstorm.store.lock import writer_lock
from bitstorm.store.maintenance import Collected, Verified
from bitstorm.store.publish import republish

DATA_SETS = ("prices", "indicators")


@dataclass(frozen=True, repr=False)
class Commit(Result):
    """One commit of a data set, newest first in a history."""

    data_set: str
    sequence: int
    snapshot: str
    parent: str | None
    operation: str
    reason: str
    created_at: str
    rows: int
    batches: tuple[str, ...]
    digest: str


@dataclass(frozen=True, repr=False)
class Trace(Result):
    """Where one row of `prices` came from."""

    timestamp: int
    snapshot: str
    batch: str
    name: str | None
    line: int


@dataclass(frozen=True, repr=False)
class Rolled(Result):
    """The commit that made an older snapshot current again."""

    data_set: str
    snapshot: str
    sequence: int
    rows: int


def history(context: Context) -> list[Commit]:
    """Every commit that is still recorded, newest first; a damaged manifest is named as such."""
    commits = []
    for name in DATA_SETS:
        root = context.workspace.root / name
        for sequence in reversed(manifests.sequences(root)):
            try:
                m = manifests.read(root, sequence)
            except SnapshotDamaged as error:
                commits.append(
                    Commit(name, sequence, "?", None, "damaged", str(error), "?", 0, (), "?")
                )
                continue
            batches = tuple(f"{t['name']} {sha[:12]}" for sha, t in m.batches.items())
            commits.append(
                Commit(
                    name,
                    sequence,
                    m.id,
                    m.parent,
                    m.operation,
                    m.reason,
                    m.created_at,
                    m.rows,
                    batches,
                    m.digest,
                )
            )
    return commits


def trace(context: Context, timestamp_ms: int) -> Trace:
    """The batch and line that a row of `prices` was read from. Raises SnapshotMissing."""
    import pyarrow.parquet as pq

    root = context.workspace.prices
    found = snapshots.required(root, snapshot=context.snapshot)
    ledger = snapshots.read_ledger(found)
    for file in found.manifest.lineage:
        if not file.first_ms <= timestamp_ms <= file.last_ms:
            continue
        rows = pq.read_table(
            found.lineage / file.path,
            columns=["batch", "line"],
            filters=[("timestamp", "=", timestamp_ms)],
        ).to_pylist()
        for row in rows:
            name = ledger.get(row["batch"], {}).get("name")
            return Trace(timestamp_ms, found.id, row["batch"], name, row["line"])
    raise SnapshotMissing(
        f"snapshot {found.id} has no row at {iso(timestamp_ms)} ({timestamp_ms}); "
        "a row's own time is meant, to the millisecond"
    )


def verify(context: Context) -> dict[str, Verified]:
    """Re-hash both data sets. Raises SnapshotDamaged with every problem found."""
    found = {
        name: maintenance.verify(context.workspace.root / name)
        for name in DATA_SETS
        if (context.workspace.root / name).is_dir()
    }
    problems = [f"{name}: {text}" for name, v in found.items() for text in v.problems]
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise SnapshotDamaged("\n  ".join([f"{count} found:", *problems]))
    return found


def rollback(context: Context, identity: str, *, reason: str) -> Rolled:
    """Make the named snapshot current again, as a new commit. Raises SnapshotMissing."""
    for name in DATA_SETS:
        root = context.workspace.root / name
        with writer_lock_of(context, root):
            try:
                old = snapshots.current(root, snapshot=identity)
            except SnapshotMissing:
                continue
            if old is None:
                continue
            snapshots.check_content(old)
            with contextlib.suppress(SnapshotDamaged):
                newest = snapshots.current(root)
                if newest is not None and newest.id == old.id:
                    raise NothingToDo(f"{identity} is the current snapshot of {name} already")
            made = republish(root, old, reason=reason)
            return Rolled(name, made.id, made.manifest.sequence, made.manifest.rows)
    raise SnapshotMissing(
        f"there is no snapshot {identity!r} in {context.workspace.root}: "
        "`bitstorm history` lists them"
    )


def collect_garbage(context: Context, *, keep: int, hours: float) -> dict[str, Collected]:
    """Remove what neither the newest `keep` commits nor the last `hours` need."""
    found = {}
    for name in DATA_SETS:
        root = context.workspace.root / name
        if not root.is_dir():
            continue
        with writer_lock_of(context, root):
            found[name] = maintenance.collect_garbage(
                root, keep=keep, younger_than_s=hours * 3600, now_s=time.time()
            )
    return found


def writer_lock_of(context: Context, root: Any) -> Any:
    """The data set's lock, waited for as the settings say."""
    if not root.is_dir():
        return contextlib.nullcontext()
    return writer_lock(root, wait_seconds=context.settings.ingest.lock_seconds)
