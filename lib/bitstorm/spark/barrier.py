"""Functions that run at the same time, each in a task of one barrier stage."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from bitstorm.core.errors import EnvironmentProblem, SparkFailure
from bitstorm.spark import connect
from bitstorm.spark.environment import is_local

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

# Spark refuses the first for a barrier stage. It never runs a barrier task twice at once, so the
# second would have no effect.
_REFUSED = ("spark.dynamicAllocation.enabled", "spark.speculation")
# The executors of a cluster register one after the other.
_WAIT_SECONDS, _NAP_SECONDS = 15.0, 0.5
_PYTHON_ERROR = re.compile(r"[A-Za-z_][A-Za-z_.]*(Error|Exception|Exit|Interrupt): ")


def check(spark: SparkSession, tasks: int) -> None:
    """Raise EnvironmentProblem where Spark cannot run so many tasks at the same time."""
    way = "or train with training.workers=1"
    if connect.remote_session() is not None:
        raise EnvironmentProblem(
            f"training.workers is {tasks}, which a Spark Connect session cannot run: train in a "
            f"job of spark-submit, {way}"
        )
    for name in _REFUSED:
        if spark.conf.get(name, "false") == "true":
            raise EnvironmentProblem(
                f"{name} is true, which training.workers={tasks} does not allow: set it to false, "
                f"{way}"
            )
    local = is_local(spark.sparkContext.master)
    until = time.monotonic() + (0 if local else _WAIT_SECONDS)
    while (found := _slots(spark)) < tasks:
        if time.monotonic() > until:
            more = f"spark.master=local[{tasks}]" if local else "more executors or cores"
            raise EnvironmentProblem(
                f"training.workers is {tasks}, but Spark runs {found} task{'s' * (found != 1)} at "
                f"the same time: start it with {more}, or lower training.workers"
            )
        time.sleep(_NAP_SECONDS)


def _slots(spark: SparkSession) -> int:
    """The number that Spark itself compares; its own check waits ten minutes."""
    context = spark.sparkContext._jsc.sc()
    profile = context.resourceProfileManager().defaultResourceProfile()
    return int(context.maxNumConcurrentTasks(profile))


def start(spark: SparkSession, tasks: int, run: Callable[[int], None]) -> Future[None]:
    """Call `run` in so many tasks at the same time, with the ranks 0 to `tasks` - 1.

    The future ends with the last task. Where one fails, Spark ends the others and starts none
    again, and the future has a SparkFailure with the reason."""

    def task(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        for _ in batches:
            pass
        context = TaskContext.get()
        assert context is not None
        run(context.partitionId())
        yield from ()

    frame = spark.range(0, tasks, 1, tasks).mapInArrow(task, "nothing int", barrier=True)
    thread = ThreadPoolExecutor(1, thread_name_prefix="bitstorm-barrier")
    future = thread.submit(_run, frame)
    thread.shutdown(wait=False)
    return future


def _run(frame: DataFrame) -> None:
    from py4j.protocol import Py4JError, Py4JJavaError

    try:
        frame.collect()
    except Py4JJavaError as error:
        lines = str(error.java_exception.getMessage()).strip().splitlines()
        # The end of a task's traceback says more than the stage.
        python = [line for line in lines if _PYTHON_ERROR.match(line)]
        raise SparkFailure((python or lines)[-1 if python else 0]) from error
    except (Py4JError, ConnectionError) as error:
        raise SparkFailure("Spark's Java process ended") from error
