"""The manifest lists the files of one snapshot. A file that it does not list does not count.

`manifests/00000001.json` and on, one for each commit, created exclusively: of two writers on the
same parent, the second finds that the name exists. A manifest holds its parent's hash and its own
(SHA-256 over the canonical JSON without it), so that reading finds an edited or truncated one.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bitstorm.core import durable_io
from bitstorm.core.errors import SnapshotDamaged, first_line
from bitstorm.core.file_system import Root, files_of
from bitstorm.core.schema import Table

MANIFESTS = "manifests"
FORMAT = 1
_NAME = re.compile(r"(\d{8})\.json")


@dataclass(frozen=True)
class File:
    """One Parquet file: path inside its folder, bytes, SHA-256, rows, row groups, time range."""

    path: str
    size: int
    sha256: str
    rows: int
    row_groups: int
    first_ms: int
    last_ms: int

    @property
    def month(self) -> str:
        return self.path.partition("/")[0].partition("=")[2]


@dataclass(frozen=True)
class Manifest:
    """Times are Unix milliseconds UTC, None for a snapshot without rows.

    `files` are in `snapshots/ID/`, `lineage` in `lineage/ID/`. `months` has the digest of each
    month, `digest` is the data set's. `batches` are the tallies of this commit's batches; the
    ledger in the lineage has the tallies of all commits. The command that publishes adds `details`.
    """

    sequence: int
    id: str
    parent: str | None
    parent_hash: str | None
    operation: str
    reason: str
    created_at: str
    table: str
    schema_version: int
    schema: list[dict[str, Any]]
    schema_hash: str
    rows: int
    first_ms: int | None
    last_ms: int | None
    files: tuple[File, ...]
    lineage: tuple[File, ...]
    ledger: dict[str, Any] | None
    months: dict[str, str]
    digest: str
    batches: dict[str, dict[str, Any]]
    versions: dict[str, str]
    details: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT
    hash: str = ""

    def with_hash(self) -> Manifest:
        """The manifest with its own hash."""
        return replace(self, hash=_hash_of(asdict(self)))

    def to_bytes(self) -> bytes:
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


def name_of(sequence: int) -> str:
    """The manifest's file, relative to the root of its data set."""
    return f"{MANIFESTS}/{sequence:08d}.json"


def sequences(root: Root) -> list[int]:
    """The numbers of all manifests, ascending."""
    names = files_of(root).names(MANIFESTS)
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


def read(root: Root, sequence: int) -> Manifest:
    """The manifest of that number, checked against its own hash. Raises SnapshotDamaged."""
    path = f"{root}/{name_of(sequence)}"
    advice = "make an older snapshot current with `bitstorm rollback ID` (see `bitstorm history`)"
    try:
        record = json.loads(files_of(root).read(name_of(sequence)))
        if record.get("hash") != _hash_of(record):
            raise SnapshotDamaged(f"the manifest {path} has changed (its hash differs): {advice}")
        if record["format"] > FORMAT:
            raise SnapshotDamaged(
                f"the manifest {path} has format {record['format']}, this version reads up to "
                f"{FORMAT}: use a newer Bitstorm"
            )
        if record["sequence"] != sequence:
            raise SnapshotDamaged(
                f"the manifest {path} has the number {record['sequence']} inside: {advice}"
            )
        files = {name: tuple(File(**f) for f in record[name]) for name in ("files", "lineage")}
        return Manifest(**{**record, **files})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SnapshotDamaged(
            f"the manifest {path} cannot be read ({first_line(error)}): {advice}"
        ) from None


def first_change(before: Manifest, after: Manifest) -> str | None:
    """The earliest month (`YYYY-MM`) whose rows differ; None where no month differs."""
    months = before.months.keys() | after.months.keys()
    return min((m for m in months if before.months.get(m) != after.months.get(m)), default=None)


def schema_record(table: Table) -> list[dict[str, Any]]:
    """The table's fields as JSON, for readers."""
    return [
        {"name": f.name, "type": f.kind, "nullable": f.nullable, "unit": f.unit}
        for f in table.fields
    ]


def schema_hash(table: Table) -> str:
    return durable_io.json_hash(schema_record(table))


def _hash_of(record: dict[str, Any]) -> str:
    return durable_io.json_hash({key: value for key, value in record.items() if key != "hash"})
