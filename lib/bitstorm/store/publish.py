"""Publishes the next snapshot of a data set.

A publish fills a new folder, links the unchanged months of its parent, seals it, and commits it by
creating the next manifest. Readers see the change at that moment, not before.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bitstorm import __version__
from bitstorm.core import durable_io
from bitstorm.core.errors import Overtaken, SealBroken, SnapshotDamaged, StoreError
from bitstorm.core.file_system import FileSystem, Root, files_of
from bitstorm.core.schema import Table
from bitstorm.store import manifest as manifests
from bitstorm.store import seal, snapshots
from bitstorm.store.digest import dataset_digest
from bitstorm.store.manifest import File, Manifest
from bitstorm.store.snapshots import LINEAGE, SNAPSHOTS, Snapshot

if TYPE_CHECKING:
    from petastorm.unischema import Unischema

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Draft:
    """The new, empty folders that a publish fills, and the parent snapshot."""

    folder: Path
    lineage: Path
    parent: Snapshot | None


@dataclass(frozen=True)
class Change:
    """The result of a write. `months` are those that it wrote or emptied; all others are linked
    from the parent. `ledger` has the tallies of all batches so far, `batches` the new ones.
    `each_month` calls the seal's check of each of them."""

    months: frozenset[str]
    with_lineage: bool = False
    may_lose_keys: bool = False
    batches: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    ledger: Mapping[str, dict[str, Any]] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    each_month: seal.EachMonth = seal.in_threads


def publish(
    root: Root,
    *,
    table: Table,
    schema: Unischema,
    parent: Snapshot | None,
    operation: str,
    write: Callable[[Draft], Change],
    reason: str = "",
) -> Snapshot:
    """Fill, link, seal and commit a new snapshot on top of `parent`.

    Raises SealBroken where the written files break a rule, Overtaken where another run has
    published on the same parent (repeat the change on its snapshot), StoreError where the disk is
    full or fails. A failed publish leaves nothing that a reader could find.
    """
    place = files_of(root)
    sequence = 1 if parent is None else parent.manifest.sequence + 1
    identity = f"{sequence:08d}-{secrets.token_hex(6)}"
    local = place.folder
    draft = Draft(local / SNAPSHOTS / identity, local / LINEAGE / identity, parent)
    for folder in (draft.folder.parent, draft.lineage.parent, local / manifests.MANIFESTS):
        folder.mkdir(parents=True, exist_ok=True)
    if parent is None:
        durable_io.sync_folder(local)
        durable_io.sync_folder(local.parent)
    try:
        change = write(draft)
        made = _finish_draft(draft, change, table, schema, sequence, identity, operation, reason)
        _keep_draft(place, made, change, parent)
        _commit(place, made)
    except BaseException as error:
        # A commit can fail after it has created the manifest (the last sync, an interrupt).
        committed = _may_be_committed(place, sequence, identity)
        if not committed:
            for folder in (draft.folder, draft.lineage):
                shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise StoreError(
                f"{root.name} cannot be written ({error.strerror or error}): "
                f"{'the snapshot may be published' if committed else 'nothing was published'}; "
                "free some space or repair the disk, and run the command again"
            ) from error
        raise
    _write_current(place)
    return Snapshot(root, made)


def republish(root: Root, old: Snapshot, *, reason: str) -> Snapshot:
    """Make an older snapshot current again: commit a new manifest for the same folder."""
    numbers = manifests.sequences(root)
    newest = snapshots.readable_manifest(root, numbers[-1])
    made = replace(
        old.manifest,
        sequence=numbers[-1] + 1,
        parent=None if newest is None else newest.id,
        parent_hash=None if newest is None else newest.hash,
        operation="rollback",
        reason=reason,
        created_at=_now(),
        batches={},
        versions=_versions(),
    ).with_hash()
    _commit(files_of(root), made)
    _write_current(files_of(root))
    return Snapshot(root, made)


def _finish_draft(
    draft: Draft,
    change: Change,
    table: Table,
    schema: Unischema,
    sequence: int,
    identity: str,
    operation: str,
    reason: str,
) -> Manifest:
    """Link unchanged files, rebuild the summaries and seal; return the manifest."""
    parent = None if draft.parent is None else draft.parent.manifest
    shared = _link_unchanged(draft, change, lineage=False)
    paths = snapshots.part_files(draft.folder)
    relative = [path.relative_to(draft.folder).as_posix() for path in paths]
    seal.write_metadata(draft.folder, relative, table, schema)
    before: dict[str, list[Path]] = {}
    if draft.parent is not None and not change.may_lose_keys:
        # The new rows include these files' rows: a seal must not cover their damage.
        snapshots.check_content(draft.parent, months=change.months)
        before = {m: f for m in change.months if (f := draft.parent.of_months({m}))}
    data = seal.seal_folder(
        draft.folder,
        table,
        inherited=shared,
        lineage=_linked_lineage(draft, change),
        before=before,
        where=f"{operation} {identity}",
        each_month=change.each_month,
    )
    ledger = _finish_ledger(draft, change)
    old = {} if parent is None else parent.months
    months = {m: digest for m, digest in old.items() if m not in change.months} | dict(data.digests)
    return Manifest(
        sequence=sequence,
        id=identity,
        parent=None if parent is None else parent.id,
        parent_hash=None if parent is None else parent.hash,
        operation=operation,
        reason=reason,
        created_at=_now(),
        table=table.name,
        schema_version=SCHEMA_VERSION,
        schema=manifests.schema_record(table),
        schema_hash=manifests.schema_hash(table),
        rows=sum(file.rows for file in data.files),
        first_ms=min((file.first_ms for file in data.files), default=None),
        last_ms=max((file.last_ms for file in data.files), default=None),
        files=data.files,
        lineage=data.lineage,
        ledger=ledger,
        months=months,
        digest=dataset_digest(months),
        batches=dict(change.batches),
        versions=_versions(),
        details=dict(change.details),
    ).with_hash()


def _linked_lineage(draft: Draft, change: Change) -> tuple[Path, dict[str, File]] | None:
    """The folder of the lineage with its linked files; None without a lineage."""
    if not change.with_lineage:
        return None
    shared = _link_unchanged(draft, change, lineage=True)
    # After a failed write of petastorm, Spark writes summaries for the rest of its session.
    for name in (seal.METADATA, seal.COMMON_METADATA):
        (draft.lineage / name).unlink(missing_ok=True)
    return draft.lineage, shared


def _finish_ledger(draft: Draft, change: Change) -> dict[str, Any] | None:
    """Check the counts and write the ledger; return its record."""
    if not change.with_lineage:
        return None
    for sha256, tally in change.batches.items():
        # Older tallies have no superseded rows.
        counts = {name: tally.get(name, 0) for name in (*snapshots.OUTCOMES, "refused")}
        if tally["read"] != sum(counts.values()):
            raise SealBroken(
                f"the counts of batch {tally.get('name', sha256)} differ: {tally['read']} rows "
                f"read, but {' + '.join(f'{n} {name}' for name, n in counts.items())}; "
                "nothing was published"
            )
    return _write_ledger(draft.lineage, change.ledger or {})


def _write_ledger(lineage: Path, ledger: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    counts = {name: pa.int64() for name in ("read", *snapshots.OUTCOMES, "refused")}
    columns = {"batch": pa.string(), "name": pa.string(), **counts, "retracted": pa.string()}
    empty = {"retracted": None, "superseded": 0}
    rows = [{**empty, **tally, "batch": batch} for batch, tally in sorted(ledger.items())]
    path = lineage / snapshots.LEDGER
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema(columns)), path)
    durable_io.sync_file(path)
    return {"sha256": durable_io.file_hash(path), "size": path.stat().st_size, "batches": len(rows)}


def _keep_draft(place: FileSystem, made: Manifest, change: Change, parent: Snapshot | None) -> None:
    """Make the draft durable at its place, before a manifest names it."""
    for kind, files in ((SNAPSHOTS, made.files), (LINEAGE, made.lineage)):
        new = [file.path for file in files if file.month in change.months]
        shared = {file.path for file in files} - set(new)
        source = "" if parent is None else f"{kind}/{parent.id}/"
        place.keep(f"{kind}/{made.id}", new, {path: source + path for path in shared})


def _link_unchanged(draft: Draft, change: Change, *, lineage: bool) -> dict[str, File]:
    """Link the parent's files of unchanged months into a folder of the draft; return their records
    by path."""
    folder = draft.lineage if lineage else draft.folder
    folder.mkdir(exist_ok=True)
    # Hadoop's checksums, which linked files would lack: a manifest has SHA-256.
    for checksum in [*folder.rglob(".*.crc"), folder / "_SUCCESS"]:
        checksum.unlink(missing_ok=True)
    if draft.parent is None:
        return {}
    kind, (_, files) = (SNAPSHOTS, LINEAGE)[int(lineage)], draft.parent.folders()[int(lineage)]
    shared = {file.path: file for file in files if file.month not in change.months}
    sources = draft.parent.paths(shared.values(), kind)
    for source, path in zip(sources, shared, strict=True):
        durable_io.share(source, folder / path)
    return shared


def _commit(place: FileSystem, made: Manifest) -> None:
    try:
        if manifests.sequences(place)[-1:] > [made.sequence]:
            # Another run has published, and `gc` has removed the manifest with this number.
            raise FileExistsError
        place.create(manifests.name_of(made.sequence), made.to_bytes())
    except FileExistsError:
        with contextlib.suppress(SnapshotDamaged):
            # A repeated request meets the name that its first try has created.
            if manifests.read(place, made.sequence).hash == made.hash:
                return
        raise Overtaken(
            f"another run has published snapshot {made.sequence} of {place.name} first: "
            "run the command again"
        ) from None


def _write_current(place: FileSystem) -> None:
    """Write the ID of the newest manifest to CURRENT; it is a hint, so an error is ignored."""
    with contextlib.suppress(OSError, StoreError):
        newest = manifests.read(place, manifests.sequences(place)[-1])
        place.put(snapshots.CURRENT, f"{newest.id}\n".encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _versions() -> dict[str, str]:
    found = {"bitstorm": __version__}
    for name in ("petastorm", "pyarrow", "pyspark"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _may_be_committed(place: FileSystem, sequence: int, identity: str) -> bool:
    try:
        with contextlib.suppress(SnapshotDamaged):
            return manifests.read(place, sequence).id == identity
        return sequence in manifests.sequences(place)
    except (OSError, StoreError):
        # The place cannot be read now.
        return True
