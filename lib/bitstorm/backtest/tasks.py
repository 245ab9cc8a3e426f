"""The folds as Spark tasks: each is a job of one task, and its result comes back by Arrow."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitstorm.backtest.fold import Work, run_fold
from bitstorm.backtest.folds import Fold
from bitstorm.core.errors import BitstormError, DataError, ModelError
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.model import backend

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


def run_folds(spark: SparkSession, work: Work, folds: Sequence[Fold]) -> Iterator[Done]:
    """The folds, each as soon as its task has ended; as many at once as Spark has cores. With
    `Work.in_process` one after the other in this process.

    Where one fails, the tasks that have begun are finished before the error is raised: DataError
    and ModelError as `run_fold`, else as Spark's jobs.
    """
    if work.in_process:
        yield from (run(work, fold) for fold in folds)
        return
    # A job for each fold: one job for all would give its results only at the end. The longest
    # training first, so that no core waits for it alone.
    ordered = sorted(folds, key=lambda fold: fold.train_from - fold.train_until)
    threads = min(len(folds), spark.sparkContext.defaultParallelism)
    with ThreadPoolExecutor(max_workers=threads) as pool:
        begun = {pool.submit(_run_in_spark, spark, work, fold) for fold in ordered}
        failure: BaseException | None = None
        try:
            for future in as_completed(begun):
                if future.cancelled():
                    continue
                if future.exception() is None:
                    yield future.result()
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


def _run_in_spark(spark: SparkSession, work: Work, fold: Fold) -> Done:
    (row,) = spark.range(0, 1, 1, 1).mapInArrow(_task_of(work, fold), _ROW).collect()
    if row.problem is not None:
        name, text = row.problem.split(" ", 1)
        raise _ERRORS.get(name, BitstormError)(f"fold {fold.number}: {text}")
    return Done(fold, json.loads(row.record), bytes(row.content))


def _task_of(
    work: Work, fold: Fold
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The function of a task: a row with the fold's file, or with the problem as a sentence."""

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for _ in batches:
            pass
        problem = record = content = None
        try:
            done = run(work, fold)
            record, content = json.dumps(done.record), done.content
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
