"""The blocks of a series as the rows of the converter's data set.

A block is one row (see `windowing`), so the data set takes about a float a point for any look-back,
and the same data set serves every part and every scaler.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.core import durable_io
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.core.workspace import file_url
from bitstorm.model.windowing import Columns, WindowSpec

if TYPE_CHECKING:
    from petastorm.spark import SparkDatasetConverter
    from pyspark.sql import DataFrame, SparkSession

BLOCKS_PER_FILE = 32
_PLAIN = re.compile(r"[A-Za-z0-9._/=-]+")


@dataclass(frozen=True)
class StoredBlocks:
    """A data set of blocks in `folder`, and petastorm's converter of it."""

    spec: WindowSpec
    converter: SparkDatasetConverter
    folder: Path

    def columns(self) -> Iterator[Columns]:
        """The columns of the blocks (see `windowing.Columns`), file by file, in the converter's
        order."""
        return (_columns(path, self.spec) for path in _part_files(self.folder))


@contextmanager
def write_blocks(
    spark: SparkSession, spec: WindowSpec, rows: DataFrame, *, root: Path
) -> Iterator[StoredBlocks]:
    """Write the rows of `blocks.to_rows` as a data set in a new folder under `root`, and delete it
    after the block. If the process is killed, the next training deletes it."""
    with durable_io.private_folder(root) as folder:
        writer = rows.write.option("parquet.enable.dictionary", "false")
        writer.option("compression", "uncompressed").parquet(file_url(folder))
        yield StoredBlocks(spec, _converter(spark, folder), folder)


@contextmanager
def local_blocks(spec: WindowSpec, rows: Iterable[Columns]) -> Iterator[StoredBlocks]:
    """As `write_blocks`, without Spark: a file for each of `rows`, in a temporary folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with tempfile.TemporaryDirectory(prefix="bitstorm-") as name:
        folder = Path(name)
        for number, columns in enumerate(rows):
            table = {n: list(v) if v.ndim > 1 else v for n, v in columns.items()}
            pq.write_table(pa.table(table), folder / f"part-{number:05}.parquet")
        yield StoredBlocks(spec, _converter_of_files(folder), folder)


def file_count(points: int, spec: WindowSpec) -> int:
    """The number of files for the blocks of so many points."""
    blocks = -(-points // spec.size)
    return max(min(4, blocks), -(-blocks // BLOCKS_PER_FILE))


def _part_files(folder: Path) -> list[Path]:
    """The part files, in the order of reading."""
    return sorted(folder.glob("*.parquet"))


def _columns(path: Path, spec: WindowSpec) -> Columns:
    import pyarrow.parquet as pq

    table = pq.read_table(path, partitioning=None)
    flat = {name: table[name].combine_chunks().flatten() for name in ("price", *spec.columns)}
    rows = {n: v.to_numpy(zero_copy_only=False).reshape(-1, spec.length) for n, v in flat.items()}
    return {"block": table["block"].to_numpy(), **rows}


def _converter(spark: SparkSession, folder: Path) -> SparkDatasetConverter:
    """The converter of the folder's files. It gets a path: from a DataFrame it would keep plan and
    folder for the whole process, and use them again after the folder is deleted. A path still needs
    the setting of the parent folder."""
    from pyspark.sql.utils import is_remote

    # make_spark_converter asks the driver's JVM for the names of the files. It quotes their paths,
    # and does not find them where that changes the path, as with a space.
    if is_remote() or not _PLAIN.fullmatch(str(folder)):
        return _converter_of_files(folder)
    with without_third_party_warnings():
        from petastorm.spark import SparkDatasetConverter, make_spark_converter

        spark.conf.set(SparkDatasetConverter.PARENT_CACHE_DIR_URL_CONF, file_url(folder.parent))
        converter = make_spark_converter(file_url(folder))
    converter.file_urls[:] = [file_url(path) for path in _part_files(folder)]
    return converter


def _converter_of_files(folder: Path) -> SparkDatasetConverter:
    """The converter of the folder's files, without Spark."""
    import pyarrow.parquet as pq

    with without_third_party_warnings():
        from petastorm.spark import SparkDatasetConverter

    files = _part_files(folder)
    rows = sum(pq.read_metadata(path).num_rows for path in files)
    return SparkDatasetConverter(file_url(folder), [file_url(path) for path in files], rows)
