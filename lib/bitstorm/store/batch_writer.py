"""`make_batch_writer`: rows into a data set without Spark or a JVM.

Files, lineage, seal and manifests are the same as those of `ingest`, so the two can take turns.
Temporary files hold the rows by month, so a long stream of pieces needs the memory of one month.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import DataError, Overtaken, StoreError, UsageError, first_line
from bitstorm.core.schema import LINEAGE, PARTITION, PRICES, Field, Kind, Table, numpy_type
from bitstorm.core.workspace import check_petastorm_reads, local_path
from bitstorm.store import snapshots
from bitstorm.store.manifest import schema_hash
from bitstorm.store.publish import Change, Draft, publish
from bitstorm.store.seal import arrow_schema, month_digest
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    import pandas as pd
    from petastorm.unischema import Unischema

_KINDS: Mapping[Any, Kind] = {np.dtype(numpy_type(kind)): kind for kind in get_args(Kind)}
# The order of ingest.deduplicate; nulls are last in each direction.
_RANK = [
    ("timestamp", "ascending"),
    ("granularity_ms", "ascending"),
    ("fetched_at", "descending"),
    ("batch", "ascending"),
    ("line", "ascending"),
]


def make_batch_writer(
    dataset_url: str | Path,
    schema: Unischema,
    *,
    granularity_ms: int | None = None,
    fetched_at: int | None = None,
    lock_seconds: float = 60.0,
) -> BatchWriter:
    """A context manager whose `write(rows)` takes pandas frames or Arrow tables in pieces.

    `dataset_url` is a data set's root (a path or `file://` URL), created if needed; `schema` a
    Unischema of scalars with an int64 `timestamp` (Unix ms, UTC), such as `BitcoinSchema`. The end
    of the block publishes all rows as one new snapshot on top of the newest; after an error it
    publishes nothing. `granularity_ms` and `fetched_at` (Unix ms) decide between rows of the same
    time, as in `ingest`. Raises UsageError for an unusable schema or location, DataError for rows
    that break the schema, StoreError when another run holds the lock for over `lock_seconds`.
    """
    root, table = local_path(dataset_url, error=UsageError), table_of(schema)
    check_petastorm_reads(root, error=UsageError)
    return BatchWriter(root, table, schema, granularity_ms, fetched_at, lock_seconds)


@dataclasses.dataclass
class BatchWriter:
    """See `make_batch_writer`. After the block, `snapshot` is the published one, or the current one
    where the data set already has the same batch."""

    _root: Path
    _table: Table
    _schema: Unischema
    _granularity_ms: int | None
    _fetched_at: int | None
    _lock_seconds: float
    snapshot: Snapshot | None = dataclasses.field(default=None, init=False)
    _lines: int = dataclasses.field(default=0, init=False)
    _spool: tempfile.TemporaryDirectory[str] | None = dataclasses.field(default=None, init=False)
    _streams: dict[str, Any] = dataclasses.field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        self._spool = tempfile.TemporaryDirectory(prefix="bitstorm-writer-")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._spool is not None  # __enter__ has run
        try:
            for stream in self._streams.values():
                stream.close()
            if kind is None and self._streams:
                self.snapshot = self._publish()
        finally:
            self._spool.cleanup()
            self._streams.clear()
            self._spool = None

    def write(self, rows: pd.DataFrame | pa.Table) -> None:
        """Add a piece: columns by name, `month` is derived, a missing nullable column is null.

        Raises DataError where a row breaks the schema, and then adds nothing of the piece.
        """
        if self._spool is None:
            raise UsageError("the writer is not open: use it as a context manager")
        piece = _to_stored_columns(rows, self._table, first=self._lines)
        if piece.num_rows == 0:
            return
        lines = pa.array(range(self._lines + 1, self._lines + 1 + piece.num_rows), pa.int64())
        self._lines += piece.num_rows
        piece = piece.append_column("line", lines)
        months = (
            piece.column("timestamp").to_numpy().astype("datetime64[ms]").astype("datetime64[M]")
        )
        for month in np.unique(months):
            self._stream(str(month)).write_table(piece.filter(pa.array(months == month)))

    def _stream(self, month: str) -> Any:
        if month not in self._streams:
            schema = arrow_schema(self._table).append(pa.field("line", pa.int64()))
            self._streams[month] = pa.ipc.new_file(str(self._path(month)), schema)
        return self._streams[month]

    def _path(self, month: str) -> Path:
        assert self._spool is not None
        return Path(self._spool.name) / f"{month}.arrow"

    def _rows_of(self, month: str) -> pa.Table:
        with pa.memory_map(str(self._path(month))) as source:
            rows = pa.ipc.open_file(source).read_all()
            return rows.sort_by([("timestamp", "ascending"), ("line", "ascending")])

    def _content_hash(self) -> str:
        """SHA-256 of the rows in the order of time; it does not depend on the pieces."""
        digest = hashlib.sha256()
        for month in sorted(self._streams):
            rows = self._rows_of(month).drop_columns(["line"])
            digest.update(f"{month}:{month_digest(rows, self._table)}\n".encode())
        return digest.hexdigest()

    def _publish(self) -> Snapshot:
        sha256 = self._content_hash()
        with writer_lock(self._root, wait_seconds=self._lock_seconds):
            while True:
                parent = snapshots.current(self._root)
                _check_parent(parent, self._table)
                ledger = snapshots.read_ledger(parent)
                if parent is not None and sha256 in ledger:
                    return parent
                # On a mount without locks another run may publish first: merge into its snapshot.
                with suppress(Overtaken):
                    return self._publish_onto(parent, sha256, ledger)

    def _publish_onto(
        self, parent: Snapshot | None, sha256: str, ledger: dict[str, dict[str, Any]]
    ) -> Snapshot:
        months = frozenset(self._streams)
        if parent is not None:
            snapshots.check_content(parent, months=months)

        def write(draft: Draft) -> Change:
            accepted = sum(self._merge_month(month, parent, sha256, draft) for month in months)
            tally = {
                "name": "make_batch_writer",
                "read": self._lines,
                "accepted": accepted,
                "duplicate": self._lines - accepted,
                "refused": 0,
            }
            new = {sha256: tally}
            return Change(months, with_lineage=True, batches=new, ledger={**ledger, **new})

        return publish(
            self._root,
            table=self._table,
            schema=self._schema,
            parent=parent,
            operation="write",
            write=write,
        )

    def _merge_month(self, month: str, parent: Snapshot | None, sha256: str, draft: Draft) -> int:
        """Write the month's winners and their lineage; return how many of them are this batch's."""
        new = self._rows_of(month)
        own = (
            ("batch", sha256, pa.string()),
            ("granularity_ms", self._granularity_ms, pa.int64()),
            ("fetched_at", self._fetched_at, pa.int64()),
        )
        for name, value, kind in own:
            new = new.append_column(name, pa.repeat(pa.scalar(value, kind), new.num_rows))
        pieces = [new]
        if parent is not None:
            data = [pq.ParquetFile(path).read() for path in parent.of_months({month})]
            lineage = [pq.ParquetFile(path).read() for path in parent.lineage_of_months({month})]
            if data:
                pieces.append(_with_lineage(pa.concat_tables(data), pa.concat_tables(lineage)))
        rows = pa.concat_tables([piece.select(new.column_names) for piece in pieces])
        rows = rows.sort_by(_RANK)
        first = np.append(True, np.diff(rows.column("timestamp").to_numpy()) != 0)
        winners = rows.filter(pa.array(first))
        name = f"part-{secrets.token_hex(8)}.parquet"
        for folder, table in ((draft.folder, self._table), (draft.lineage, LINEAGE)):
            target = folder / f"{PARTITION}={month}" / name
            target.parent.mkdir(parents=True)
            pq.write_table(winners.select(arrow_schema(table).names), target)
        accepted: int = pc.sum(pc.equal(winners.column("batch"), sha256)).as_py() or 0
        return accepted


def table_of(schema: Unischema) -> Table:
    """The Table of a Unischema. Raises UsageError for a field that a data set cannot have."""
    fields = []
    for name, field in schema.fields.items():
        if name == PARTITION:
            continue
        kind = None if field.shape not in ((), None) else _KINDS.get(np.dtype(field.numpy_dtype))
        if kind is None:
            raise UsageError(
                f"field {name} of the schema is {field.numpy_dtype} with shape {field.shape}; "
                f"expected a scalar of {', '.join(sorted(set(_KINDS.values())))}"
            )
        fields.append(Field(name, kind, "", bool(field.nullable)))
    if ("timestamp", "int64") not in [(f.name, f.kind) for f in fields]:
        raise UsageError(
            f"the schema has the fields {', '.join(schema.fields)}; "
            "expected an int64 field `timestamp` (Unix milliseconds, UTC) among them"
        )
    shapes = [(f.name, f.kind, f.nullable) for f in fields]
    if shapes == [(f.name, f.kind, f.nullable) for f in PRICES.stored]:
        return PRICES
    return Table(schema._name, (*fields, PRICES.field(PARTITION)))


def _with_lineage(data: pa.Table, lineage: pa.Table) -> pa.Table:
    """A month's rows with their lineage; the seal has checked that both have the same keys."""
    data, lineage = data.sort_by("timestamp"), lineage.sort_by("timestamp")
    for name in ("batch", "line", "granularity_ms", "fetched_at"):
        data = data.append_column(name, lineage.column(name))
    return data.replace_schema_metadata(None)


def _to_stored_columns(rows: pd.DataFrame | pa.Table, table: Table, *, first: int) -> pa.Table:
    """The rows with exactly the table's stored columns. Raises DataError where they differ."""
    wanted = arrow_schema(table)
    if not isinstance(rows, pa.Table):
        rows = pa.Table.from_pandas(rows, preserve_index=False)
    unknown = [name for name in rows.column_names if name not in (*wanted.names, PARTITION)]
    missing = [f.name for f in table.stored if not f.nullable and f.name not in rows.column_names]
    if unknown or missing:
        raise DataError(
            f"the rows have the columns {', '.join(rows.column_names)}: "
            + (f"{', '.join(missing)} missing" if missing else f"{', '.join(unknown)} unknown")
            + f"; expected {', '.join(wanted.names)}"
        )
    columns = []
    for field in table.stored:
        target = wanted.field(field.name).type
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, target))
            continue
        column = rows.column(field.name)
        try:
            # A double becomes the nearest float32, as in `ingest`; all other casts are exact.
            narrowed = pa.types.is_float64(column.type) and pa.types.is_float32(target)
            column = column.cast(target, safe=not narrowed)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"{field.name} is {column.type}, expected {target} ({first_line(error)})"
            ) from None
        _check_values(column, field, first=first)
        columns.append(column)
    return pa.table(columns, schema=wanted)


def _check_values(column: pa.ChunkedArray, field: Field, *, first: int) -> None:
    if field.nullable or len(column) == 0:
        return
    bad = np.asarray(column.is_null().to_numpy())
    if field.kind in ("float32", "float64"):
        values = pc.fill_null(column, 1).to_numpy()
        bad = bad | ~np.isfinite(values)
        if "> 0" in field.rule:
            bad = bad | (values <= 0)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(
            f"{field.name} of row {first + row + 1} is {column[row].as_py()!r}, expected "
            f"{field.rule if field.kind.startswith('float') and field.rule else 'a value'}; "
            f"{int(bad.sum())} such rows in this piece"
        )


def _check_parent(parent: Snapshot | None, table: Table) -> None:
    if parent is None:
        return
    manifest = parent.manifest
    if [f["name"] for f in manifest.schema] != table.names or (
        manifest.table == table.name and manifest.schema_hash != schema_hash(table)
    ):
        columns = ", ".join(field["name"] for field in manifest.schema)
        raise StoreError(
            f"{parent.root} holds {manifest.table} ({columns}), expected {table.name}: "
            "write into another data set"
        )
    if manifest.ledger is None:
        raise StoreError(
            f"{parent.root} is computed from other data and has no lineage: "
            "write into another data set"
        )
