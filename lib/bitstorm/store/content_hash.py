"""The digest of rows: the same for the same rows, however they arrived and were cut into files.

A month's digest is the SHA-256 over its rows by time: all values of one column after another, each
in little-endian bytes, after one byte a row that says whether it is null (a null's value is zero,
NaN has one bit pattern). The data set's digest is the SHA-256 over `YYYY-MM` and digest of each
month that has rows, so a commit only hashes the months that it rewrites.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bitstorm.core.schema import Table

if TYPE_CHECKING:
    import pyarrow as pa


def month_digest(rows: pa.Table, table: Table) -> str:
    """Of one month's rows, already in the order of time. Columns go by the table's order."""
    import pyarrow as pa
    import pyarrow.compute as pc

    digest = hashlib.sha256(f"{table.name}:{rows.num_rows}\n".encode())
    for field in table.stored:
        column = rows.column(field.name).combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = pa.concat_arrays(column.chunks) if column.num_chunks else column.chunk(0)
        nulls = np.asarray(column.is_null().to_numpy(zero_copy_only=False), dtype=np.uint8)
        digest.update(f"{field.name}:{field.kind}\n".encode())
        digest.update(nulls.tobytes())
        if field.kind == "string":
            for text in column.to_pylist():
                raw = b"" if text is None else text.encode()
                digest.update(len(raw).to_bytes(8, "little") + raw)
            continue
        if field.kind == "bool":
            column = column.cast(pa.uint8())
        filled = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
        if field.kind in ("float32", "float64"):
            filled = np.where(np.isnan(filled), np.array(np.nan, filled.dtype), filled)
        digest.update(filled.astype(filled.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def dataset_digest(months: Mapping[str, str]) -> str:
    """Of a data set, from the digests of its months."""
    digest = hashlib.sha256()
    for month in sorted(months):
        digest.update(f"{month}:{months[month]}\n".encode())
    return digest.hexdigest()
