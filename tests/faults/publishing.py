"""A small data set published without Spark, and all that must be true of it at any moment.

`job` stands for an ingest: it takes the batches that the ledger does not know, merges them into
the months that they touch, and publishes. What the data set must hold is worked out by `expected`
from the batches alone.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import Overtaken
from bitstorm.core.file_system import Root, files_of
from bitstorm.core.schema import LINEAGE, PRICES, Table
from bitstorm.store import publish as store_publish
from bitstorm.store import snapshots
from bitstorm.store.publish import Change, Draft
from bitstorm.store.seal import arrow_schema
from bitstorm.store.snapshots import Snapshot
from objects import Objects

HOUR = 3_600_000
JANUARY = 1_609_459_200_000  # 2021-01-01T00:00:00Z
FEBRUARY = JANUARY + 31 * 24 * HOUR
MARCH = FEBRUARY + 28 * 24 * HOUR
# What `_common_metadata` holds is only ever compared: any picklable object will do.
SCHEMA: Any = "a Unischema"


@dataclass(frozen=True)
class Batch:
    """Rows by time; of two batches that state the same time the smaller name wins."""

    name: str
    rows: tuple[tuple[int, float], ...]


def batch(name: str, start: int, count: int, *, step: int = HOUR, price: float = 100.0) -> Batch:
    return Batch(name, tuple((start + n * step, price + n) for n in range(count)))


def month_of(stamp: int) -> str:
    return datetime.fromtimestamp(stamp // 1000, UTC).strftime("%Y-%m")


def price_rows(rows: Mapping[int, float | None], **columns: Mapping[int, Any]) -> pa.Table:
    """The rows by time, in the types of PRICES; other columns are null unless given."""
    stamps = sorted(rows)
    values: dict[str, list[Any]] = {
        "timestamp": stamps,
        "price": [rows[stamp] for stamp in stamps],
        "market_cap": [None] * len(stamps),
        "volume_24h": [None] * len(stamps),
        "price_change_24h": [None] * len(stamps),
    }
    values.update({k: [v.get(stamp) for stamp in stamps] for k, v in columns.items()})
    return pa.table(values, schema=arrow_schema(PRICES))


def lineage_rows(owners: Mapping[int, str]) -> pa.Table:
    stamps = sorted(owners)
    values = {
        "timestamp": stamps,
        "batch": [owners[stamp] for stamp in stamps],
        "line": list(range(2, len(stamps) + 2)),
        "granularity_ms": [None] * len(stamps),
        "fetched_at": [None] * len(stamps),
    }
    return pa.table(values, schema=arrow_schema(LINEAGE))


def put(folder: Path, month: str, rows: pa.Table, name: str = "part-0.parquet", **how: Any) -> Path:
    """One part file."""
    path = folder / f"month={month}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, **how)
    return path


def by_month(stamps: Iterable[int]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for stamp in sorted(stamps):
        found.setdefault(month_of(stamp), []).append(stamp)
    return found


def publish(
    root: Root,
    write: Callable[[Draft], Change],
    parent: Snapshot | None = None,
    table: Table = PRICES,
) -> Snapshot:
    return store_publish.publish(
        root, table=table, schema=SCHEMA, parent=parent, operation="test", write=write
    )


def whole(rows: Mapping[int, float], **options: Any) -> Callable[[Draft], Change]:
    """A write of these rows as everything there is of their months, without lineage."""

    def write(draft: Draft) -> Change:
        months = by_month(rows)
        for month, stamps in months.items():
            put(draft.folder, month, price_rows({stamp: rows[stamp] for stamp in stamps}))
        return Change(frozenset(months), **options)

    return write


def merged(draft: Draft, new: Iterable[Batch], known: Mapping[str, Any]) -> Change:
    """Write the months that the new batches touch, with their lineage and their tallies."""
    new = list(new)
    touched = {month_of(stamp) for b in new for stamp, _ in b.rows}
    standing: dict[int, tuple[str, float]] = {}
    if draft.parent is not None:
        owners: dict[int, str] = {}
        for path in draft.parent.lineage_of_months(touched):
            rows = pq.ParquetFile(path).read()
            owners.update(zip(*(rows[n].to_pylist() for n in ("timestamp", "batch")), strict=True))
        for path in draft.parent.of_months(touched):
            rows = pq.ParquetFile(path).read()
            for stamp, price in zip(
                rows["timestamp"].to_pylist(), rows["price"].to_pylist(), strict=True
            ):
                standing[stamp] = (owners[stamp], price)
    for b in new:
        for stamp, price in b.rows:
            if stamp not in standing or b.name < standing[stamp][0]:
                standing[stamp] = (b.name, price)
    for month, stamps in by_month(standing).items():
        put(draft.folder, month, price_rows({s: standing[s][1] for s in stamps}))
        put(draft.lineage, month, lineage_rows({s: standing[s][0] for s in stamps}))
    tallies = {}
    for b in new:
        won = sum(1 for stamp, _ in b.rows if standing[stamp][0] == b.name)
        tallies[b.name] = {
            "name": b.name,
            "read": len(b.rows),
            "accepted": won,
            "duplicate": len(b.rows) - won,
            "refused": 0,
        }
    return Change(
        frozenset(touched), with_lineage=True, batches=tallies, ledger={**known, **tallies}
    )


def job(root: Root, batches: Iterable[Batch], *, wait_seconds: float = 60.0) -> bool:
    """Take what the ledger does not know; False when there was nothing to take."""
    batches = list(batches)
    with writer_lock(files_of(root).folder, wait_seconds=wait_seconds):
        return commit(root, batches)


def commit(root: Root, batches: Iterable[Batch]) -> bool:
    """The job without its lock: an overtaken one merges again on the new parent."""
    batches = list(batches)
    while True:
        parent = snapshots.current(root)
        known = snapshots.read_ledger(parent)
        new = [b for b in batches if b.name not in known]
        if not new:
            return False
        try:
            publish(root, lambda draft: merged(draft, new, known), parent)  # noqa: B023
            return True
        except Overtaken:
            continue


def expected(batches: Iterable[Batch]) -> dict[int, float]:
    """The ledger: what a data set of these batches holds, in whatever order they came."""
    found: dict[int, tuple[str, float]] = {}
    for b in batches:
        for stamp, price in b.rows:
            if stamp not in found or b.name < found[stamp][0]:
                found[stamp] = (b.name, price)
    return {stamp: price for stamp, (_, price) in sorted(found.items())}


def rows_of(snapshot: Snapshot) -> list[tuple[int, float]]:
    """The rows as they lie in the listed files, by plain pyarrow; twice where they lie twice."""
    found: list[tuple[int, float]] = []
    for path in snapshot.files:
        rows = pq.ParquetFile(path).read()
        found += zip(rows["timestamp"].to_pylist(), rows["price"].to_pylist(), strict=True)
    return sorted(found)


def prices_digest(rows: Iterable[tuple[int, Any, Any, Any, Any]]) -> str:
    """The digest of PRICES rows worked out value by value: nothing of the library's is used."""
    months: dict[str, list[tuple[Any, ...]]] = {}
    for row in sorted(rows, key=lambda row: row[0]):
        months.setdefault(month_of(row[0]), []).append(row)
    whole_set = hashlib.sha256()
    layout = (
        ("timestamp", "int64", "<q"),
        ("price", "float32", "<f"),
        ("market_cap", "float64", "<d"),
        ("volume_24h", "float64", "<d"),
        ("price_change_24h", "float32", "<f"),
    )
    for month in sorted(months):
        digest = hashlib.sha256(f"BitcoinSchema:{len(months[month])}\n".encode())
        for place, (name, kind, code) in enumerate(layout):
            values = [row[place] for row in months[month]]
            digest.update(f"{name}:{kind}\n".encode())
            digest.update(bytes(value is None for value in values))
            for value in values:
                if value is not None and value != value:
                    # Of all the NaNs the positive quiet one.
                    digest.update(
                        struct.pack("<I", 0x7FC00000)
                        if code == "<f"
                        else struct.pack("<Q", 0x7FF8000000000000)
                    )
                else:
                    digest.update(struct.pack(code, 0 if value is None else value))
        whole_set.update(f"{month}:{digest.hexdigest()}\n".encode())
    return whole_set.hexdigest()


def canonical_hash(record: Mapping[str, Any]) -> str:
    """A manifest's hash from its JSON, by the words of its documentation."""
    rest = {key: value for key, value in record.items() if key != "hash"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def unbroken(root: Root) -> list[dict[str, Any]]:
    """The manifests' records, after their numbers, hashes and parents' hashes were checked.

    They end with the newest one without a hole; `gc` may have taken the oldest.
    """
    records: list[dict[str, Any]] = []
    names = sorted(n for n in files_of(root).names("manifests") if n[0].isdigit())
    for number, name in enumerate(names, start=int(names[0][:8]) if names else 1):
        record = json.loads(files_of(root).read(f"manifests/{name}"))
        assert name == f"{number:08d}.json" and record["sequence"] == number
        assert record["hash"] == canonical_hash(record), name
        if records or number == 1:
            assert record["parent_hash"] == (records[-1]["hash"] if records else None), name
        records.append(record)
    return records


def elsewhere(root: Root) -> Root:
    """The data set as another machine sees it: of a store of objects, without a local copy."""
    return root.elsewhere() if isinstance(root, Objects) else root


def beside(root: Root, name: str) -> Root:
    """Another data set, that does not exist yet."""
    return root.parent / name if isinstance(root, Path) else Objects(root.folder.parent / name)


def stored_names(root: Root) -> list[str]:
    """All files of the data set, and in a folder its folders, too."""
    if isinstance(root, Path):
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))
    return sorted(entry.name for entry in root.list(""))


def verified(root: Root, batches: Iterable[Batch]) -> Snapshot:
    """The newest snapshot, once everything about it is what the batches say."""
    batches = list(batches)
    found = snapshots.current(root)
    assert found is not None
    unbroken(root)
    for file, path in zip(found.manifest.files, found.files, strict=True):
        content = path.read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
    assert snapshots.damaged_files(found) == []
    wanted = expected(batches)
    assert rows_of(found) == sorted(wanted.items())
    assert found.manifest.rows == len(wanted)
    assert found.manifest.digest == prices_digest(
        (stamp, price, None, None, None) for stamp, price in wanted.items()
    )
    listed = pq.read_metadata(found.folder / "_metadata")
    assert listed.num_rows == len(wanted)
    ledger = snapshots.read_ledger(found)
    assert set(ledger) == {b.name for b in batches}
    for b in batches:
        tally = ledger[b.name]
        assert tally["read"] == len(b.rows)
        assert tally["accepted"] + tally["duplicate"] + tally["refused"] == len(b.rows)
    return found
