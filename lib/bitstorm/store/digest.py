"""Digests of rows: they depend on the rows alone, not on the files.

A month's digest is the SHA-256 over its rows in the order of time, column by column: one byte a row
that says whether the value is null, then the values in little-endian bytes (zero for a null, one
bit pattern for NaN). The data set's digest is the SHA-256 over `YYYY-MM` and digest of each month
with rows, so a commit hashes only the months that it rewrites.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitstorm.core.schema import Table


def month_digest(rows: pa.Table, table: Table) -> str:
    """The digest of one month's rows, which are in the order of time."""
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
    """The digest of a data set, from the digests of its months."""
    digest = hashlib.sha256()
    for month in sorted(months):
        digest.update(f"{month}:{months[month]}\n".encode())
    return digest.hexdigest()
