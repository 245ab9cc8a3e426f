"""The only reader and writer of Petastorm data sets.

The reader opens an explicit list of file URLs: so petastorm unpickles no `_common_metadata`, and a
stale `_metadata` cannot hide a file. With a list petastorm drops the partition columns; the reader
restores them from the paths. It checks the number of rows against the footers.
"""

from __future__ import annotations

import atexit
import keyword
import time
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import StructField, StructType
from pyspark.sql.utils import is_remote

from bitstorm.core import third_party_noise
from bitstorm.core.errors import SnapshotDamaged, SnapshotMissing, UsageError, first_line
from bitstorm.core.schema import LINEAGE, PARTITION, PRICES, Table, numpy_type, spark_type
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.core.workspace import file_url
from bitstorm.spark.context import restored_hadoop_settings
from bitstorm.store.snapshots import Snapshot

with without_third_party_warnings():
    from petastorm import make_batch_reader
    from petastorm.codecs import ScalarCodec
    from petastorm.etl.dataset_metadata import materialize_dataset
    from petastorm.transform import TransformSpec
    from petastorm.unischema import Unischema, UnischemaField

# The settings that petastorm.etl.dataset_metadata changes while it writes.
_HADOOP_KEYS = (
    "parquet.summary.metadata.level",
    "parquet.enable.summary-metadata",
    "parquet.summary.metadata.propagate-errors",
    "parquet.block.size.row.check.min",
    "parquet.row-group.size.row.check.min",
    "parquet.block.size",
)

# Numeric columns with one value for all rows of a batch.
_SAME_IN_BATCH = ("granularity_ms", "fetched_at")


def unischema(table: Table) -> Unischema:
    """The petastorm schema of a table: scalars with the table's dtypes and nullability."""
    fields = [
        UnischemaField(f.name, numpy_type(f.kind), (), ScalarCodec(spark_type(f.kind)), f.nullable)
        for f in table.fields
    ]
    return Unischema(table.name, fields)


BitcoinSchema = unischema(PRICES)


def write_dataset(frame: DataFrame, folder: Path, table: Table, *, presorted: bool = False) -> None:
    """Write the frame's rows as a Petastorm data set, one file a month, sorted by time.

    `frame` has the table's columns; the files get exactly the table's types. `presorted` says that
    each month is already in one partition, sorted by time. The folder must not exist.
    """
    if is_remote():
        # petastorm sets Hadoop's settings in the driver's JVM. The seal makes the summaries anew.
        write_partitioned(frame, folder, table)
        return
    spark = frame.sparkSession
    with (
        without_third_party_warnings(),
        # After an error petastorm leaves its own, and later writes would get summary files.
        restored_hadoop_settings(spark, _HADOOP_KEYS),
        materialize_dataset(spark, file_url(folder), unischema(table), use_summary_metadata=True),
    ):
        write_partitioned(frame, folder, table, presorted=presorted)


def write_partitioned(
    frame: DataFrame, folder: Path, table: Table, *, presorted: bool = False
) -> None:
    """Write plain Parquet, one file a month, sorted by time."""
    columns = [F.col(f.name).cast(spark_type(f.kind)).alias(f.name) for f in table.fields]
    rows = frame.select(*columns)
    # A stage of a remote session may have lost the order.
    if not presorted or is_remote():
        rows = rows.repartition(PARTITION).sortWithinPartitions(PARTITION, "timestamp")
    writer = rows.write.mode("error").partitionBy(PARTITION)
    for field in table.stored:
        if field.kind != "string" and field.name not in _SAME_IN_BATCH:
            # Most numbers are unique, so a dictionary would only cost time.
            writer = writer.option(f"parquet.enable.dictionary#{field.name}", "false")
    writer.parquet(file_url(folder))


def read_spark(
    spark: SparkSession, snapshot: Snapshot, table: Table, *, months: set[str] | None = None
) -> DataFrame:
    """The snapshot's rows, or those of some months, with the table's columns and `month`."""
    files = snapshot.files if months is None else snapshot.of_months(months)
    return _read_files(spark, files, table)


def read_lineage(spark: SparkSession, snapshot: Snapshot, *, months: set[str]) -> DataFrame:
    """Batch and line of each row of these months: the columns of LINEAGE."""
    return _read_files(spark, snapshot.lineage_of_months(months), LINEAGE)


def _read_files(spark: SparkSession, files: Sequence[Path], table: Table) -> DataFrame:
    # With a schema Spark does not guess the type of `month`. Parquet columns are always nullable.
    schema = StructType([StructField(f.name, spark_type(f.kind)) for f in table.fields])
    if not files:
        # Of an empty list Spark would make rows with a Python on the executors.
        nothing = [F.lit(None).cast(field.dataType).alias(field.name) for field in schema]
        return spark.range(0).select(*nothing)
    return (
        spark.read.schema(schema)
        .option("basePath", file_url(files[0].parents[1]))
        .parquet(*[file_url(file) for file in files])
    )


def read_frame(snapshot: Snapshot, *, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The snapshot's rows, by time, as one pandas frame: all columns, or these, in this order.

    A column that may be null is float64 or object where a value is. Raises UsageError for a column
    that there is not, and as `read_batches`.
    """
    known = [field["name"] for field in snapshot.manifest.schema]
    wanted = known if columns is None else list(columns)
    if unknown := [name for name in wanted if name not in known]:
        raise UsageError(
            f"snapshot {snapshot.id} has no column {', '.join(unknown)}; it has {', '.join(known)}"
        )
    if not snapshot.files:
        return pd.DataFrame(columns=wanted)
    return pd.concat(list(read_batches(snapshot.files, columns=wanted)), ignore_index=True)


def batch_reader(snapshot: Snapshot, **options: Any) -> Any:
    """petastorm's own reader on the snapshot's files; `options` are those of `make_batch_reader`.

    By default one pass in the order of time, in the calling thread: petastorm's pool of threads
    can take "not begun" for "done" and end a pass without a row. `month` is put back, unless the
    caller selects fields or transforms rows. petastorm warns of pyarrow's old names on every read:
    the filters against that stay.
    """
    third_party_noise.install_filters()
    _let_threads_end()
    if not options.keys() & {"schema_fields", "transform_spec"}:
        options["transform_spec"] = TransformSpec(
            _with_month, edit_fields=[(PARTITION, np.str_, (), False)]
        )
    defaults = {"num_epochs": 1, "reader_pool_type": "dummy", "shuffle_row_groups": False}
    urls = [file_url(file) for file in snapshot.files]
    reader = make_batch_reader(urls, **{**defaults, **options})
    if "cache_type" not in options:
        # At the end of a `with` block petastorm would print about a cache that it does not have.
        reader.cleanup_cache = lambda: None
    return reader


def _with_month(rows: pd.DataFrame) -> pd.DataFrame:
    """A file is of one month, so a row group is."""
    month = pd.to_datetime(rows["timestamp"].iloc[0], unit="ms", utc=True).strftime("%Y-%m")
    return rows.assign(**{PARTITION: month})


def petastorm_name(name: str) -> bool:
    """Whether petastorm reads a column of this name: it makes it a field of a namedtuple."""
    usual = name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("_")
    # Python normalizes its identifiers.
    return usual and unicodedata.normalize("NFKC", name) == name


def petastorm_type(kind: pa.DataType) -> bool:
    """Whether petastorm reads such values unchanged. It makes a null text `None`, a time of a zone
    a naive one, and drops columns of other types."""
    types = pa.types
    if types.is_integer(kind):
        return types.is_signed_integer(kind) or kind.bit_width == 8
    if types.is_timestamp(kind):
        return kind.tz is None
    plain = (types.is_boolean, types.is_float32, types.is_float64, types.is_decimal, types.is_date)
    return any(check(kind) for check in (*plain, types.is_binary, types.is_fixed_size_binary))


def read_batches(
    files: Sequence[Path], *, columns: Sequence[str] | None = None
) -> Iterator[pd.DataFrame]:
    """Record batches of the files as pandas frames, through petastorm's `make_batch_reader`.

    One frame for each row group, in the order of the files. pyarrow adds the columns that petastorm
    would drop, change or refuse. Hive partition values (`month=2024-05` in a path) become string
    columns. `columns` limits the columns. Raises SnapshotMissing without files, SnapshotDamaged
    where a row group cannot be read, or has other rows than its footer states.
    """
    if not files:
        raise SnapshotMissing("found no Parquet file to read; expected at least one *.parquet")
    footers = ((file, pq.read_metadata(file)) for file in files)
    for schema, alike in groupby(footers, key=lambda pair: pair[1].schema.to_arrow_schema()):
        yield from _read_alike(list(alike), schema, columns)


def _read_alike(
    footers: Sequence[tuple[Path, pq.FileMetaData]],
    schema: pa.Schema,
    columns: Sequence[str] | None,
) -> Iterator[pd.DataFrame]:
    """`read_batches` of files of one schema."""
    files = [file for file, _ in footers]
    if repeated := {name for name in schema.names if schema.names.count(name) > 1}:
        raise SnapshotDamaged(
            f"{files[0]} has more than one column {', '.join(sorted(repeated))}; expected one of "
            "each name: write the file again with other names"
        )
    partitions = {folder: _partitions(folder) for folder in {file.parent for file in files}}
    hive = {name for found in partitions.values() for name in found}
    stored = [n for n in schema.names if n not in hive and (columns is None or n in columns)]
    plain = [n for n in stored if petastorm_name(n) and petastorm_type(schema.field(n).type)]
    rest = [name for name in stored if name not in plain]
    reader = _plain_reader(files, None if plain == schema.names else plain) if plain else None
    try:
        for file, number, rows in [*_row_groups(footers), (files[-1], None, 0)]:
            with without_third_party_warnings(), _named(file):
                batch = next(reader, None) if reader else None
                found = 0 if batch is None else len(batch[0])
                if reader and found != rows:
                    raise SnapshotDamaged(
                        f"read {found} rows, but the footer of {file} states {rows}: "
                        "the file has changed during the read; read again"
                    )
                if number is None:
                    return
                values = {} if batch is None else batch._asdict()
                values |= _read_rest(file, number, rest) if rest or not reader else {}
            frame = pd.DataFrame({n: values[n] for n in stored}, index=pd.RangeIndex(rows))
            for name, value in partitions[file.parent].items():
                if columns is None or name in columns:
                    frame[name] = value
            yield frame if columns is None else frame[list(columns)]
    finally:
        if reader:
            # The reader's context manager would print to standard output.
            reader.stop()
            reader.join()


@cache
def _let_threads_end() -> None:
    """Let pyarrow's threads release their buffers before Python ends: pyarrow 14 aborts the process
    where one of them then waits for the interpreter's lock."""
    atexit.register(time.sleep, 0.05)


def _plain_reader(files: Sequence[Path], columns: Sequence[str] | None) -> Any:
    _let_threads_end()
    with without_third_party_warnings():
        return make_batch_reader(
            [file_url(file) for file in files],
            schema_fields=None if columns is None else [f"^{name}$" for name in columns],
            # petastorm's thread pool can mistake "not started" for "done" and lose a pass. This
            # pool has no threads, and keeps the order of the files.
            reader_pool_type="dummy",
            shuffle_row_groups=False,
            num_epochs=1,
        )


def _read_rest(file: Path, number: int, columns: Sequence[str]) -> dict[str, pd.Series]:
    """The columns of one row group, through pyarrow."""
    with pq.ParquetFile(file) as parquet:
        table = parquet.read_row_group(number, columns=list(columns))
    return {name: table.column(name).to_pandas() for name in columns}


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Raise SnapshotDamaged with the file's name for an error of petastorm or pyarrow."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise SnapshotDamaged(
            f"{file} cannot be read ({first_line(error)}); restore the file, or take it out of the "
            "folder"
        ) from None


def _row_groups(
    footers: Sequence[tuple[Path, pq.FileMetaData]],
) -> list[tuple[Path, int | None, int]]:
    """File, number and rows of each row group that has rows."""
    sizes = [
        (file, number, footer.row_group(number).num_rows)
        for file, footer in footers
        for number in range(footer.num_row_groups)
    ]
    return [group for group in sizes if group[2]]


def _partitions(folder: Path) -> dict[str, str]:
    """Hive partition values of a path such as `…/year=2024/month=05`, outermost first."""
    found: dict[str, str] = {}
    for part in reversed(folder.parts):
        name, equals, value = part.partition("=")
        if not (equals and name):
            break
        found = {name: unquote(value), **found}
    return found
