"""Snapshots of a data set: `snapshots/ID/`, `lineage/ID/`, and the manifests that name them.

The newest manifest is the current snapshot. `CURRENT` repeats its ID for other programs.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bitstorm.collect.gaps import occupied
from bitstorm.core import durable_io
from bitstorm.core.errors import SnapshotDamaged, SnapshotMissing, first_line
from bitstorm.core.file_system import Root, files_of
from bitstorm.core.results import Result
from bitstorm.core.time import Span, iso, merged
from bitstorm.store import manifest as manifests
from bitstorm.store import seal
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
    """One pinned snapshot: its data set's root and its manifest.

    Its paths are local: files that lie elsewhere are fetched first.
    """

    root: Root
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.id

    @property
    def folder(self) -> Path:
        """The folder of all its files, a Petastorm data set by itself; the lineage is outside."""
        place = files_of(self.root)
        if not place.is_mirror:
            return place.folder / SNAPSHOTS / self.id
        self.paths(self.manifest.files)
        return self.check_summaries()

    def check_summaries(self) -> Path:
        """The folder. Raises SealBroken where a summary is damaged or does not list the files of
        the manifest, and SnapshotDamaged where it is not in the store."""
        place, prefix = files_of(self.root), f"{SNAPSHOTS}/{self.id}"
        if place.is_mirror:
            place.fetch(f"{prefix}/{seal.COMMON_METADATA}", None)
            if self.manifest.files:
                place.fetch(f"{prefix}/{seal.METADATA}", None)
        seal.check_summaries(place.folder / prefix, self.manifest.files)
        return place.folder / prefix

    @property
    def files(self) -> list[Path]:
        return self.paths(self.manifest.files)

    @property
    def ledger(self) -> Path:
        """The file of the tallies of all batches, where the data set has a lineage."""
        record = self.manifest.ledger
        assert record is not None
        return self._local(LINEAGE, LEDGER, record["size"], record["sha256"])

    def paths(self, files: Iterable[File], kind: str = SNAPSHOTS) -> list[Path]:
        """The local paths of some of its files, or of its lineage's."""
        return [self._local(kind, file.path, file.size, file.sha256) for file in files]

    def _local(self, kind: str, path: str, size: int, sha256: str) -> Path:
        name = f"{kind}/{self.id}/{path}"
        return files_of(self.root).local(name, size=size, sha256=sha256)

    def hashed_files(self) -> Iterator[tuple[str, int, str, str | None]]:
        """Name under the root, bytes, SHA-256 and month of every file; the ledger has no month."""
        for prefix, files in self.folders():
            for file in files:
                yield f"{prefix}/{file.path}", file.size, file.sha256, file.month
        if (ledger := self.manifest.ledger) is not None:
            yield f"{LINEAGE}/{self.id}/{LEDGER}", ledger["size"], ledger["sha256"], None

    def folders(self) -> tuple[tuple[str, tuple[File, ...]], ...]:
        """The two folders under the root, and their files."""
        m = self.manifest
        return (f"{SNAPSHOTS}/{self.id}", m.files), (f"{LINEAGE}/{self.id}", m.lineage)

    def of_months(self, months: set[str]) -> list[Path]:
        """The part files of these months."""
        return self.paths(f for f in self.manifest.files if f.month in months)

    def lineage_of_months(self, months: set[str]) -> list[Path]:
        return self.paths((f for f in self.manifest.lineage if f.month in months), LINEAGE)


def current(root: Root, *, snapshot: str | None = None) -> Snapshot | None:
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


def required(root: Root, *, snapshot: str | None = None, hint: str | None = None) -> Snapshot:
    """As `current`, but raises SnapshotMissing where the data set has no snapshot."""
    found = current(root, snapshot=snapshot)
    if found is None:
        command = _COMMANDS.get(root.name)
        hint = hint or (f"run `bitstorm {command}` first" if command else "publish one first")
        where = str(root).rpartition("/")[0]
        raise SnapshotMissing(f"there is no {root.name} data set yet in {where}: {hint}")
    return found


def known(root: Root, snapshot: str) -> Snapshot | None:
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
    place = files_of(snapshot.root)
    return [
        name
        for name, size, sha256, month in snapshot.hashed_files()
        if (months is None or month is None or month in months)
        and not place.is_intact(name, size=size, sha256=sha256)
    ]


def read_ledger(snapshot: Snapshot | None) -> dict[str, dict[str, Any]]:
    """The tally of every ingested batch, by the hash of its content."""
    if snapshot is None or snapshot.manifest.ledger is None:
        return {}
    path = snapshot.ledger
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


def _with_id(root: Root, name: str, numbers: list[int]) -> Snapshot:
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
    sizes = {
        f"{prefix}/{file.path}": file.size for prefix, files in snapshot.folders() for file in files
    }
    found = files_of(snapshot.root).find(sizes)
    for name, expected in sizes.items():
        size = found[name].size if name in found else None
        if size != expected:
            raise SnapshotDamaged(
                f"{name} {'is gone' if size is None else f'has {size} bytes'}, expected {expected} "
                "bytes: restore the file, or `bitstorm rollback` to a snapshot without it"
            )


def readable_manifest(root: Root, number: int) -> Manifest | None:
    """The manifest, None where it is damaged. A second read excludes a passing fault of the disk,
    which must not break the chain of parents."""
    for _ in range(2):
        with contextlib.suppress(SnapshotDamaged):
            return manifests.read(root, number)
    return None


def matching(
    prices_root: Root, indicators_root: Root, *, snapshot: str | None
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


def _indicators_of(root: Root, prices: Snapshot) -> Snapshot:
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
            *snapshot.paths([file], LINEAGE),
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
