"""Snapshots of a data set: `snapshots/ID/`, `lineage/ID/`, and the manifests that name them.

The newest manifest is the current snapshot; `CURRENT` repeats its ID for other programs and can be
rebuilt.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.collect.gaps import occupied
from bitstorm.core import durable_io
from bitstorm.core.errors import (
    SnapshotDamaged,
    SnapshotMissing,
    first_line,
)
from bitstorm.core.results import Result
from bitstorm.core.time import Span, iso, merged
from bitstorm.store import manifest as manifests
from bitstorm.store.manifest import File, Manifest

if TYPE_CHECKING:
    pass

CURRENT = "CURRENT"
SNAPSHOTS = "snapshots"
LINEAGE = "lineage"
LEDGER = "ledger.parquet"
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
        and (not path.exists() or durable_io.file_hash(path) != sha256)
    ]


def read_ledger(snapshot: Snapshot | None) -> dict[str, dict[str, Any]]:
    """The tallies of every batch that was consumed, by the hash of its content."""
    if snapshot is None or snapshot.manifest.ledger is None:
        return {}
    import pyarrow.parquet as pq

    path = snapshot.lineage / LEDGER
    try:
        if durable_io.file_hash(path) != snapshot.manifest.ledger["sha256"]:
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


def readable_manifest(root: Path, number: int) -> Manifest | None:
    """The newest manifest, None when it is the damaged one that a rollback is to get away from.
    A fault of the disk that passes must not break the chain, so it is read again."""
    for _ in range(2):
        with contextlib.suppress(SnapshotDamaged):
            return manifests.read(root, number)
    return None


def matching(
    prices_root: Path, indicators_root: Path, *, snapshot: str | None
) -> tuple[Snapshot, Snapshot]:
    """The newest prices and the newest indicators, or the named snapshot of either with its
    counterpart of the other. Raises SnapshotMissing."""
    if snapshot is None:
        return required(prices_root), required(indicators_root)
    indicators = None
    with contextlib.suppress(SnapshotMissing):
        indicators = required(indicators_root, snapshot=snapshot)
    if indicators is not None:
        return required(prices_root, snapshot=indicators.manifest.details["prices"]), indicators
    prices = required(prices_root, snapshot=snapshot)
    return prices, _indicators_of(indicators_root, prices)


def _indicators_of(root: Path, prices: Snapshot) -> Snapshot:
    """The newest indicators that were made from these prices."""
    for number in reversed(manifests.sequences(root)):
        try:
            found = manifests.read(root, number)
        except SnapshotDamaged:
            continue
        if found.details["prices"] == prices.id:
            return required(root, snapshot=found.id)
    raise SnapshotMissing(
        f"there are no indicators of the prices in snapshot {prices.id}: "
        f"run `bitstorm indicators --snapshot {prices.id}` first"
    )


@dataclass(frozen=True, repr=False)
class Trace(Result):
    """Where one row of `prices` came from."""

    timestamp: int
    snapshot: str
    batch: str
    name: str | None
    line: int


def trace(snapshot: Snapshot, timestamp_ms: int) -> Trace:
    """The batch and line that the row of this time (Unix ms) was read from, out of the lineage.
    Raises SnapshotMissing where there is no such row."""
    import pyarrow.parquet as pq

    ledger = read_ledger(snapshot)
    for file in snapshot.manifest.lineage:
        if not file.first_ms <= timestamp_ms <= file.last_ms:
            continue
        rows = pq.read_table(
            snapshot.lineage / file.path,
            columns=["batch", "line"],
            filters=[("timestamp", "=", timestamp_ms)],
        ).to_pylist()
        for row in rows:
            name = ledger.get(row["batch"], {}).get("name")
            return Trace(timestamp_ms, snapshot.id, row["batch"], name, row["line"])
    raise SnapshotMissing(
        f"snapshot {snapshot.id} has no row at {iso(timestamp_ms)} ({timestamp_ms}); "
        "give a row's own time, to the millisecond"
    )


def stored_slots(snapshot: Snapshot | None, step: int) -> list[Span]:
    """The slots that have an observation: file by file and piece by piece, times alone."""
    if snapshot is None:
        return []
    import pyarrow.parquet as pq

    found: list[Span] = []
    for path in snapshot.files:
        with pq.ParquetFile(path) as file:
            for piece in file.iter_batches(columns=["timestamp"]):
                found += occupied(piece.column(0).to_numpy(zero_copy_only=False), step)
        # Many pieces of a dense month are one span.
        found = merged(found)
    return found
