"""`history`, `verify`, `rollback` and `gc`: the published snapshots."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bitstorm.context import Context
from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import NothingToDo, SnapshotDamaged, SnapshotMissing
from bitstorm.core.file_system import Root, files_of
from bitstorm.core.results import Result
from bitstorm.core.workspace import DATA_SETS
from bitstorm.store import maintenance, snapshots
from bitstorm.store.maintenance import Collected, Commit, Verified
from bitstorm.store.manifest import MANIFESTS
from bitstorm.store.publish import republish
from bitstorm.store.snapshots import Trace


@dataclass(frozen=True, repr=False)
class Rolled(Result):
    """The commit that made an older snapshot current again."""

    data_set: str
    snapshot: str
    sequence: int
    rows: int


def history(context: Context) -> list[Commit]:
    """All recorded commits, newest first, damaged manifests included."""
    return [c for name in DATA_SETS for c in maintenance.commits(context.workspace.data_set(name))]


def trace(context: Context, timestamp_ms: int) -> Trace:
    """The batch and the line of a row of `prices`. Raises SnapshotMissing."""
    snapshot = snapshots.required(context.workspace.prices, snapshot=context.snapshot)
    return snapshots.trace(snapshot, timestamp_ms)


def verify(context: Context) -> dict[str, Verified]:
    """Check all hashes of all data sets. Raises SnapshotDamaged with all problems."""
    found = {
        name: maintenance.verify(context.workspace.data_set(name))
        for name in DATA_SETS
        if _exists(context.workspace.data_set(name))
    }
    problems = [f"{name}: {text}" for name, v in found.items() for text in v.problems]
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise SnapshotDamaged("\n  ".join([f"{count} found:", *problems]))
    return found


def rollback(context: Context, identity: str, *, reason: str) -> Rolled:
    """Publish this snapshot again, as a new commit. Raises SnapshotMissing, and NothingToDo where
    it is the current one."""
    for name in DATA_SETS:
        root = context.workspace.data_set(name)
        with _writer_lock(context, root):
            try:
                old = snapshots.required(root, snapshot=identity)
            except SnapshotMissing:
                continue
            snapshots.check_content(old)
            with contextlib.suppress(SnapshotDamaged):
                newest = snapshots.current(root)
                if newest is not None and newest.id == old.id:
                    raise NothingToDo(f"{identity} is the current snapshot of {name} already")
            new = republish(root, old, reason=reason)
            return Rolled(name, new.id, new.manifest.sequence, new.manifest.rows)
    raise SnapshotMissing(
        f"there is no snapshot {identity!r} in {context.workspace.root}: "
        "`bitstorm history` lists them"
    )


def collect_garbage(context: Context, *, keep: int, hours: float) -> dict[str, Collected]:
    """Delete what neither the newest `keep` commits nor the commits of the last `hours` need."""
    found = {}
    for name in DATA_SETS:
        root = context.workspace.data_set(name)
        if not _exists(root):
            continue
        with _writer_lock(context, root):
            found[name] = maintenance.collect_garbage(
                root, keep=keep, younger_than_s=hours * 3600, now_s=time.time()
            )
    return found


def _writer_lock(context: Context, root: Root) -> AbstractContextManager[object]:
    """The data set's lock; waits `ingest.lock_seconds` for it."""
    if not _exists(root):
        return contextlib.nullcontext()
    return writer_lock(files_of(root).folder, wait_seconds=context.settings.ingest.lock_seconds)


def _exists(root: Root) -> bool:
    return root.is_dir() if isinstance(root, Path) else bool(root.names(MANIFESTS))
