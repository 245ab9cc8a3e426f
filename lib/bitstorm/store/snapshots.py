"""Snapshots of a data set: `snapshots/ID/`, `lineage/ID/`, and the manifests that name them.

The newest manifest is the current snapshot. `CURRENT` repeats its ID for other programs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bitstorm.collect.gaps import occupied
from bitstorm.core import durable_io
from bitstorm.core.errors import SnapshotDamaged, SnapshotMissing, first_line
from bitstorm.core.results import Result
from bitstorm.core.time import Span, iso, merged
from bitstorm.store import manifest as manifests
from bitstorm.store.manifest import File, Manifest

CURRENT = "CURRENT"
SNAPSHOTS = "snapshots"
LINEAGE = "lineage"
LEDGER = "ledger.parquet"
# The counts of a batch's good rows in its tally; with `refused` their sum is `read`.
OUTCOMES = ("accepted", "duplicate", "superseded")
# The command that publishes a data set.
_COMMANDS = {"prices": "ingest", "indicators": "indicators", "forecasts": "forecast"}
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
        """The folder of the lineage, outside `folder`, which is a Petastorm data set by itself."""
        return self.root / LINEAGE / self.id

    @property
    def files(self) -> list[Path]:
        return [self.folder / file.path for file in self.manifest.files]

    @property
    def lineage_files(self) -> list[Path]:
        return [self.lineage / file.path for file in self.manifest.lineage]

    def hashed_files(self) -> Iterator[tuple[Path, str, str | None]]:
        """Path, SHA-256 and month of every file; the ledger has no month."""
        for folder, files in self.folders():
            for file in files:
                yield folder / file.path, file.sha256, file.month
        if self.manifest.ledger is not None:
            yield self.lineage / LEDGER, self.manifest.ledger["sha256"], None

    def folders(self) -> tuple[tuple[Path, tuple[File, ...]], ...]:
        return (self.folder, self.manifest.files), (self.lineage, self.manifest.lineage)

    def of_months(self, months: set[str]) -> list[Path]:
        """The part files of these months."""
        return [self.folder / f.path for f in self.manifest.files if f.month in months]

    def lineage_of_months(self, months: set[str]) -> list[Path]:
        return [self.lineage / f.path for f in self.manifest.lineage if f.month in months]


def current(root: Path, *, snapshot: str | None = None) -> Snapshot | None:
    """The newest snapshot, or the one with that ID; None where the data set has no snapshot.

    Raises SnapshotMissing for an unknown ID, SnapshotDamaged where the manifest has changed, or a
    file is missing or has another size.
    """
    numbers = manifests.sequences(root)
    if snapshot is not None:
        found = _with_id(root, snapshot, numbers)
    elif numbers:
        found = Snapshot(root, manifests.read(root, numbers[-1]))
    else:
        return None
    _check_sizes(found)
    return found


def required(root: Path, *, snapshot: str | None = None, hint: str | None = None) -> Snapshot:
    """As `current`, but raises SnapshotMissing where the data set has no snapshot."""
    found = current(root, snapshot=snapshot)
    if found is None:
        command = _COMMANDS.get(root.name)
        hint = hint or (f"run `bitstorm {command}` first" if command else "publish one first")
        raise SnapshotMissing(f"there is no {root.name} data set yet in {root.parent}: {hint}")
    return found


def known(root: Path, snapshot: str) -> Snapshot | None:
    """The snapshot with that ID, whether its files are intact or not; None without its manifest."""
    with contextlib.suppress(SnapshotMissing, SnapshotDamaged):
        return _with_id(root, snapshot, manifests.sequences(root))
    return None


def check_content(snapshot: Snapshot, *, months: Collection[str] | None = None) -> None:
    """Hash the snapshot's files, or those of some months, again. Raises SnapshotDamaged with the
    name of each changed file."""
    damaged = damaged_files(snapshot, months=months)
    if damaged:
        raise SnapshotDamaged(
            f"{', '.join(damaged)} of snapshot {snapshot.id} has changed (its SHA-256 differs): "
            "restore it from a copy, or `bitstorm rollback` to a snapshot without it"
        )


def damaged_files(snapshot: Snapshot, *, months: Collection[str] | None = None) -> list[str]:
    """The changed or missing files of the snapshot, or of some months, relative to its root."""
    return [
        path.relative_to(snapshot.root).as_posix()
        for path, sha256, month in snapshot.hashed_files()
        if (months is None or month is None or month in months)
        and (not path.exists() or durable_io.file_hash(path) != sha256)
    ]


def read_ledger(snapshot: Snapshot | None) -> dict[str, dict[str, Any]]:
    """The tally of every ingested batch, by the hash of its content."""
    if snapshot is None or snapshot.manifest.ledger is None:
        return {}
    path = snapshot.lineage / LEDGER
    try:
        if durable_io.file_hash(path) != snapshot.manifest.ledger["sha256"]:
            raise OSError("its SHA-256 differs")
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
    """The distinct rows of these columns of the lineage in these months."""
    found: set[tuple[Any, ...]] = set()
    for path in snapshot.lineage_of_months(months):
        rows = pq.ParquetFile(path, read_dictionary=["batch"]).read(columns=list(columns))
        distinct = rows.group_by(list(columns)).aggregate([]).select(list(columns))
        found.update(zip(*(column.to_pylist() for column in distinct.columns), strict=True))
    return found


def part_files(folder: Path) -> list[Path]:
    """The Parquet files below any folder, sorted, without `_metadata` and hidden ones."""
    return sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)
    )


def _with_id(root: Path, name: str, numbers: list[int]) -> Snapshot:
    if match := _ID.fullmatch(name):
        # After a rollback a later manifest names it, too, and `gc` may have removed the first one.
        for number in (n for n in numbers if n >= int(match[1])):
            manifest = manifests.read(root, number)
            if manifest.id == name:
                return Snapshot(root, manifest)
    newest = []
    for number in numbers[-3:]:
        with contextlib.suppress(SnapshotDamaged):
            newest.append(manifests.read(root, number).id)
    raise SnapshotMissing(
        f"there is no snapshot {name!r} of {root.name}; "
        + (f"the newest are {', '.join(newest)}" if newest else "there are no snapshots")
    )


def _check_sizes(snapshot: Snapshot) -> None:
    for folder, files in snapshot.folders():
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
    """The manifest, None where it is damaged. A second read excludes a passing fault of the disk,
    which must not break the chain of parents."""
    for _ in range(2):
        with contextlib.suppress(SnapshotDamaged):
            return manifests.read(root, number)
    return None


def matching(
    prices_root: Path, indicators_root: Path, *, snapshot: str | None
) -> tuple[Snapshot, Snapshot]:
    """The newest prices and the newest indicators, or the given snapshot of either with the
    matching one of the other. Raises SnapshotMissing."""
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
    """The newest indicators that were computed from these prices."""
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
    """The batch and line of one row of `prices`; `timestamp` is Unix milliseconds UTC."""

    timestamp: int
    snapshot: str
    batch: str
    name: str | None
    line: int


def trace(snapshot: Snapshot, timestamp_ms: int) -> Trace:
    """The batch and line of the row at this time (Unix ms), from the lineage. Raises
    SnapshotMissing where there is no row at this time."""
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
        "give the exact time of a row, to the millisecond"
    )


def stored_slots(snapshot: Snapshot | None, step: int) -> list[Span]:
    """The slots of the grid that have an observation; reads only times, piece by piece."""
    if snapshot is None:
        return []
    found: list[Span] = []
    for path in snapshot.files:
        with pq.ParquetFile(path) as file:
            for piece in file.iter_batches(columns=["timestamp"]):
                found += occupied(piece.column(0).to_numpy(zero_copy_only=False), step)
        # The many pieces of a dense month become one span.
        found = merged(found)
    return found
