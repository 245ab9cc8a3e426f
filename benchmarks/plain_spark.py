"""Plain Spark in a process of its own, with Spark's own settings: CSV → Parquet by month, no check.

`python -m benchmarks.plain_spark SOURCE TARGET MEMORY` keeps one session; for each line on standard
input it runs once and prints the seconds.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

from bitstorm.workspace import file_url

SCHEMA = "timestamp bigint, price double, market_cap double, volume_24h double"


@contextmanager
def plain_spark(source: Path, target: Path, *, memory: str) -> Iterator[Popen[str]]:
    """The process, which ends with the block; ask it with `seconds_of`."""
    arguments = [sys.executable, "-m", "benchmarks.plain_spark", str(source), str(target), memory]
    process = Popen(arguments, stdin=PIPE, stdout=PIPE, text=True)
    try:
        yield process
    finally:
        process.communicate()


def seconds_of(process: Popen[str]) -> float:
    """One run."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def _serve(source: Path, target: Path, memory: str) -> None:
    from pyspark.sql import SparkSession
    from pyspark.sql import functions as F

    spark = (
        SparkSession.builder.master("local[*]")
        .config("spark.driver.memory", memory)
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    for _ in sys.stdin:
        shutil.rmtree(target, ignore_errors=True)
        began = time.perf_counter()
        frame = spark.read.csv(f"{file_url(source)}/*.csv", schema=SCHEMA, header=True)
        month = F.date_format(F.timestamp_millis("timestamp"), "yyyy-MM")
        frame.withColumn("month", month).write.partitionBy("month").parquet(file_url(target))
        print(time.perf_counter() - began, flush=True)
    spark.stop()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
