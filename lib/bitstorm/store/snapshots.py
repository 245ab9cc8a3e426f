"""Snapshots of a data set: `snapshots/ID/`, `lineage/ID/`, and the manifests that name them.

A publish fills a new folder, shares the untouched months of its parent, seals it, and commits it
by creating the next manifest: the one moment at which anything changes for a reader. The newest
manifest is the current snapshot; `CURRENT` repeats its ID for other programs and can be rebuilt.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitstorm import __version__
from bitstorm.core import durable_io, hashing
from bitstorm.core.errors import (
    Overtaken,
    SealBroken,
    SnapshotDamaged,
    SnapshotMissing,
    StoreError,
    first_line,
)
from bitstorm.core.schema import LINEAGE as LINEAGE_TABLE
from bitstorm.core.schema import Table
from bitstorm.store import manifest as manifests
from bitstorm.store import parquet_metadata
from bitstorm.store.content_hash import dataset_digest
from bitstorm.store.manifest import File, Manifest
from bitstorm.store.seal import Sealed, require_subset, seal

if TYPE_CHECKING:
    from petastorm.unischema import Unischema

CURRENT = "CURRENT"
SNAPSHOTS = "snapshots"
LINEAGE = "lineage"
LEDGER = "ledger.parquet"
SCHEMA_VERSION = 1
# The command that makes a data set.
_MADE_BY = {"prices": "ingest", "indicators": "indicators"}
_ID = re.compile(r"(\d{8})-[0-9a-f]{12}")


@dataclass(frozen=True)
class Snapshot:
    """One pinned snapshot: its data set's root and its manifest."""

    root: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def folder(self) -> Path:
        return self.root / SNAPSHOTS / self.id

    @property
    def lineage(self) -> Path:
        """Where each row came from; beside the folder, so that the folder is a data set alone."""
        return self.root / LINEAGE / self.id

    @property
    def files(self) -> list[Path]:
        return [self.folder / file.path for file in self.manifest.files]

    @property
    def lineage_files(self) -> list[Path]:
        return [self.lineage / file.path for file in self.manifest.lineage]

    def stated(self) -> Iterator[tuple[Path, str, str | None]]:
        """Path, SHA-256 and month of every file, the ledger included, which is of no month."""
        for folder, files in self._folders():
            for file in files:
                yield folder / file.path, file.sha256, file.month
        if self.manifest.ledger is not None:
            yield self.lineage / LEDGER, self.manifest.ledger["sha256"], None

    def _folders(self) -> tuple[tuple[Path, tuple[File, ...]], ...]:
        return (self.folder, self.manifest.files), (self.lineage, self.manifest.lineage)

    def of_months(self, months: set[str]) -> list[Path]:
        """The part files of these months."""
        return [self.folder / f.path for f in self.manifest.files if f.month in months]

    def lineage_of_months(self, months: set[str]) -> list[Path]:
        return [self.lineage / f.path for f in self.manifest.lineage if f.month in months]


@dataclass(frozen=True)
class Draft:
    """Where a publish writes: `folder` and `lineage` are new and empty, under `parent`."""

    folder: Path
    lineage: Path
    parent: Snapshot | None


@dataclass(frozen=True)
class Change:
    """What a write did. `months` are those that it wrote anew or emptied: all others are shared
    with the parent. `ledger` holds the tallies of all batches so far, `batches` the new ones."""

    months: frozenset[str]
    with_lineage: bool = False
    may_lose_keys: bool = False
    batches: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    ledger: Mapping[str, dict[str, Any]] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def current(root: Path, *, snapshot: str | None = None) -> Snapshot | None:
    """The newest snapshot, or the one of that ID; None when there is none at all.

    Raises SnapshotMissing for an unknown ID, SnapshotDamaged where the manifest is not what was
    written or a file is missing or of another size.
    """
    numbers = manifests.sequences(root)
    if snapshot is not None:
        found = _named(root, snapshot, numbers)
    elif numbers:
        found = Snapshot(root, manifests.read(root, numbers[-1]))
    else:
        return None
    _check_sizes(found)
    return found


def required(root: Path, *, snapshot: str | None = None, hint: str | None = None) -> Snapshot:
    """As `current`, but raises SnapshotMissing with what to do where there is none."""
    found = current(root, snapshot=snapshot)
    if found is None:
        command = _MADE_BY.get(root.name)
        hint = hint or (f"run `bitstorm {command}` first" if command else "publish one first")
        raise SnapshotMissing(f"there is no {root.name} data set yet in {root.parent}: {hint}")
    return found


def known(root: Path, snapshot: str) -> Snapshot | None:
    """The snapshot of that ID, whatever has become of its files; None without its manifest."""
    with contextlib.suppress(SnapshotMissing, SnapshotDamaged):
        return _named(root, snapshot, manifests.sequences(root))
    return None


def resolve(root: Path) -> Path:
    """The folder of the newest snapshot of a data set. Raises SnapshotMissing."""
    return required(root).folder


def check_content(snapshot: Snapshot, *, months: Collection[str] | None = None) -> None:
    """Re-hash the snapshot's files, or those of some months. Raises SnapshotDamaged, which names
    each wrong one."""
    wrong = damaged_files(snapshot, months=months)
    if wrong:
        raise SnapshotDamaged(
            f"{', '.join(wrong)} of snapshot {snapshot.id} is not what was written (its SHA-256 "
            "differs): restore it from a copy, or `bitstorm rollback` to a snapshot without it"
        )


def damaged_files(snapshot: Snapshot, *, months: Collection[str] | None = None) -> list[str]:
    """Paths from the data set's root of the files, of these months, whose bytes have changed."""
    return [
        path.relative_to(snapshot.root).as_posix()
        for path, sha256, month in snapshot.stated()
        if (months is None or month is None or month in months)
        and (not path.exists() or hashing.of_file(path) != sha256)
    ]


def publish(
    root: Path,
    *,
    table: Table,
    schema: Unischema,
    parent: Snapshot | None,
    operation: str,
    write: Callable[[Draft], Change],
    reason: str = "",
) -> Snapshot:
    """Fill, share, seal and commit a new snapshot on top of `parent`.

    Raises SealBroken when what was written may not be seen, Overtaken when another run has
    published on the same parent: redo the change on the new one, StoreError when the disk is full
    or fails. A failed publish leaves nothing that a reader could meet.
    """
    sequence = 1 if parent is None else parent.manifest.sequence + 1
    identity = f"{sequence:08d}-{secrets.token_hex(6)}"
    draft = Draft(root / SNAPSHOTS / identity, root / LINEAGE / identity, parent)
    for folder in (draft.folder.parent, draft.lineage.parent, root / manifests.MANIFESTS):
        folder.mkdir(parents=True, exist_ok=True)
    if parent is None:
        durable_io.sync_folder(root)
        durable_io.sync_folder(root.parent)
    try:
        change = write(draft)
        made = _completed(draft, change, table, schema, sequence, identity, operation, reason)
        _commit(root, made)
    except BaseException as error:
        # A commit may fail after its manifest is there (the last sync, an interrupt).
        named = _may_be_named(root, sequence, identity)
        if not named:
            for folder in (draft.folder, draft.lineage):
                shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(
                f"{root.name} cannot be written ({error.strerror or error}): "
                f"{'it may be published all the same' if named else 'nothing was published'}; "
                "make room or mend the disk, and run the command again"
            ) from error
        raise
    _point(root)
    return Snapshot(root, made)


def republish(root: Path, old: Snapshot, *, reason: str) -> Snapshot:
    """Make an older snapshot current again by a new manifest on the same folder."""
    numbers = manifests.sequences(root)
    newest = _readable(root, numbers[-1])
    made = replace(
        old.manifest,
        sequence=numbers[-1] + 1,
        parent=None if newest is None else newest.id,
        parent_hash=None if newest is None else newest.hash,
        operation="rollback",
        reason=reason,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        batches={},
        versions=_versions(),
    ).sealed()
    _commit(root, made)
    _point(root)
    return Snapshot(root, made)


def read_ledger(snapshot: Snapshot | None) -> dict[str, dict[str, Any]]:
    """The tallies of every batch that was consumed, by the hash of its content."""
    if snapshot is None or snapshot.manifest.ledger is None:
        return {}
    import pyarrow.parquet as pq

    path = snapshot.lineage / LEDGER
    try:
        if hashing.of_file(path) != snapshot.manifest.ledger["sha256"]:
            raise OSError("its SHA-256 is not what was written")
        rows = pq.read_table(path).to_pylist()
    except OSError as error:
        raise SnapshotDamaged(
            f"the ledger {path} cannot be read ({first_line(error)}): "
            "`bitstorm rollback` to an older snapshot"
        ) from None
    return {row.pop("batch"): row for row in rows}


def lineage_values(
    snapshot: Snapshot, months: set[str], columns: Sequence[str]
) -> set[tuple[Any, ...]]:
    """The distinct values that these columns of the lineage have together in these months."""
    import pyarrow.parquet as pq

    found: set[tuple[Any, ...]] = set()
    for path in snapshot.lineage_of_months(months):
        rows = pq.ParquetFile(path, read_dictionary=["batch"]).read(columns=list(columns))
        distinct = rows.group_by(list(columns)).aggregate([]).select(list(columns))
        found.update(zip(*(column.to_pylist() for column in distinct.columns), strict=True))
    return found


def part_files(folder: Path) -> list[Path]:
    """The Parquet files of any folder, sorted; `_metadata` and hidden ones not."""
    return sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)
    )


def _named(root: Path, name: str, numbers: list[int]) -> Snapshot:
    if match := _ID.fullmatch(name):
        # After a rollback a later manifest names it as well, and `gc` may have taken its own.
        for number in (n for n in numbers if n >= int(match[1])):
            manifest = manifests.read(root, number)
            if manifest.id == name:
                return Snapshot(root, manifest)
    known = []
    for number in numbers[-3:]:
        with contextlib.suppress(SnapshotDamaged):
            known.append(manifests.read(root, number).id)
    raise SnapshotMissing(
        f"there is no snapshot {name!r} of {root.name}; "
        + (f"the newest are {', '.join(known)}" if known else "there is none at all")
    )


def _check_sizes(snapshot: Snapshot) -> None:
    for folder, files in snapshot._folders():
        for file in files:
            path = folder / file.path
            size = path.stat().st_size if path.exists() else None
            if size != file.size:
                raise SnapshotDamaged(
                    f"{folder.parent.name}/{snapshot.id}/{file.path} "
                    f"{'is gone' if size is None else f'has {size} bytes'}, expected {file.size} "
                    "bytes: restore the file, or `bitstorm rollback` to a snapshot without it"
                )


def _readable(root: Path, number: int) -> Manifest | None:
    """The newest manifest, None when it is the damaged one that a rollback is to get away from.
    A fault of the disk that passes must not break the chain, so it is read again."""
    for _ in range(2):
        with contextlib.suppress(SnapshotDamaged):
            return manifests.read(root, number)
    return None


def _may_be_named(root: Path, sequence: int, identity: str) -> bool:
    try:
        return manifests.read(root, sequence).id == identity
    except SnapshotDamaged:
        return os.path.lexists(manifests.path_of(root, sequence))


def _completed(
    draft: Draft,
    change: Change,
    table: Table,
    schema: Unischema,
    sequence: int,
    identity: str,
    operation: str,
    reason: str,
) -> Manifest:
    """Share what is untouched, rebuild the summaries, seal and sync; then state it all."""
    parent = None if draft.parent is None else draft.parent.manifest
    draft.folder.mkdir(exist_ok=True)
    _drop_checksums(draft.folder)
    shared = (
        {} if draft.parent is None else _share(*draft.parent._folders()[0], draft.folder, change)
    )
    paths = [path.relative_to(draft.folder).as_posix() for path in part_files(draft.folder)]
    parquet_metadata.write(draft.folder, paths, table, schema)
    data = seal(draft.folder, table, inherited=shared, unischema=pickle.dumps(schema, protocol=4))
    where = f"{operation} {identity}"
    if parent is not None and draft.parent is not None and not change.may_lose_keys:
        # What was merged came from these: damage must not be sealed anew.
        check_content(draft.parent, months=change.months)
        before: dict[str, list[Path]] = {}
        for file in parent.files:
            if file.month in change.months:
                before.setdefault(file.month, []).append(draft.parent.folder / file.path)
        require_subset(before, data.keys, where=where)
    lineage, ledger = _lineage(draft, change, data, where)
    months = {
        month: digest
        for month, digest in (parent.months if parent is not None else {}).items()
        if month not in change.months
    }
    months.update(data.digests)
    for folder, files in ((draft.folder, data.files), (draft.lineage, lineage)):
        if folder.exists():
            new = [folder / file.path for file in files if file.month in change.months]
            durable_io.sync_tree(folder, new)
    return Manifest(
        sequence=sequence,
        id=identity,
        parent=None if parent is None else parent.id,
        parent_hash=None if parent is None else parent.hash,
        operation=operation,
        reason=reason,
        created_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        table=table.name,
        schema_version=SCHEMA_VERSION,
        schema=manifests.schema_record(table),
        schema_hash=manifests.schema_hash(table),
        rows=sum(file.rows for file in data.files),
        first_ms=min((file.first_ms for file in data.files), default=None),
        last_ms=max((file.last_ms for file in data.files), default=None),
        files=data.files,
        lineage=lineage,
        ledger=ledger,
        months=months,
        digest=dataset_digest(months),
        batches=dict(change.batches),
        versions=_versions(),
        details=dict(change.details),
    ).sealed()


def _lineage(
    draft: Draft, change: Change, data: Sealed, where: str
) -> tuple[tuple[File, ...], dict[str, Any] | None]:
    """Share, seal and record the lineage; each rewritten month has the keys of its data."""
    if not change.with_lineage:
        return (), None
    draft.lineage.mkdir(exist_ok=True)
    _drop_checksums(draft.lineage)
    # petastorm leaves Spark writing them after a write that failed in the same session.
    for name in (parquet_metadata.METADATA, parquet_metadata.COMMON_METADATA):
        (draft.lineage / name).unlink(missing_ok=True)
    parent = draft.parent
    shared = {} if parent is None else _share(*parent._folders()[1], draft.lineage, change)
    sealed = seal(draft.lineage, LINEAGE_TABLE, inherited=shared, unischema=None)
    for month in data.keys.keys() | sealed.keys.keys():
        ours, theirs = data.keys.get(month), sealed.keys.get(month)
        if ours is None or theirs is None or not np.array_equal(ours, theirs):
            raise SealBroken(f"the lineage of month {month} in {where} is not that of its rows")
    for sha256, tally in change.batches.items():
        if tally["read"] != tally["accepted"] + tally["duplicate"] + tally["refused"]:
            raise SealBroken(
                f"batch {tally.get('name', sha256)} does not add up: {tally['read']} rows read, "
                f"but {tally['accepted']} accepted + {tally['duplicate']} duplicate + "
                f"{tally['refused']} refused; nothing was published"
            )
    return sealed.files, _write_ledger(draft.lineage, change.ledger or {})


def _write_ledger(lineage: Path, ledger: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("batch", pa.string()),
            ("name", pa.string()),
            ("read", pa.int64()),
            ("accepted", pa.int64()),
            ("duplicate", pa.int64()),
            ("refused", pa.int64()),
            ("retracted", pa.string()),
        ]
    )
    rows = [{"retracted": None, **tally, "batch": batch} for batch, tally in sorted(ledger.items())]
    path = lineage / LEDGER
    lineage.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    durable_io.sync_file(path)
    return {"sha256": hashing.of_file(path), "size": path.stat().st_size, "batches": len(rows)}


def _share(source: Path, files: tuple[File, ...], folder: Path, change: Change) -> dict[str, File]:
    """The parent's files of untouched months, linked into the folder; their records by path."""
    shared = {file.path: file for file in files if file.month not in change.months}
    for path in shared:
        durable_io.share(source / path, folder / path)
    return shared


def _drop_checksums(folder: Path) -> None:
    """Hadoop's `.crc` files and `_SUCCESS`: a link would come without, a manifest has SHA-256."""
    if folder.exists():
        for path in [*folder.rglob(".*.crc"), folder / "_SUCCESS"]:
            path.unlink(missing_ok=True)


def _commit(root: Path, made: Manifest) -> None:
    try:
        if manifests.sequences(root)[-1:] > [made.sequence]:
            # Its number may be free again: `gc` took what others have published meanwhile.
            raise FileExistsError
        durable_io.create(manifests.path_of(root, made.sequence), made.to_bytes())
    except FileExistsError:
        raise Overtaken(
            f"another run has published snapshot {made.sequence} of {root.name} first: "
            "run the command again"
        ) from None


def _point(root: Path) -> None:
    """Rebuild CURRENT from the newest manifest; a hint, so a failure to write it is no failure."""
    with contextlib.suppress(OSError, StoreError):
        newest = manifests.read(root, manifests.sequences(root)[-1])
        durable_io.replace(root / CURRENT, f"{newest.id}\n".encode())


def _versions() -> dict[str, str]:
    found = {"bitstorm": __version__}
    for name in ("petastorm", "pyarrow", "pyspark"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
