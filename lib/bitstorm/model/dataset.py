"""The blocks of a series as the rows of the converter's data set.

A block is one row (see `windowing`), so the data set takes about a float a point for any look-back,
and the same data set serves every part and every scaler.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
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
_LEFTOVER_SECONDS = 86_400
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
    with _private_folder(root) as folder:
        writer = rows.write.option("parquet.enable.dictionary", "false")
        writer.option("compression", "uncompressed").parquet(file_url(folder))
        with _converter(spark, folder) as converter:
            yield StoredBlocks(spec, converter, folder)


@contextmanager
def local_blocks(spec: WindowSpec, rows: Iterable[Columns]) -> Iterator[StoredBlocks]:
    """As `write_blocks`, without Spark: a file for each of `rows`, in a temporary folder."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with without_third_party_warnings():
        from petastorm.spark import SparkDatasetConverter
    with tempfile.TemporaryDirectory(prefix="bitstorm-") as name:
        folder = Path(name)
        for number, columns in enumerate(rows):
            table = {n: list(v) if v.ndim > 1 else v for n, v in columns.items()}
            pq.write_table(pa.table(table), folder / f"part-{number:05}.parquet")
        urls = [file_url(path) for path in _part_files(folder)]
        yield StoredBlocks(spec, SparkDatasetConverter(file_url(folder), urls, len(urls)), folder)


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


@contextmanager
def _converter(spark: SparkSession, folder: Path) -> Iterator[SparkDatasetConverter]:
    """The converter of the folder's files. It gets a path: from a DataFrame it would keep plan and
    folder for the whole process, and use them again after the folder is deleted. A path still needs
    the setting of the parent folder."""
    with without_third_party_warnings():
        from petastorm.spark import SparkDatasetConverter, make_spark_converter

    spark.conf.set(SparkDatasetConverter.PARENT_CACHE_DIR_URL_CONF, file_url(folder.parent))
    link = None if _PLAIN.fullmatch(str(folder)) else _make_plain_link(folder)
    try:
        place = folder if link is None else link / folder.name
        with without_third_party_warnings():
            converter = make_spark_converter(file_url(place))
        converter.file_urls[:] = [file_url(place / path.name) for path in _part_files(folder)]
        yield converter
    finally:
        if link is not None:
            shutil.rmtree(link, ignore_errors=True)


def _make_plain_link(folder: Path) -> Path:
    """Make a folder with a plain path and a link to this folder: the converter quotes the paths of
    its files, and does not find them where that changes the path, as with a space."""
    link = Path(tempfile.mkdtemp(prefix="bitstorm-"))
    (link / folder.name).symlink_to(folder.absolute(), target_is_directory=True)
    return link


@contextmanager
def _private_folder(root: Path) -> Iterator[Path]:
    """The path of a new folder under `root`, deleted after the block. Deletes the folders of killed
    processes, too: the kernel has freed their locks, and they are old. On a mount without locks
    only the age decides."""
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    for lock in root.glob("*.lock"):
        with suppress(OSError), lock.open() as stream:
            old = time.time() - lock.stat().st_mtime > _LEFTOVER_SECONDS
            if old and durable_io.lock(stream.fileno(), wait_seconds=0):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink()
    folder = root / secrets.token_hex(8)
    lock = folder.with_suffix(".lock")
    with lock.open("x") as stream:
        durable_io.lock(stream.fileno())
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)
