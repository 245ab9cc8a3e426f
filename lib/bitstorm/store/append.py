"""Appends rows to a data set without lineage, without Spark: to `forecasts`."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import Overtaken, StoreError
from bitstorm.core.file_system import Root, files_of
from bitstorm.core.schema import PARTITION, Table
from bitstorm.store import snapshots
from bitstorm.store.manifest import schema_record
from bitstorm.store.publish import Change, Draft, publish
from bitstorm.store.seal import arrow_schema, keys_of
from bitstorm.store.snapshots import Snapshot


def append(root: Root, table: Table, rows: pa.Table, *, lock_seconds: float) -> int:
    """Publish a snapshot with these rows, too; a row whose key is stored already is left out.
    Returns the number of new rows; without one nothing is published.

    `rows` has the table's stored columns. Raises StoreError where another run holds the lock for
    over `lock_seconds` or the data set has other columns, SealBroken where a row breaks a rule.
    """
    rows = rows.select(arrow_schema(table).names).cast(arrow_schema(table))
    with writer_lock(files_of(root).folder, wait_seconds=lock_seconds):
        while True:
            parent = snapshots.current(root)
            if parent is not None and _shape(parent.manifest.schema) != _shape(
                schema_record(table)
            ):
                raise StoreError(
                    f"{root} has other columns than {table.name} of this version: move the folder "
                    "away to begin a new one"
                )
            by_month = _new_rows(rows, parent, table)
            if not by_month:
                return 0
            # On a mount without locks another run may publish first: append to its snapshot.
            with suppress(Overtaken):
                _publish(root, table, parent, by_month)
                return sum(new.num_rows for new in by_month.values())


def _shape(record: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What files depend on; the units are words, which a later version may change."""
    return [(field["name"], field["type"], field["nullable"]) for field in record]


def stored_rows(snapshot: Snapshot, table: Table, *, months: set[str] | None = None) -> pa.Table:
    """The stored columns of all rows, or of some months, in the order of the key."""
    files = snapshot.files if months is None else snapshot.of_months(months)
    pieces = [pq.ParquetFile(path).read() for path in files]
    rows = pa.concat_tables([arrow_schema(table).empty_table(), *pieces])
    return rows.sort_by([(name, "ascending") for name in table.key])


def _new_rows(rows: pa.Table, parent: Snapshot | None, table: Table) -> dict[str, pa.Table]:
    """The rows whose key the parent lacks, by month."""
    times = rows.column("timestamp").to_numpy().astype("datetime64[ms]").astype("datetime64[M]")
    found = {}
    for month in np.unique(times).astype(str):
        new = rows.filter(pa.array(times.astype(str) == month))
        if parent is not None:
            stored = keys_of(stored_rows(parent, table, months={month}), table)
            new = new.filter(pa.array(~np.isin(keys_of(new, table), stored)))
        if new.num_rows:
            found[month] = new
    return found


def _publish(
    root: Root, table: Table, parent: Snapshot | None, by_month: dict[str, pa.Table]
) -> None:
    from bitstorm.store.petastorm_io import unischema

    def write(draft: Draft) -> Change:
        for month, new in by_month.items():
            rows = new
            if parent is not None:
                rows = pa.concat_tables([stored_rows(parent, table, months={month}), new])
            target = draft.folder / f"{PARTITION}={month}" / f"part-{secrets.token_hex(8)}.parquet"
            target.parent.mkdir(parents=True)
            pq.write_table(rows.sort_by([(name, "ascending") for name in table.key]), target)
        return Change(frozenset(by_month))

    publish(
        root, table=table, schema=unischema(table), parent=parent, operation="append", write=write
    )
