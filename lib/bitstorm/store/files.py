"""Plain CSV and Parquet files, for notebooks and small programs; a Spark frame as one CSV."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bitstorm.core import durable_io, errors
from bitstorm.core.errors import SnapshotDamaged, SnapshotMissing, StoreError, UsageError
from bitstorm.core.workspace import check_petastorm_reads, local_path
from bitstorm.store.petastorm_io import petastorm_name, petastorm_type, read_batches
from bitstorm.store.snapshots import current, part_files

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


PARQUET_NAME = "data.parquet"
_CSV_ENDINGS = (".csv", ".csv.gz")
# Values that come back from a CSV as the text of their Python form.
_NO_CELLS = (list, tuple, dict, set, bytes, np.ndarray)
# Types that petastorm drops, and those with the same values that it reads.
_READABLE = {
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.int64(),
    pa.null(): pa.string(),
    pa.large_string(): pa.string(),
    pa.large_binary(): pa.binary(),
}


def save_to_csv(df: pd.DataFrame, output_dir: str, filename: str | None = None) -> str:
    """Write `df` as UTF-8 CSV into a folder, created if needed, and return the full path.

    Without `filename` the name is `bitcoin_prices_YYYYmmdd_HHMMSS_ffffff.csv`, the current time in
    UTC. An existing file is replaced atomically. A named index (as from `prepare_bitcoin_df`)
    becomes a column; an unnamed one is left out, with a UserWarning unless it is of integers. A CSV
    has texts without types: a time comes back as an ISO text, and an empty text as null. Raises
    StoreError for a name with folders, for columns that no CSV can hold, and where the file cannot
    be written.
    """
    rows = _checked(df, output_dir)
    if filename is None:
        # With microseconds, so that two calls in a second get two names.
        filename = f"bitcoin_prices_{datetime.now(UTC):%Y%m%d_%H%M%S_%f}.csv"
    if not isinstance(filename, str) or Path(filename).name != filename or filename in ("", ".."):
        raise StoreError(f"found the file name {filename!r}; expected one without folders")
    path = _make_folder(output_dir) / filename
    for name in rows.select_dtypes("object"):
        nested = next((v for v in rows[name] if isinstance(v, _NO_CELLS)), None)
        if nested is not None:
            raise StoreError(
                f"the column {name} has a {type(nested).__name__}, which a CSV cell cannot hold; "
                "expected numbers, texts and times: give its elements columns of their own"
            )
    compression = "gzip" if path.suffix == ".gz" else None
    _write_file(path, lambda out: rows.to_csv(out, index=False, compression=compression, mode="wb"))
    return str(path)


def save_to_parquet_arrow(df: pd.DataFrame, output_path: str = "parquet") -> str:
    """Write `df` as `data.parquet` into a folder, created if needed, and return the full path.

    `output_path` is a `file://` URL or a plain path, by default `parquet` in the working folder. An
    existing `data.parquet` is replaced atomically. A named index becomes a column; an unnamed one
    is left out, with a UserWarning unless it is of integers. petastorm's `make_batch_reader` can
    open the folder, and `load_petastorm_batches_to_df` gives equal values: categories come back as
    their values, a null integer as NaN. (petastorm itself gives a null text as `None`, a time of a
    zone as naive UTC.) Raises StoreError for a column that petastorm cannot read, by its name or
    its type, and where the file cannot be written.
    """
    rows = _checked(df, output_path)
    check_petastorm_reads(local_path(output_path, error=StoreError), error=StoreError)
    try:
        table = pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise StoreError(
            f"the frame does not fit into Parquet ({error}); give each column one type"
        ) from None
    table = _for_petastorm(table)
    path = _make_folder(output_path) / PARQUET_NAME
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
            frames.append(_read_csv(path))
        except (OSError, EOFError, ValueError, pd.errors.ParserWarning) as error:
            problem = errors.first_line(error)
            warnings.warn(f"{path.name} is skipped: {problem}", UserWarning, stacklevel=2)
    if not frames:
        return pd.DataFrame()
    columns = list(dict.fromkeys(name for frame in frames for name in frame.columns))
    # A column without a value must not change the type of the same column in other files.
    filled = [frame.dropna(axis="columns", how="all") for frame in frames]
    return pd.concat(filled, ignore_index=True).reindex(columns=columns)


def _read_csv(path: Path) -> pd.DataFrame:
    """The whole file. Raises ParserWarning for rows with more values than the header."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        # Other float parsers miss the last digit of some numbers; an index column would move the
        # names where each row ends with a comma; reading in pieces warns of mixed types.
        how = {"float_precision": "round_trip", "index_col": False, "low_memory": False}
        return pd.read_csv(path, encoding="utf-8-sig", **how)


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
        schema = _footer(files[0]).schema.to_arrow_schema()
        return schema.empty_table().to_pandas(ignore_metadata=True)
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


def _checked(df: pd.DataFrame, folder: str) -> pd.DataFrame:
    """The frame `_with_index`. Raises StoreError for other arguments, and names that are no use."""
    if not isinstance(df, pd.DataFrame) or not isinstance(folder, str | Path):
        found = f"{type(df).__name__} and {type(folder).__name__}"
        raise StoreError(f"found {found}, expected a pandas DataFrame and the path of a folder")
    index = df.index
    if None in index.names and not pd.api.types.is_integer_dtype(index) and len(index):
        text = f"the index has no name and is left out; the first is {index[0]!r}. To keep it, "
        warnings.warn(text + 'name it: df.rename_axis("timestamp")', UserWarning, stacklevel=3)
    rows = _with_index(df)
    names = ["" if name is None else str(name) for name in rows.columns]
    wrong = sorted({name for name in names if names.count(name) > 1 or not name})
    if wrong or rows.columns.nlevels > 1 or (len(rows) and not names):
        raise StoreError(
            f"the frame has the columns {', '.join(map(repr, names)) or 'none'}; expected a name "
            "for each column, each one once: set df.columns to a list of names"
        )
    return rows


def _for_petastorm(table: pa.Table) -> pa.Table:
    """The table with types that petastorm reads. Raises StoreError where there are none."""
    wrong = {name: _usable_name(name) for name in table.column_names if not petastorm_name(name)}
    if wrong:
        raise StoreError(
            f"petastorm cannot read columns named {', '.join(map(repr, wrong))}; expected letters, "
            f"digits and _, with a letter first: df.rename(columns={wrong})"
        )
    for number, name in enumerate(table.column_names):
        column, kind = table.column(name), table.schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        kind = _READABLE.get(kind, kind)
        try:
            column = column.cast(kind)
            if pa.types.is_integer(kind) and column.null_count:
                # With a null the reader makes them doubles.
                column.cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise StoreError(
                f"petastorm cannot read the column {name} ({errors.first_line(error)}); convert it "
                "to texts or doubles"
            ) from None
        if not (petastorm_type(kind) or kind == pa.string() or pa.types.is_timestamp(kind)):
            raise StoreError(
                f"petastorm cannot read the column {name}, which is {kind}; expected numbers, "
                "texts, times or booleans: convert it, or give its elements columns of their own"
            )
        table = table.set_column(number, name, column)
    return table


def _usable_name(name: str) -> str:
    plain = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", name)).strip("_")
    return plain if petastorm_name(plain) else f"column_{plain}"


def _write_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    try:
        with durable_io.replacing(path) as stream:
            write(stream)
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error})") from None
    except UnicodeEncodeError as error:
        raise StoreError(f"a text of the frame is no Unicode ({error}); replace it") from None


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
