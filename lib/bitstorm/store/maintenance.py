"""`history`, `verify` and `gc`: what was committed, whether it is intact, and what may go."""

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
    """What was looked at; `problems` are sentences, empty when all is well."""

    snapshots: int
    files: int
    size: int
    problems: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Collected(Result):
    """What `gc` removed: snapshots by ID, folders and files that no manifest names, bytes freed."""

    snapshots: tuple[str, ...]
    orphans: tuple[str, ...]
    freed: int


def commits(root: Path) -> Iterator[Commit]:
    """Every commit of the data set that is still recorded, newest first; a damaged manifest is
    one with the operation `damaged` and the damage as its reason."""
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
    """Re-hash every file that any manifest names, and every manifest; each shared file once."""
    problems: list[str] = []
    kept: dict[int, Manifest] = {}
    for sequence in manifests.sequences(root):
        try:
            kept[sequence] = manifests.read(root, sequence)
        except SnapshotDamaged as error:
            problems.append(str(error))
    hashes: dict[tuple[int, int], str] = {}
    size = 0
    broken: dict[str, list[str]] = {}
    for sequence, manifest in kept.items():
        before = kept.get(sequence - 1)
        if before is not None and manifest.parent_hash not in (None, before.hash):
            problems.append(
                f"manifest {sequence} names another parent than manifest {sequence - 1}"
            )
        if sum(file.rows for file in manifest.files) != manifest.rows:
            problems.append(f"manifest {sequence} states {manifest.rows} rows, its files do not")
        for path, expected, _ in Snapshot(root, manifest).stated():
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
                what = f"{place.partition('/')[2]} is not what was written (its SHA-256 differs)"
                broken.setdefault(what, []).append(manifest.id)
    for what, identities in broken.items():
        problems.append(f"{what}; it belongs to {', '.join(dict.fromkeys(identities))}")
    return Verified(len(kept), len(hashes), size, tuple(problems))


def collect_garbage(root: Path, *, keep: int, younger_than_s: float, now_s: float) -> Collected:
    """Remove all but the newest `keep` snapshots and those younger than the limit, and orphans.

    A manifest goes before its folders, so no reader meets one without the other. Nothing is
    removed while a manifest cannot be read: it might name anything.
    """
    numbers = manifests.sequences(root)
    every = {number: manifests.read(root, number) for number in numbers}
    kept = {
        number
        for place, number in enumerate(reversed(numbers))
        if place < keep
        or now_s - datetime.fromisoformat(every[number].created_at).timestamp() < younger_than_s
    }
    named = {every[number].id for number in kept}
    gone = []
    for number in numbers:
        if number not in kept:
            manifests.path_of(root, number).unlink()
            gone.append(every[number].id)
    if gone:
        sync_folder(root / manifests.MANIFESTS)
    freed, orphans = 0, []
    for parent in (root / SNAPSHOTS, root / LINEAGE):
        for folder in sorted(parent.iterdir()) if parent.is_dir() else ():
            status = _status(folder)
            if status is None or folder.name in named:
                continue
            young = now_s - status.st_mtime < younger_than_s
            if young and folder.name not in gone:
                continue
            # A file that another snapshot shares frees nothing.
            files = [path.stat() for path in folder.rglob("*") if path.is_file()]
            freed += sum(file.st_size for file in files if file.st_nlink == 1)
            shutil.rmtree(folder)
            if folder.name not in gone:
                orphans.append(f"{parent.name}/{folder.name}")
    for leftover in [
        *root.glob(f"{TEMPORARY}*"),
        *(root / manifests.MANIFESTS).glob(f"{TEMPORARY}*"),
    ]:
        status = _status(leftover)
        if status is not None and now_s - status.st_mtime >= younger_than_s:
            freed += status.st_size
            leftover.unlink(missing_ok=True)
            orphans.append(leftover.relative_to(root).as_posix())
    return Collected(tuple(dict.fromkeys(gone)), tuple(orphans), freed)


def _status(path: Path) -> os.stat_result | None:
    """None where its writer, who is at work beside this, has renamed or removed it meanwhile."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
