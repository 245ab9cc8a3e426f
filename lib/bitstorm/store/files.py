"""Plain CSV and Parquet files, for notebooks and small programs; a Spark frame as one CSV."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bitstorm.core import durable_io, errors
from bitstorm.core.errors import SnapshotDamaged, SnapshotMissing, StoreError, UsageError
from bitstorm.core.workspace import check_petastorm_reads, local_path
from bitstorm.store.petastorm_io import read_batches
from bitstorm.store.snapshots import current, part_files

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


PARQUET_NAME = "data.parquet"
_CSV_ENDINGS = (".csv", ".csv.gz")


def save_to_csv(df: pd.DataFrame, output_dir: str, filename: str | None = None) -> str:
    """Write `df` as UTF-8 CSV into a folder, created if needed, and return the full path.

    Without `filename` the name is `bitcoin_prices_YYYYmmdd_HHMMSS_ffffff.csv`, the current time in
    UTC. An existing file is replaced atomically. A named index (as from `prepare_bitcoin_df`)
    becomes a column, an unnamed one is left out. Raises StoreError for a name with folders, or
    where the file cannot be written.
    """
    if filename is None:
        # With microseconds, so that two calls in a second get two names.
        filename = f"bitcoin_prices_{datetime.now(UTC):%Y%m%d_%H%M%S_%f}.csv"
    if Path(filename).name != filename or filename in ("", ".."):
        raise StoreError(f"found the file name {filename!r}; expected one without folders")
    path = _make_folder(output_dir) / filename
    rows = _with_index(df)
    compression = "gzip" if path.suffix == ".gz" else None
    _write_file(path, lambda out: rows.to_csv(out, index=False, compression=compression, mode="wb"))
    return str(path)


def save_to_parquet_arrow(df: pd.DataFrame, output_path: str = "parquet") -> str:
    """Write `df` as `data.parquet` into a folder, created if needed, and return the full path.

    `output_path` is a `file://` URL or a plain path, by default `parquet` in the working folder.
    An existing `data.parquet` is replaced atomically. A named index becomes a column, an unnamed
    one is left out. petastorm's `make_batch_reader` can open the folder. Raises StoreError where
    the frame does not fit into Parquet, or the file cannot be written.
    """
    check_petastorm_reads(local_path(output_path, error=StoreError), error=StoreError)
    path = _make_folder(output_path) / PARQUET_NAME
    try:
        table = pa.Table.from_pandas(_with_index(df), preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise StoreError(
            f"the frame does not fit into Parquet ({error}); give each column one type"
        ) from None
    _write_file(path, lambda out: pq.write_table(table, out))
    return str(path)


def load_all_csvs_from_folder(folder_path: str) -> pd.DataFrame:
    """The rows of every `.csv` (and `.csv.gz`) of a folder, in the order of the names.

    Columns are joined by name. A file that does not load is skipped with a UserWarning. The frame
    is empty where the folder has no CSV. Raises StoreError where there is no such folder.
    """
    folder = local_path(folder_path, error=StoreError)
    if not folder.is_dir():
        raise StoreError(f"there is no folder {folder}; expected one with CSV files")
    frames = []
    for path in sorted(folder.iterdir()):
        if not path.name.lower().endswith(_CSV_ENDINGS) or path.name.startswith("."):
            continue
        try:
            frames.append(pd.read_csv(path, encoding="utf-8-sig"))
        except (OSError, EOFError, ValueError) as error:
            problem = errors.first_line(error)
            warnings.warn(f"{path.name} is skipped: {problem}", UserWarning, stacklevel=2)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def load_petastorm_batches_to_df(parquet_path: str) -> pd.DataFrame:
    """All record batches of a data set as one frame, with `month` from the paths.

    `parquet_path` is a plain path or a `file://` URL of a snapshot, of a data set's root (for its
    newest snapshot), of any folder with Parquet files, or of one Parquet file. Raises
    SnapshotMissing where there is no file, SnapshotDamaged where a file has changed, or has other
    rows than its footer states.
    """
    files = _petastorm_files(parquet_path)
    frames = list(_batches(files))
    if not frames:
        return _footer(files[0]).schema.to_arrow_schema().empty_table().to_pandas()
    return pd.concat(frames, ignore_index=True)


def load_from_parquet(input_dir: str) -> Iterator[pd.DataFrame]:
    """The record batches one by one, as frames; see `load_petastorm_batches_to_df`.

    The call looks up the files and raises SnapshotMissing; reading checks the rows.
    """
    return _batches(_petastorm_files(input_dir))


def _batches(files: Sequence[Path]) -> Iterator[pd.DataFrame]:
    """The record batches of the files that have rows; petastorm refuses files without rows."""
    filled = [path for path in files if _footer(path).num_rows]
    if filled:
        yield from read_batches(filled)


def get_parquet_columns(parquet_file_path: str) -> list[str]:
    """The column names in the footer of a Parquet file, or of the first one in a folder.

    Raises SnapshotMissing where there is none, SnapshotDamaged where the file is not Parquet.
    """
    return list(_footer(_parquet_files(parquet_file_path)[0]).schema.to_arrow_schema().names)


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise SnapshotDamaged(
            f"{path} cannot be read as Parquet ({errors.first_line(error)}); "
            "restore the file, or take it out of the folder"
        ) from None


def _parquet_files(location: str) -> list[Path]:
    """The file at a location, the files of the newest snapshot, or all files below a folder."""
    path = local_path(location, error=StoreError)
    if path.is_file():
        return [path]
    snapshot = current(path) if path.is_dir() else None
    # Of a snapshot only the files that its manifest names.
    files = part_files(path) if snapshot is None else snapshot.files
    if not files:
        raise SnapshotMissing(
            f"found no Parquet file under {path}; expected a snapshot, a data set's root, or a "
            "folder with *.parquet"
        )
    return files


def _petastorm_files(location: str) -> list[Path]:
    files = _parquet_files(location)
    for path in files:
        check_petastorm_reads(path, error=StoreError)
    return files


def _make_folder(location: str) -> Path:
    folder = local_path(location, error=StoreError)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be created ({error.strerror})") from None
    return folder


def _with_index(df: pd.DataFrame) -> pd.DataFrame:
    """The frame with its named index levels as first columns, and a plain index.

    A column wins over an index level of the same name.
    """
    unwanted = [
        number for number, name in enumerate(df.index.names) if name is None or name in df.columns
    ]
    if len(unwanted) == df.index.nlevels:
        return df.reset_index(drop=True)
    return df.droplevel(unwanted).reset_index() if unwanted else df.reset_index()


def _write_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    try:
        with durable_io.replacing(path) as stream:
            write(stream)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None


def check_target(path: Path) -> None:
    """Raise UsageError where a CSV file cannot be written, before any work is done."""
    if path.suffix != ".csv":
        raise UsageError(f"found the file name {path}; expected one that ends with .csv")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of {path} does not exist: create it, or choose another one")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"the folder of {path} is not writable: choose another one")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} exists and is not a file: choose another name")


def write_csv(rows: DataFrame, path: Path) -> int:
    """Write the rows in their order as UTF-8 CSV with a header; return their number.

    Times are int64, doubles have all digits, null is empty. The driver gets one partition of the
    rows at a time. An existing file is replaced atomically at the end. Raises StoreError where the
    file cannot be written.
    """
    count = 0
    try:
        with durable_io.replacing(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(rows.columns)
            for row in rows.toLocalIterator():
                writer.writerow(row)
                count += 1
            text.detach()
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror or error}): free some space, or choose a "
            "writable folder"
        ) from None
    return count
