"""Plain Spark in a process of its own, with Spark's own settings.

`python -m benchmarks.plain_spark MEMORY [MASTER]` keeps one session; each request names a `job`:
`ingest` (CSV → Parquet by month, no check) or `windows` (one window over all rows, to a sink).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.process import serve
from bitstorm.core.workspace import file_url

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SCHEMA = "timestamp bigint, price double, market_cap double, volume_24h double"


def windows(points: DataFrame, *, widths: Sequence[int]) -> DataFrame:
    """Moving average and volatility as the documentation of Spark's windows has them."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    ordered = Window.orderBy("timestamp")
    before = F.lag("exact").over(ordered)
    rows = (
        points.withColumn("exact", F.col("price").cast("double"))
        .withColumn("change", (F.col("exact") - before) / before)
        .withColumn("number", F.row_number().over(ordered))
    )
    columns = []
    for width in widths:
        last = ordered.rowsBetween(1 - width, 0)
        mean = F.when(F.col("number") >= width, F.avg("exact").over(last))
        spread = F.when(F.col("number") > width, F.stddev_samp("change").over(last))
        columns += [mean.alias(f"ma_{width}"), spread.alias(f"volatility_{width}")]
    return rows.select("timestamp", "price", *columns)


def _ingest(spark: SparkSession, request: dict[str, Any]) -> None:
    from pyspark.sql import functions as F

    source = file_url(Path(request["source"]))
    frame = spark.read.csv(f"{source}/*.csv", schema=SCHEMA, header=True)
    month = F.date_format(F.timestamp_millis("timestamp"), "yyyy-MM")
    target = file_url(Path(request["target"]))
    frame.withColumn("month", month).write.partitionBy("month").parquet(target)


def _windows(spark: SparkSession, request: dict[str, Any]) -> None:
    points = spark.read.parquet(*[file_url(Path(file)) for file in request["files"]])
    result = windows(points, widths=request["widths"])
    result.write.format("noop").mode("overwrite").save()


JOBS = {"ingest": _ingest, "windows": _windows}


def main(memory: str, master: str = "local[*]") -> None:
    from pyspark.sql import SparkSession

    builder = (
        SparkSession.builder.master(master)
        .config("spark.driver.memory", memory)
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.session.timeZone", "UTC")
    )
    if not master.startswith("local"):
        builder = builder.config("spark.executor.memory", memory)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    serve(lambda request: JOBS[request["job"]](spark, request))
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
