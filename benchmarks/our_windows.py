"""Bitstorm's windows in a process of its own, with the settings of its session.

`python -m benchmarks.our_windows MEMORY MASTER` keeps one session; each request names Parquet
`files` of minutes and the `widths` of the windows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.landing import MINUTE_MS
from benchmarks.process import serve
from bitstorm.core.settings import Spark
from bitstorm.core.workspace import file_url
from bitstorm.spark.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def windows(points: DataFrame, *, widths: Sequence[int]) -> DataFrame:
    """Moving average and volatility of each width, as the library computes them over a grid."""
    from pyspark.sql import functions as F

    from bitstorm.indicators.windows import Blocks, in_blocks, with_windows

    blocks = Blocks(before=max(widths))
    rows = points.select(F.expr(f"timestamp div {MINUTE_MS}").alias("index"), "price")
    found = in_blocks(rows, blocks).transform(with_windows, windows=tuple(widths))
    names = [f"{kind}_{width}" for width in widths for kind in ("ma", "volatility")]
    time = (F.col("index") * MINUTE_MS).alias("timestamp")
    return found.where(blocks.owned()).select(time, "price", *names)


def _run(spark: SparkSession, request: dict[str, Any]) -> None:
    points = spark.read.parquet(*[file_url(Path(file)) for file in request["files"]])
    result = windows(points, widths=request["widths"])
    result.write.format("noop").mode("overwrite").save()


def main(memory: str, master: str) -> None:
    conf: dict[str, str | int | float | bool] = {}
    if not master.startswith("local"):
        # As many partitions as a long series needs on a cluster, and no page of its own.
        conf |= {"spark.executor.memory": memory, "spark.ui.enabled": False}
        conf["spark.sql.shuffle.partitions"] = 200
    settings = Spark(master=master, driver_memory=memory, conf=conf)
    with spark_session(app_name="benchmark", spark=settings) as spark:
        serve(lambda request: _run(spark, request))


if __name__ == "__main__":
    main(*sys.argv[1:])
