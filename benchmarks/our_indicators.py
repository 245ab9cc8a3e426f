"""Bitstorm's indicators in a process of its own, with the settings of its session.

`python -m benchmarks.our_indicators MEMORY MASTER` keeps one session; each request names a `job`
and Parquet `files`: `indicators` (all columns of minutes or hours, their distance is `step_ms`) or
`windows` (averages and volatilities of minutes, of the `widths`), both to a sink.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from benchmarks.landing import MINUTE_MS
from benchmarks.process import serve
from bitstorm.core.settings import Spark
from bitstorm.core.workspace import file_url
from bitstorm.indicators import compute
from bitstorm.indicators.kernel import Grid
from bitstorm.indicators.windows import Blocks, in_blocks, with_windows
from bitstorm.spark.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

WIDTHS = (7, 24, 168)
MAX_GAP = 6


def table(spark: SparkSession, files: list[Path], step_ms: int) -> DataFrame:
    """The points of IndicatorSchema."""
    prices = spark.read.parquet(*map(file_url, files))
    grid = Grid(step_ms, MAX_GAP)
    # As the pipeline knows it from a snapshot's manifest.
    span = compute.span_of(*_first_and_last_ms(files), grid=grid)
    return compute.from_prices(prices, grid=grid, windows=WIDTHS, span=span)


def _first_and_last_ms(files: list[Path]) -> tuple[int, int]:
    metadata = [pq.read_metadata(file) for file in files]
    groups = [
        m.row_group(n).column(0).statistics for m in metadata for n in range(m.num_row_groups)
    ]
    return min(group.min for group in groups), max(group.max for group in groups)


def windows(points: DataFrame, *, widths: Sequence[int]) -> DataFrame:
    """Moving average and volatility of each width, as the library computes them over a grid."""
    from pyspark.sql import functions as F

    blocks = Blocks(before=max(widths))
    rows = points.select(F.expr(f"timestamp div {MINUTE_MS}").alias("index"), "price")
    found = in_blocks(rows, blocks).transform(with_windows, windows=tuple(widths))
    names = [f"{kind}_{width}" for width in widths for kind in ("ma", "volatility")]
    time = (F.col("index") * MINUTE_MS).alias("timestamp")
    return found.where(blocks.owned()).select(time, "price", *names)


def _indicators(spark: SparkSession, files: list[Path], request: dict[str, Any]) -> DataFrame:
    return table(spark, files, request["step_ms"])


def _windows(spark: SparkSession, files: list[Path], request: dict[str, Any]) -> DataFrame:
    return windows(spark.read.parquet(*map(file_url, files)), widths=request["widths"])


JOBS = {"indicators": _indicators, "windows": _windows}


def main(memory: str, master: str) -> None:
    conf: dict[str, str | int | float | bool] = {}
    if not master.startswith("local"):
        # As many partitions as a long series needs on a cluster, and no page of its own.
        conf |= {"spark.executor.memory": memory, "spark.ui.enabled": False}
        conf["spark.sql.shuffle.partitions"] = 200
    if master == "local[1]" and hasattr(os, "sched_setaffinity"):
        # Else the JVM's own threads and the Python worker would take a second core.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    settings = Spark(master=master, driver_memory=memory, conf=conf)
    with spark_session(app_name="benchmark", spark=settings) as spark:

        def run(request: dict[str, Any]) -> None:
            files = [Path(file) for file in request["files"]]
            found = JOBS[request["job"]](spark, files, request)
            found.write.format("noop").mode("overwrite").save()

        serve(run)


if __name__ == "__main__":
    main(*sys.argv[1:])
