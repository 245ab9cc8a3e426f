"""The seal's check of many rows as Spark tasks, month by month, so that the driver reads none."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from bitstorm.core.errors import SealBroken, SparkFailure
from bitstorm.core.schema import Table
from bitstorm.spark.context import is_cluster, slots
from bitstorm.spark.executors import ask_executors
from bitstorm.store.manifest import File
from bitstorm.store.seal import Checked, EachMonth, Month, check_month, in_threads

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

# Threads check so many rows in less than half a minute.
MANY_ROWS = 20_000_000
# What `check_month` imports.
NEEDED = ("bitstorm", "numpy", "pyarrow")
_TASKS_A_SLOT = 4
_ROW = "number int, problem string, record string"


def on_cluster(spark: SparkSession | None) -> EachMonth:
    """The check for a write of this session: tasks on a cluster whose executors can run them, where
    the months have many rows; else threads."""

    def each_month(table: Table, months: Sequence[Month]) -> Iterable[Checked]:
        if spark is not None and is_cluster(spark) and _can_run(spark, months):
            return in_tasks(spark, table, months)
        return in_threads(table, months)

    return each_month


def _can_run(spark: SparkSession, months: Sequence[Month]) -> bool:
    """Whether there are many rows, and every executor has the packages and sees the folder."""
    paths = [month.folder / path for month in months for path in month.paths]
    if sum(pq.read_metadata(path).num_rows for path in paths) < MANY_ROWS:
        return False
    try:
        found, silent = ask_executors(spark, NEEDED, months[0].folder)
    except SparkFailure:
        return False
    return not silent and all(one.sees and not one.lacks(NEEDED) for one in found)


def in_tasks(spark: SparkSession, table: Table, months: Sequence[Month]) -> Iterator[Checked]:
    """Check each month in a task, which reads the files under the driver's paths. Raises SealBroken
    as the threads do, SparkFailure where a task fails otherwise."""
    # Needs more packages, and the executors import this module.
    from bitstorm.spark.session import described_jobs

    count = len(months)
    # A task of its own for each month would cost more than the check of a month of minutes.
    tasks = min(count, _TASKS_A_SLOT * slots(spark))
    with described_jobs(spark, "seal"):
        found = spark.range(0, count, 1, tasks).mapInArrow(_task_of(table, months), _ROW).collect()
    for row in sorted(found, key=lambda row: int(row.number)):
        if row.problem is not None:
            raise SealBroken(row.problem)
        record = json.loads(row.record)
        files, lineage = (
            tuple(File(**file) for file in record[name]) for name in ("files", "lineage")
        )
        yield Checked(record["digest"], files, lineage)


def _task_of(
    table: Table, months: Sequence[Month]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function of a task: a row with the records, or with the problem as a sentence."""

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for batch in batches:
            for number in batch.column("id").to_pylist():
                problem = record = None
                try:
                    record = json.dumps(asdict(check_month(table, months[number])))
                except SealBroken as error:
                    # As an exception it would come back inside a traceback, and be tried again.
                    problem = str(error)
                columns = [
                    pa.array([number], pa.int32()),
                    pa.array([problem], pa.string()),
                    pa.array([record], pa.string()),
                ]
                yield pa.RecordBatch.from_arrays(columns, names=["number", "problem", "record"])

    return task
