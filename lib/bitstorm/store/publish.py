"""The next snapshot of a data set.

A publish fills a new folder, shares the untouched months of its parent, seals it, and commits it
by creating the next manifest: the one moment at which anything changes for a reader.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitstorm import __version__
from bitstorm.core import durable_io
from bitstorm.core.errors import (
    Overtaken,
    SealBroken,
    SnapshotDamaged,
    StoreError,
)
from bitstorm.core.schema import LINEAGE as LINEAGE_TABLE
from bitstorm.core.schema import Table
from bitstorm.store import manifest as manifests
from bitstorm.store import seal
from bitstorm.store.manifest import File, Manifest
from bitstorm.store.seal import Sealed, dataset_digest, require_subset, seal_folder
from bitstorm.store.snapshots import (
    CURRENT,
    LEDGER,
    LINEAGE,
    SNAPSHOTS,
    Snapshot,
    check_content,
    part_files,
    readable_manifest,
)

if TYPE_CHECKING:
    from petastorm.unischema import Unischema


SCHEMA_VERSION = 1


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
                "free some space or repair the disk, and run the command again"
            ) from error
        raise
    _point(root)
    return Snapshot(root, made)


def republish(root: Path, old: Snapshot, *, reason: str) -> Snapshot:
    """Make an older snapshot current again by a new manifest on the same folder."""
    numbers = manifests.sequences(root)
    newest = readable_manifest(root, numbers[-1])
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
    seal.write_metadata(draft.folder, paths, table, schema)
    data = seal_folder(
        draft.folder, table, inherited=shared, unischema=pickle.dumps(schema, protocol=4)
    )
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
    for name in (seal.METADATA, seal.COMMON_METADATA):
        (draft.lineage / name).unlink(missing_ok=True)
    parent = draft.parent
    shared = {} if parent is None else _share(*parent._folders()[1], draft.lineage, change)
    sealed = seal_folder(draft.lineage, LINEAGE_TABLE, inherited=shared, unischema=None)
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
    return {"sha256": durable_io.file_hash(path), "size": path.stat().st_size, "batches": len(rows)}


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


def _may_be_named(root: Path, sequence: int, identity: str) -> bool:
    try:
        return manifests.read(root, sequence).id == identity
    except SnapshotDamaged:
        return os.path.lexists(manifests.path_of(root, sequence))
