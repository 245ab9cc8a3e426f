"""`history`, `verify` and `gc`: lists commits, checks files, and removes old snapshots."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bitstorm.core import durable_io
from bitstorm.core.durable_io import TEMPORARY, sync_folder
from bitstorm.core.errors import SnapshotDamaged
from bitstorm.core.results import Result
from bitstorm.store import manifest as manifests
from bitstorm.store.manifest import Manifest
from bitstorm.store.snapshots import LINEAGE, SNAPSHOTS, Snapshot


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
class Verified(Result):
    """The number of snapshots and files that were checked, and their bytes; `problems` are
    sentences."""

    snapshots: int
    files: int
    size: int
    problems: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Collected(Result):
    """Removed snapshots by ID, removed folders and files without a manifest, and freed bytes."""

    snapshots: tuple[str, ...]
    orphans: tuple[str, ...]
    freed: int


def commits(root: Path) -> Iterator[Commit]:
    """Every commit of the data set with a manifest, newest first. A damaged manifest gives a commit
    with the operation `damaged` and the damage as its reason."""
    name = root.name
    for sequence in reversed(manifests.sequences(root)):
        try:
            m = manifests.read(root, sequence)
        except SnapshotDamaged as error:
            yield Commit(name, sequence, "?", None, "damaged", str(error), "?", 0, (), "?")
            continue
        batches = tuple(f"{tally['name']} {sha[:12]}" for sha, tally in m.batches.items())
        stated = (m.operation, m.reason, m.created_at, m.rows, batches, m.digest)
        yield Commit(name, sequence, m.id, m.parent, *stated)


def verify(root: Path) -> Verified:
    """Hash every manifest and every file that one names again; each shared file once."""
    problems: list[str] = []
    readable: dict[int, Manifest] = {}
    for sequence in manifests.sequences(root):
        try:
            readable[sequence] = manifests.read(root, sequence)
        except SnapshotDamaged as error:
            problems.append(str(error))
    hashes: dict[tuple[int, int], str] = {}
    size = 0
    broken: dict[str, list[str]] = {}
    for sequence, manifest in readable.items():
        before = readable.get(sequence - 1)
        if before is not None and manifest.parent_hash not in (None, before.hash):
            problems.append(
                f"manifest {sequence} names another parent than manifest {sequence - 1}"
            )
        if sum(file.rows for file in manifest.files) != manifest.rows:
            problems.append(f"manifest {sequence} states {manifest.rows} rows, its files do not")
        for path, expected, _ in Snapshot(root, manifest).hashed_files():
            try:
                status = path.stat()
            except FileNotFoundError:
                broken.setdefault(f"{path.name} is gone", []).append(manifest.id)
                continue
            inode = (status.st_dev, status.st_ino)
            if inode not in hashes:
                hashes[inode] = durable_io.file_hash(path)
                size += status.st_size
            if hashes[inode] != expected:
                place = path.relative_to(path.parents[2]).as_posix()
                what = f"{place.partition('/')[2]} has changed (its SHA-256 differs)"
                broken.setdefault(what, []).append(manifest.id)
    for what, ids in broken.items():
        problems.append(f"{what}; it belongs to {', '.join(dict.fromkeys(ids))}")
    return Verified(len(readable), len(hashes), size, tuple(problems))


def collect_garbage(root: Path, *, keep: int, younger_than_s: float, now_s: float) -> Collected:
    """Remove orphans and all snapshots except the newest `keep` and those younger than the limit.

    A manifest is removed before its folders, so that no reader finds one without the other.
    Nothing is removed while a manifest cannot be read: it might name any folder.
    """
    every = [manifests.read(root, number) for number in manifests.sequences(root)]
    kept = [
        manifest
        for place, manifest in enumerate(reversed(every))
        if place < keep
        or now_s - datetime.fromisoformat(manifest.created_at).timestamp() < younger_than_s
    ]
    named = {manifest.id for manifest in kept}
    removed = []
    for manifest in every:
        if manifest not in kept:
            manifests.path_of(root, manifest.sequence).unlink()
            removed.append(manifest.id)
    if removed:
        sync_folder(root / manifests.MANIFESTS)
    freed, orphans = 0, []
    for parent in (root / SNAPSHOTS, root / LINEAGE):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            status = _stat(folder)
            if status is None or folder.name in named:
                continue
            young = now_s - status.st_mtime < younger_than_s
            if young and folder.name not in removed:
                continue
            # A file that another snapshot shares frees no space.
            files = [path.stat() for path in folder.rglob("*") if path.is_file()]
            freed += sum(file.st_size for file in files if file.st_nlink == 1)
            shutil.rmtree(folder)
            if folder.name not in removed:
                orphans.append(f"{parent.name}/{folder.name}")
    folders = (root, root / manifests.MANIFESTS)
    for leftover in (path for folder in folders for path in folder.glob(f"{TEMPORARY}*")):
        status = _stat(leftover)
        if status is not None and now_s - status.st_mtime >= younger_than_s:
            freed += status.st_size
            leftover.unlink(missing_ok=True)
            orphans.append(leftover.relative_to(root).as_posix())
    return Collected(tuple(dict.fromkeys(removed)), tuple(orphans), freed)


def _stat(path: Path) -> os.stat_result | None:
    """None where a running writer has renamed or removed the file in the meantime."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
