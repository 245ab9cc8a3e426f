"""A frame that is computed once and read several times."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.core import durable_io
from bitstorm.core.workspace import file_url
from bitstorm.spark import connect

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@contextmanager
def kept(frame: DataFrame, cache: Path) -> Iterator[DataFrame]:
    """The frame's rows for the block, computed once: persisted, in memory and on disk. Where a
    server refuses to cache, they are Parquet files under `cache`, and lose their order.
    """
    from pyspark import StorageLevel

    try:
        rows = frame.persist(StorageLevel.MEMORY_AND_DISK)
    except connect.errors() as error:
        if not connect.refuses(error):
            raise
    else:
        try:
            yield rows
        finally:
            rows.unpersist()
        return
    with durable_io.private_folder(cache / "stages") as folder:
        frame.write.parquet(file_url(folder))
        yield frame.sparkSession.read.schema(frame.schema).parquet(file_url(folder))
