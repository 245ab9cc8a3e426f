"""Folds and trials as Spark tasks: each is a job of one task; its result comes back by Arrow."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bitstorm.backtest.fold import Work, run_fold
from bitstorm.backtest.folds import Fold
from bitstorm.core.errors import BitstormError, DataError, ModelError
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.model import backend
from bitstorm.spark.context import slots
from bitstorm.spark.session import described_jobs

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

_RECORD = b"bitstorm"
_ERRORS = {error.__name__: error for error in (DataError, ModelError)}


@dataclass(frozen=True)
class Done:
    """A finished fold: its Parquet file, which holds the `record` of the fit, too."""

    fold: Fold
    record: Mapping[str, Any]
    content: bytes


@dataclass(frozen=True)
class Job:
    """The work of one task: `run` gives a record, for JSON, and the bytes of a file. `name` stands
    before the sentence of its failure."""

    name: str
    run: Callable[[], tuple[Mapping[str, Any], bytes]]


def run_folds(spark: SparkSession, work: Work, folds: Sequence[Fold]) -> Iterator[Done]:
    """The folds, each as soon as its task has ended; failures as in `run_jobs`. With
    `Work.in_process` one after the other in this process."""
    if work.in_process:
        yield from (run(work, fold) for fold in folds)
        return
    # The longest training first, so that no core waits for it alone.
    ordered = sorted(folds, key=lambda fold: fold.train_from - fold.train_until)
    jobs = [Job(f"fold {fold.number}", partial(_run_fold, work, fold)) for fold in ordered]
    for place, record, content in run_jobs(spark, jobs):
        yield Done(ordered[place], record, content)


def _run_fold(work: Work, fold: Fold) -> tuple[Mapping[str, Any], bytes]:
    done = run(work, fold)
    return done.record, done.content


def run_jobs(
    spark: SparkSession, jobs: Sequence[Job]
) -> Iterator[tuple[int, dict[str, Any], bytes]]:
    """The place, the record and the bytes of each job, as soon as its task has ended; as many at
    once as Spark has cores.

    Where one fails, the tasks that have begun are finished before the error is raised: DataError
    and ModelError of the job, else as Spark's jobs.
    """
    # A job of Spark for each: one for all would give its results only at the end.
    threads = max(1, min(len(jobs), slots(spark)))
    with ThreadPoolExecutor(max_workers=threads) as pool:
        begun = {pool.submit(_run_in_spark, spark, job): place for place, job in enumerate(jobs)}
        failure: BaseException | None = None
        try:
            for future in as_completed(begun):
                if future.cancelled():
                    continue
                if future.exception() is None:
                    yield (begun[future], *future.result())
                    continue
                failure = failure or future.exception()
                for other in begun:
                    other.cancel()
        finally:
            for other in begun:
                other.cancel()
        if failure is not None:
            raise failure


_ROW = "problem string, record string, content binary"


def _run_in_spark(spark: SparkSession, job: Job) -> tuple[dict[str, Any], bytes]:
    with described_jobs(spark, job.name):
        (row,) = spark.range(0, 1, 1, 1).mapInArrow(_task_of(job.run), _ROW).collect()
    if row.problem is not None:
        name, text = row.problem.split(" ", 1)
        raise _ERRORS.get(name, BitstormError)(f"{job.name}: {text}")
    return json.loads(row.record), bytes(row.content)


def _task_of(
    run: Callable[[], tuple[Mapping[str, Any], bytes]],
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function of a task: a row with record and bytes, or with the problem as a sentence."""

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for _ in batches:
            pass
        problem = record = content = None
        try:
            found, content = run()
            record = json.dumps(found)
        except BitstormError as error:
            # As an exception it would come back inside a traceback, and Spark would try again.
            problem = f"{type(error).__name__} {error}"
        yield pa.RecordBatch.from_arrays(
            [
                pa.array([problem], pa.string()),
                pa.array([record], pa.string()),
                pa.array([content], pa.binary()),
            ],
            names=["problem", "record", "content"],
        )

    return task


def run(work: Work, fold: Fold) -> Done:
    """Run the fold in this process. With one thread, from now on, the bits are the same anywhere.
    The driver's threads stay: TensorFlow has begun to compute there, and allows no change."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    hush_loggers()
    if not work.in_process:
        # The volatility's network is TensorFlow's.
        for name in {work.training.backend, *(["tensorflow"] if work.volatility else [])}:
            backend.use_one_thread(name)
    with without_third_party_warnings():
        frame, record = run_fold(work, fold)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.replace_schema_metadata({_RECORD: json.dumps(record)})
    with closing(io.BytesIO()) as stream:
        pq.write_table(table, stream, compression="zstd")
        return Done(fold, record, stream.getvalue())


def record_of(table: pa.Table) -> dict[str, Any]:
    """The record of the fit in a fold's file. Raises KeyError or ValueError where it has none."""
    found: dict[str, Any] = json.loads((table.schema.metadata or {})[_RECORD])
    return found
