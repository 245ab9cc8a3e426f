"""Snapshots of a data set: `snapshots/ID/`, `manifests/ID.json` and `CURRENT`.

A publish writes a whole new folder, then its manifest, then replaces CURRENT: that replacement
is the only moment at which readers see anything change. Every reader resolves through `current`.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bitstorm import __version__
from bitstorm.errors import SnapshotDamaged, SnapshotMissing

CURRENT = "CURRENT"
SNAPSHOTS = "snapshots"
MANIFESTS = "manifests"
LINEAGE = "lineage"
_ID = re.compile(r"\d{6}-\d{8}T\d{6}Z-[0-9a-f]{6}")


@dataclass(frozen=True)
class File:
    """A part file: its path inside the snapshot, bytes and rows."""

    path: str
    size: int
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What a snapshot holds. Times are Unix milliseconds UTC, None for an empty snapshot.

    `details` holds what the publishing command adds: the batches consumed, the settings used.
    """

    id: str
    sequence: int
    parent: str | None
    table: str
    rows: int
    first_ms: int | None
    last_ms: int | None
    files: tuple[File, ...]
    created_at: str
    version: str = __version__
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """One pinned snapshot: its folder and its manifest."""

    folder: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def files(self) -> list[Path]:
        return [self.folder / file.path for file in self.manifest.files]

    @property
    def lineage(self) -> Path:
        """Where each row came from; beside the folder, so that the folder is a data set alone."""
        return self.folder.parent.parent / LINEAGE / self.id


def current(root: Path, *, snapshot: str | None = None) -> Snapshot | None:
    """The snapshot that CURRENT names, or the named one; None when there is none at all.

    Raises SnapshotMissing for an unknown ID, SnapshotDamaged where the record cannot be read or
    a part file is missing or of another size.
    """
    name = snapshot if snapshot is not None else _current_id(root)
    if name is None:
        return None
    manifest = _read_manifest(root, name)
    found = Snapshot(root / SNAPSHOTS / name, manifest)
    for file in manifest.files:
        path = found.folder / file.path
        size = path.stat().st_size if path.exists() else None
        if size != file.size:
            raise SnapshotDamaged(
                f"snapshot {name} is damaged: {file.path} has "
                f"{'gone' if size is None else f'{size} bytes'}, expected {file.size} bytes; "
                "restore the file, or ingest into a new workspace"
            )
    return found


def required(root: Path, *, snapshot: str | None = None, hint: str) -> Snapshot:
    """As `current`, but raises SnapshotMissing with what to do where there is none."""
    found = current(root, snapshot=snapshot)
    if found is None:
        raise SnapshotMissing(f"there is no {root.name} data set yet in {root.parent}: {hint}")
    return found


def resolve(root: Path) -> Path:
    """The folder of the newest snapshot of a data set. Raises SnapshotMissing."""
    return required(root, hint="publish one first").folder


def publish(
    root: Path,
    *,
    table: str,
    parent: Snapshot | None,
    write: Callable[[Path, Path], dict[str, Any]],
) -> Snapshot:
    """Write a new snapshot, record it and make it current.

    `write(folder, lineage)` fills the new folder (it does not exist yet) and, where it has any,
    the lineage folder; what it returns becomes the manifest's `details`.
    """
    sequence = 1 if parent is None else parent.manifest.sequence + 1
    moment = datetime.now(UTC)
    name = f"{sequence:06d}-{moment:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
    folder = root / SNAPSHOTS / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    details = write(folder, root / LINEAGE / name)
    files, first, last = _survey(folder)
    manifest = Manifest(
        id=name,
        sequence=sequence,
        parent=None if parent is None else parent.id,
        table=table,
        rows=sum(file.rows for file in files),
        first_ms=first,
        last_ms=last,
        files=files,
        created_at=moment.isoformat(timespec="seconds"),
        details=details,
    )
    (root / MANIFESTS).mkdir(exist_ok=True)
    _write_durably(root / MANIFESTS / f"{name}.json", json.dumps(asdict(manifest), indent=1))
    _write_durably(root / CURRENT, name + "\n")
    return Snapshot(folder, manifest)


def part_files(folder: Path) -> list[Path]:
    """The Parquet files of a snapshot or of any folder, sorted; `_metadata` and hidden ones not."""
    return sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)
    )


def _survey(folder: Path) -> tuple[tuple[File, ...], int | None, int | None]:
    files, lows, highs = [], [], []
    for path in part_files(folder):
        footer = pq.ParquetFile(path).metadata
        relative = path.relative_to(folder).as_posix()
        files.append(File(relative, path.stat().st_size, footer.num_rows))
        column = footer.schema.names.index("timestamp")
        for group in range(footer.num_row_groups):
            statistics = footer.row_group(group).column(column).statistics
            lows.append(statistics.min)
            highs.append(statistics.max)
    return tuple(files), min(lows, default=None), max(highs, default=None)


def _current_id(root: Path) -> str | None:
    try:
        name = (root / CURRENT).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    if not _ID.fullmatch(name):
        raise SnapshotDamaged(
            f"{root / CURRENT} holds {name[:60]!r}, which is no snapshot's ID; write the newest "
            f"name under {MANIFESTS}/ into it"
        )
    return name


def _read_manifest(root: Path, name: str) -> Manifest:
    path = root / MANIFESTS / f"{name}.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if _ID.fullmatch(name) else None
        if record is None:
            raise FileNotFoundError
        return Manifest(**{**record, "files": tuple(File(**f) for f in record["files"])})
    except FileNotFoundError:
        known = sorted(p.stem for p in (root / MANIFESTS).glob("*.json"))
        raise SnapshotMissing(
            f"there is no snapshot {name!r} of {root.name}; "
            + (f"the newest are {', '.join(known[-3:])}" if known else "there is none at all")
        ) from None
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotDamaged(
            f"the manifest {path} cannot be read ({error}); "
            f"write an older name under {MANIFESTS}/ into {root / CURRENT}"
        ) from None


def _write_durably(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
