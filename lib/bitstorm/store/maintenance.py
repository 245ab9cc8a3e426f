"""`history`, `verify` and `gc`: lists commits, checks files, and removes old snapshots."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from bitstorm.core.durable_io import TEMPORARY
from bitstorm.core.errors import SealBroken, SnapshotDamaged
from bitstorm.core.file_system import FileSystem, Root, files_of
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


def commits(root: Root) -> Iterator[Commit]:
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


def verify(root: Root) -> Verified:
    """Hash every manifest and every file that one names again, each shared file once; and look
    whether petastorm's summaries list these files."""
    place = files_of(root)
    problems: list[str] = []
    readable: dict[int, Manifest] = {}
    for sequence in manifests.sequences(root):
        try:
            readable[sequence] = manifests.read(root, sequence)
        except SnapshotDamaged as error:
            problems.append(str(error))
    hashes: dict[object, str] = {}
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
        snapshot = Snapshot(root, manifest)
        try:
            snapshot.check_summaries()
        except (SealBroken, SnapshotDamaged) as error:
            # A rollback has the same folder.
            broken.setdefault(str(error), []).append(manifest.id)
        expected = {name: sha256 for name, _, sha256, _ in snapshot.hashed_files()}
        found = place.find(expected)
        for name, sha256 in expected.items():
            entry = found.get(name)
            if entry is None:
                broken.setdefault(f"{name.rpartition('/')[2]} is gone", []).append(manifest.id)
                continue
            if entry.file not in hashes:
                hashes[entry.file] = place.hash(name)
                size += entry.size
            if hashes[entry.file] != sha256:
                what = f"{name.split('/', 2)[2]} has changed (its SHA-256 differs)"
                broken.setdefault(what, []).append(manifest.id)
    for what, ids in broken.items():
        problems.append(f"{what}; it belongs to {', '.join(dict.fromkeys(ids))}")
    return Verified(len(readable), len(hashes), size, tuple(problems))


def collect_garbage(root: Root, *, keep: int, younger_than_s: float, now_s: float) -> Collected:
    """Remove orphans and all snapshots except the newest `keep` and those younger than the limit.

    A manifest is removed before its folders, so that no reader finds one without the other.
    Nothing is removed while a manifest cannot be read: it might name any folder.
    """
    place = files_of(root)
    every = [manifests.read(root, number) for number in manifests.sequences(root)]
    kept = [
        manifest
        for place, manifest in enumerate(reversed(every))
        if place < keep
        or now_s - datetime.fromisoformat(manifest.created_at).timestamp() < younger_than_s
    ]
    named = {manifest.id for manifest in kept}
    gone = [manifest for manifest in every if manifest not in kept]
    removed = [manifest.id for manifest in gone]
    if gone:
        place.delete([manifests.name_of(manifest.sequence) for manifest in gone])
    freed, orphans = 0, []
    for name in _unnamed(place):
        identity = name.rpartition("/")[2]
        # None where a running writer has renamed or removed it in the meantime.
        changed_s = place.changed_s(name)
        if changed_s is None or identity in named:
            continue
        if now_s - changed_s < younger_than_s and identity not in removed:
            continue
        # A file that another snapshot shares frees no space.
        freed += sum(entry.size for entry in place.list(name) if entry.links == 1)
        place.clear(name)
        if identity not in removed:
            orphans.append(name)
    return Collected(tuple(dict.fromkeys(removed)), tuple(orphans), freed)


def _unnamed(place: FileSystem) -> Iterator[str]:
    """The folders of all snapshots, and the temporary files that killed runs have left."""
    for kind in (SNAPSHOTS, LINEAGE):
        yield from (f"{kind}/{name}" for name in sorted(place.names(kind)))
    for prefix in ("", f"{manifests.MANIFESTS}/"):
        names = place.names(prefix.rstrip("/"))
        yield from (prefix + name for name in names if name.startswith(TEMPORARY))
