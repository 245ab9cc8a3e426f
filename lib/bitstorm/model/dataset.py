"""The blocks of a series as the rows of the converter's data set, kept in the cache.

A block is one row (see `windowing`), so the data set takes about a float a point, whatever the
look-back; and one serves every part and any scaler.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitstorm.core.third_party_noise import third_party_warnings_hushed
from bitstorm.core.workspace import file_url
from bitstorm.model import cache as caches
from bitstorm.model.windowing import Frame

if TYPE_CHECKING:
    from petastorm.spark import SparkDatasetConverter
    from pyspark.sql import DataFrame, SparkSession

# Of the format: another one is another folder of the cache.
FORMAT = 1
BLOCKS_PER_FILE = 32
_PLAIN = re.compile(r"[A-Za-z0-9._/=-]+")


@dataclass(frozen=True)
class Stored:
    """A data set of blocks and petastorm's converter of it; `reused` tells that an earlier run had
    written it."""

    frame: Frame
    converter: SparkDatasetConverter
    folder: Path
    reused: bool

    def columns(self) -> Iterator[dict[str, np.ndarray]]:
        """The blocks' columns, a file at a time, in the order of the converter's files."""
        return (_columns(path, self.frame) for path in _parts(self.folder))


@contextmanager
def stored(
    spark: SparkSession,
    frame: Frame,
    rows: Callable[[], DataFrame],
    *,
    cache: Path,
    source: Mapping[str, Any],
    limit_bytes: int,
) -> Iterator[Stored]:
    """The data set of the blocks that `rows` makes (see `blocks.to_rows`), for the block.

    Kept under `cache` and used again: `source` names all that the points depend on. `rows` is
    asked only where there is none yet. See `cache.held` for what becomes of it.
    """
    recipe = {
        "format": FORMAT,
        "look_back": frame.look_back,
        "horizon": frame.horizon,
        "columns": list(frame.columns),
        # A window over returns alone needs one point more: the counts say so.
        "returns": "log_return" in frame.features,
        "size": frame.size,
        "step_ms": frame.step_ms,
        **source,
    }

    def write(folder: Path) -> dict[str, Any]:
        writer = rows().write.option("parquet.enable.dictionary", "false")
        writer.option("compression", "uncompressed").parquet(file_url(folder))
        return {}

    with (
        caches.held(cache, recipe, write, limit_bytes=limit_bytes) as held,
        _converter(spark, held.folder) as converter,
    ):
        yield Stored(frame, converter, held.folder, held.reused)


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
    with third_party_warnings_hushed():
        from petastorm.spark import SparkDatasetConverter, make_spark_converter

    spark.conf.set(SparkDatasetConverter.PARENT_CACHE_DIR_URL_CONF, file_url(folder.parent))
    link = None if _PLAIN.fullmatch(str(folder)) else _linked(folder)
    try:
        place = folder if link is None else link / folder.name
        with third_party_warnings_hushed():
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
