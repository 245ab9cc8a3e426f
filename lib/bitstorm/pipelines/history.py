"""`history`, `verify`, `rollback` and `gc`: what was published, whether it still is what it was."""

from __future__ import annotations

import contextlib
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bitstorm.context import Context
from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import NothingToDo, SnapshotDamaged, SnapshotMissing
from bitstorm.core.results import Result
from bitstorm.store import maintenance, snapshots
from bitstorm.store.maintenance import Collected, Commit, Verified
from bitstorm.store.publish import republish
from bitstorm.store.snapshots import Trace

DATA_SETS = ("prices", "indicators")


@dataclass(frozen=True, repr=False)
class Rolled(Result):
    """The commit that made an older snapshot current again."""

    data_set: str
    snapshot: str
    sequence: int
    rows: int


def history(context: Context) -> list[Commit]:
    """Every commit that is still recorded, newest first; a damaged manifest is named as such."""
    return [c for name in DATA_SETS for c in maintenance.commits(context.workspace.root / name)]


def trace(context: Context, timestamp_ms: int) -> Trace:
    """The batch and line that a row of `prices` was read from. Raises SnapshotMissing."""
    snapshot = snapshots.required(context.workspace.prices, snapshot=context.snapshot)
    return snapshots.trace(snapshot, timestamp_ms)


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
                old = snapshots.required(root, snapshot=identity)
            except SnapshotMissing:
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


def writer_lock_of(context: Context, root: Path) -> AbstractContextManager[object]:
    """The data set's lock, waited for as the settings say."""
    if not root.is_dir():
        return contextlib.nullcontext()
    return writer_lock(root, wait_seconds=context.settings.ingest.lock_seconds)
