"""The blocks of a series as the rows of the converter's data set.

A block is one row (see `windowing`), so the data set takes about a float a point, whatever the
look-back; and one serves every part and any scaler.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitstorm.core import durable_io
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.core.workspace import file_url
from bitstorm.model.windowing import Frame

if TYPE_CHECKING:
    from petastorm.spark import SparkDatasetConverter
    from pyspark.sql import DataFrame, SparkSession


BLOCKS_PER_FILE = 32
_LEFTOVER_SECONDS = 86_400
_PLAIN = re.compile(r"[A-Za-z0-9._/=-]+")


@dataclass(frozen=True)
class Stored:
    """A data set of blocks and petastorm's converter of it."""

    frame: Frame
    converter: SparkDatasetConverter
    folder: Path

    def columns(self) -> Iterator[dict[str, np.ndarray]]:
        """The blocks' columns, a file at a time, in the order of the converter's files."""
        return (_columns(path, self.frame) for path in _parts(self.folder))


@contextmanager
def stored(spark: SparkSession, frame: Frame, rows: DataFrame, *, root: Path) -> Iterator[Stored]:
    """The data set of the blocks in `rows` (see `blocks.to_rows`), in a folder of its own under
    `root`, for the block. The folder goes with it, or with the next training where this process is
    killed."""
    with _private_folder(root) as folder:
        writer = rows.write.option("parquet.enable.dictionary", "false")
        writer.option("compression", "uncompressed").parquet(file_url(folder))
        with _converter(spark, folder) as converter:
            yield Stored(frame, converter, folder)


def files_for(points: int, frame: Frame) -> int:
    """How many files the blocks of so many indexes go to."""
    blocks = -(-points // frame.size)
    return max(min(4, blocks), -(-blocks // BLOCKS_PER_FILE))


def _parts(folder: Path) -> list[Path]:
    """The part files, in the order that they are read in."""
    return sorted(folder.glob("*.parquet"))


def _columns(path: Path, frame: Frame) -> dict[str, np.ndarray]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, partitioning=None)
    columns = {"block": table["block"].to_numpy()}
    for name in ("price", *frame.columns):
        values = table[name].combine_chunks()
        columns[name] = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, frame.length)
    return columns


@contextmanager
def _converter(spark: SparkSession, folder: Path) -> Iterator[SparkDatasetConverter]:
    """Given a DataFrame, the converter would keep plan and folder for the whole process, and
    serve them again when the folder is gone. Given a path it keeps nothing, but insists on the
    setting; and nobody calls its `delete`, which would remove the folder."""
    with without_third_party_warnings():
        from petastorm.spark import SparkDatasetConverter, make_spark_converter

    spark.conf.set(SparkDatasetConverter.PARENT_CACHE_DIR_URL_CONF, file_url(folder.parent))
    link = None if _PLAIN.fullmatch(str(folder)) else _linked(folder)
    try:
        place = folder if link is None else link / folder.name
        with without_third_party_warnings():
            converter = make_spark_converter(file_url(place))
        converter.file_urls[:] = [file_url(place / path.name) for path in _parts(folder)]
        yield converter
    finally:
        if link is not None:
            shutil.rmtree(link, ignore_errors=True)


def _linked(folder: Path) -> Path:
    """A folder with a plain path and a link to this one: the converter looks for its files under
    the quoted form of their path, which is another where it has a space."""
    link = Path(tempfile.mkdtemp(prefix="bitstorm-"))
    (link / folder.name).symlink_to(folder.absolute(), target_is_directory=True)
    return link


@contextmanager
def _private_folder(root: Path) -> Iterator[Path]:
    """A new name under `root` for the block. Removes what killed processes have left there: the
    kernel frees a process's locks when it dies. On a mount without locks the age alone decides."""
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
