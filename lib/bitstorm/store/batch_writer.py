"""`make_batch_writer`: rows into a data set without Spark or a JVM.

Rules, files, lineage, seal and manifests are the same as those of `ingest`, so the two can take
turns. Temporary files hold the rows by month, so a long stream of pieces needs the memory of one
month.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bitstorm.core import durable_io
from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import DataError, Overtaken, StoreError, UsageError
from bitstorm.core.file_system import Root
from bitstorm.core.schema import LINEAGE, PARTITION, PRICES, Field, Kind, Table, numpy_type
from bitstorm.core.settings import Ingest
from bitstorm.core.time import now_ms
from bitstorm.core.workspace import Workspace, check_petastorm_reads, local_path
from bitstorm.store import rejects, snapshots
from bitstorm.store.digest import month_digest
from bitstorm.store.manifest import schema_hash
from bitstorm.store.publish import Change, Draft, publish
from bitstorm.store.row_rules import checked_rows, likely_unit
from bitstorm.store.seal import arrow_schema
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
    ("line", "descending"),
]
_NAME = "make_batch_writer"
_SPOOL, _LOCK, _REFUSED = "bitstorm-writer-", ".lock", "refused.jsonl"
_LEFTOVER_SECONDS = 60


def make_batch_writer(
    dataset_url: str | Root,
    schema: Unischema,
    *,
    granularity_ms: int | None = None,
    fetched_at: int | None = None,
    lock_seconds: float = 60.0,
) -> BatchWriter:
    """A context manager whose `write(rows)` takes pandas frames or Arrow tables in pieces.

    `dataset_url` is a data set's root (a path or `file://` URL), created if needed; `schema` a
    Unischema of scalars with an int64 `timestamp` (Unix ms, UTC), such as `BitcoinSchema`. The end
    of the block publishes all good rows as one new snapshot on top of the newest; after an error it
    publishes nothing. `granularity_ms` and `fetched_at` (Unix ms) decide between rows of the same
    time, as in `ingest`; of rows of one time in this batch the last one counts.

    A row that breaks a rule of `ingest` (a time before 2009 or over 300 s after `fetched_at`, or
    after now without it; a price that is not finite and above zero) is refused. Refused rows are
    kept with the reason in `rejects/rows/` of the workspace where the data set is its `prices`,
    else in `rejects/rows/` of the data set. A UserWarning counts them, and the rows of one time
    with different prices. Raises UsageError for an unusable schema, location or `fetched_at`,
    DataError where all rows are refused, StoreError when another run holds the lock for over
    `lock_seconds`.
    """
    root, table = local_path(str(dataset_url), error=UsageError), table_of(schema)
    check_petastorm_reads(root, error=UsageError)
    if fetched_at is not None and (unit := likely_unit(fetched_at)):
        raise UsageError(
            f"fetched_at is {fetched_at}, which looks like {unit}; expected Unix milliseconds"
        )
    return BatchWriter(root, table, schema, granularity_ms, fetched_at, lock_seconds)


@dataclasses.dataclass
class BatchWriter:
    """See `make_batch_writer`. After the block, `snapshot` is the published one, or the current one
    where the data set already has the same batch; `tally` counts the batch's rows: read = accepted
    + duplicate + superseded + refused; `rejects` is the file of the refused rows, None without."""

    _root: Path
    _table: Table
    _schema: Unischema
    _granularity_ms: int | None
    _fetched_at: int | None
    _lock_seconds: float
    snapshot: Snapshot | None = dataclasses.field(default=None, init=False)
    tally: Mapping[str, Any] = dataclasses.field(default_factory=dict, init=False)
    rejects: Path | None = dataclasses.field(default=None, init=False)
    _lines: int = dataclasses.field(default=0, init=False)
    _refused: int = dataclasses.field(default=0, init=False)
    _seen_ms: int = dataclasses.field(default=0, init=False)
    _spool: Path | None = dataclasses.field(default=None, init=False)
    _closing: ExitStack = dataclasses.field(default_factory=ExitStack, init=False)
    _streams: dict[str, Any] = dataclasses.field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        _delete_leftovers()
        self._spool = Path(self._closing.enter_context(tempfile.TemporaryDirectory(prefix=_SPOOL)))
        self._closing.enter_context(durable_io.file_lock(self._spool / _LOCK))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._closing:
                for stream in self._streams.values():
                    stream.close()
                if kind is None and self._lines:
                    self.snapshot = self._publish()
        finally:
            self._streams.clear()
            self._spool = None
        if kind is None and (notes := self._notes()):
            warnings.warn(notes, UserWarning, stacklevel=2)

    def write(self, rows: pd.DataFrame | pa.Table) -> None:
        """Add a piece: columns by name, `month` is derived, a missing nullable column is null.

        `timestamp` is Unix milliseconds, or datetimes of any unit and zone (naive ones in UTC), and
        may be the frame's index; `price_usd` is another name of `price`, so that the frame of
        `prepare_bitcoin_df` fits. Raises DataError where a column is missing, unknown, repeated or
        of another type, or where the times are integers in another unit, and then adds nothing of
        the piece.
        """
        if self._spool is None:
            raise UsageError("the writer is not open: use it as a context manager")
        seen_ms = now_ms() if self._fetched_at is None else self._fetched_at
        piece, refused = checked_rows(
            rows,
            self._table,
            first=self._lines + 1,
            not_after_ms=seen_ms + int(Ingest().future_seconds * 1000),
        )
        with (self._spool / _REFUSED).open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in refused)
        self._lines += piece.num_rows + len(refused)
        self._refused += len(refused)
        self._seen_ms = seen_ms
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
        return self._spool / f"{month}.arrow"

    def _rows_of(self, month: str) -> pa.Table:
        with pa.memory_map(str(self._path(month))) as source:
            rows = pa.ipc.open_file(source).read_all()
            return rows.sort_by([("timestamp", "ascending"), ("line", "ascending")])

    def _content_hash(self) -> str:
        """SHA-256 of the good rows in the order of time, and of the refused ones.

        It does not depend on the pieces.
        """
        digest = hashlib.sha256()
        for month in sorted(self._streams):
            rows = self._rows_of(month).drop_columns(["line"])
            digest.update(f"{month}:{month_digest(rows, self._table)}\n".encode())
        for row in self._refused_rows():
            digest.update(f"{row['text']}\n".encode())
        return digest.hexdigest()

    def _refused_rows(self) -> Iterator[dict[str, Any]]:
        assert self._spool is not None
        with (self._spool / _REFUSED).open(encoding="utf-8") as stream:
            yield from map(json.loads, stream)

    def _save_refused(self, sha256: str) -> None:
        """Keep the refused rows as `ingest` does."""
        facts = {
            "file": _NAME,
            "columns": [field.name for field in self._table.stored],
            "seen_ms": self._seen_ms,
            "granularity_ms": self._granularity_ms,
            "fetched_at": self._fetched_at,
        }
        rows = ({**row, "batch": sha256} for row in self._refused_rows())
        rejects.save_rows(self._rejects_folder, rows, facts={sha256: facts})

    @property
    def _rejects_folder(self) -> Path:
        workspace = Workspace(self._root.parent)
        return workspace.rejects if workspace.prices == self._root else self._root / "rejects"

    def _notes(self) -> str:
        """What the caller should know of the batch; empty where all rows are accepted or known."""
        refused, superseded = (self.tally.get(name) for name in ("refused", "superseded"))
        notes = []
        if refused:
            notes.append(
                f"{refused:,} of {self.tally['read']:,} rows are refused; the reasons are in "
                f"{self.rejects}"
            )
        if superseded:
            notes.append(
                f"{superseded:,} rows have the time of a later row of this batch and another "
                "price: the last row of each time counts"
            )
        return "; ".join(notes)

    def _publish(self) -> Snapshot:
        sha256 = self._content_hash()
        with writer_lock(self._root, wait_seconds=self._lock_seconds):
            while True:
                parent = snapshots.current(self._root)
                _check_parent(parent, self._table)
                ledger = snapshots.read_ledger(parent)
                if self._refused:
                    self.rejects = rejects.rows_path(self._rejects_folder, sha256, _NAME)
                if parent is not None and sha256 in ledger:
                    self.tally = ledger[sha256]
                    return parent
                if self._refused:
                    self._save_refused(sha256)
                if not self._streams:
                    first = next(self._refused_rows())["reason"]
                    raise DataError(
                        f"all {self._lines:,} rows are refused, the first one because {first}; "
                        f"they are in {self.rejects}, and nothing was published"
                    )
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
            merged = [self._merge_month(month, parent, sha256, draft) for month in months]
            outcomes = zip(snapshots.OUTCOMES, map(sum, zip(*merged, strict=True)), strict=True)
            tally = {"name": _NAME, "read": self._lines, **dict(outcomes), "refused": self._refused}
            new = {sha256: tally}
            self.tally = tally
            return Change(months, with_lineage=True, batches=new, ledger={**ledger, **new})

        return publish(
            self._root,
            table=self._table,
            schema=self._schema,
            parent=parent,
            operation="write",
            write=write,
        )

    def _merge_month(
        self, month: str, parent: Snapshot | None, sha256: str, draft: Draft
    ) -> tuple[int, ...]:
        """Write the month's winners and their lineage; return the number of this batch's rows by
        their outcome."""
        new = self._rows_of(month)
        facts = (
            ("batch", sha256, pa.string()),
            ("granularity_ms", self._granularity_ms, pa.int64()),
            ("fetched_at", self._fetched_at, pa.int64()),
        )
        for name, value, kind in facts:
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
        own = pc.equal(rows.column("batch"), sha256)
        lost = ~first[own.to_numpy()]
        superseded = self._superseded(rows.filter(own))
        return int((~lost).sum()), int((lost & ~superseded).sum()), int(superseded.sum())

    def _superseded(self, own: pa.Table) -> np.ndarray:
        """Which of the batch's rows differ in price from its last row of the same time, bool (n,).

        The rows are in the order of `_RANK`. In a table without a price all columns are compared.
        """
        places = np.arange(own.num_rows)
        first = np.diff(own.column("timestamp").to_numpy(), prepend=-1) != 0
        kept = own.take(pa.array(np.maximum.accumulate(np.where(first, places, 0))))
        names = [field.name for field in self._table.stored]
        different = np.zeros(own.num_rows, bool)
        for name in ["price"] if "price" in names else names:
            values, others = own.column(name), kept.column(name)
            same = pc.fill_null(pc.equal(values, others), False)
            both = pc.and_(values.is_null(), others.is_null())
            different |= ~pc.or_(same, both).to_numpy()
        return different


def _delete_leftovers() -> None:
    """Delete the temporary files of killed writers: the kernel has freed their locks."""
    for spool in Path(tempfile.gettempdir()).glob(f"{_SPOOL}*"):
        # Another user's folder, or one that another writer deletes now.
        with suppress(OSError):
            if time.time() - spool.stat().st_mtime < _LEFTOVER_SECONDS:
                continue
            with (spool / _LOCK).open("a") as stream:
                if durable_io.lock(stream.fileno(), wait_seconds=0):
                    shutil.rmtree(spool)


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
