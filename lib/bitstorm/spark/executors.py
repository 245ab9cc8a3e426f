"""Asks the executors of a session what their tasks would find there. Changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.core.errors import SparkFailure
from bitstorm.spark.failures import first_cause

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

WAIT_SECONDS = 60.0
# A task takes so long that no executor can do two while another does none.
_TASK_SECONDS = 0.3
_ROUNDS = 10
_GROUP = "bitstorm doctor"


@dataclass(frozen=True)
class Executor:
    """The Python of an executor. `packages` are name and version of those that are there (a zip has
    no version), and `sees` says that the workspace's folder can be written there."""

    host: str
    python: str
    packages: tuple[tuple[str, str], ...]
    sees: bool

    def lacks(self, names: Sequence[str]) -> list[str]:
        """Those of the names that are not there."""
        return [name for name in names if name not in dict(self.packages)]


def ask_executors(
    session: SparkSession, names: Sequence[str], folder: Path, *, wait_seconds: float = WAIT_SECONDS
) -> tuple[dict[Executor, int], int]:
    """The answers, with the number of executors that gave each; and how many executors gave none.

    Raises SparkFailure where there is no executor after `wait_seconds`, and with the cause where a
    Python does not start.
    """
    found: dict[tuple[str, int], Executor] = {}
    registered = 1
    for _ in range(_ROUNDS):
        answers = _answers(session.sparkContext, names, str(folder), wait_seconds)
        found |= {place: Executor(*answer) for place, answer in answers}
        registered = _registered(session.sparkContext)
        if len(found) >= registered:
            break
    return dict(Counter(found.values())), max(0, registered - len(found))


def _registered(context: SparkContext) -> int:
    """The number of executors; in local mode the driver is one."""
    count = len(context._jsc.sc().statusTracker().getExecutorInfos())
    return max(1, count - 1)


def _answers(
    context: SparkContext, names: Sequence[str], folder: str, wait_seconds: float
) -> list[tuple[tuple[str, int], tuple[Any, ...]]]:
    """Place (host, process) and answer of a task on each core."""
    from py4j.protocol import Py4JJavaError

    def ask() -> list[Any]:
        context.setJobGroup(_GROUP, "what the executors have")
        slots = context.defaultParallelism
        return (
            context.parallelize(range(slots), slots).mapPartitions(_task(names, folder)).collect()
        )

    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        try:
            return answer.result(wait_seconds)
        except TimeoutError:
            context.cancelJobGroup(_GROUP)
            raise SparkFailure(
                f"no executor has answered in {wait_seconds:g} s: look at the page of the cluster "
                "for free cores and memory, and ask for less (spark.executor.memory, "
                "spark.cores.max)"
            ) from None
        except Py4JJavaError as error:
            cause = first_cause(error.java_exception)
            raise SparkFailure(
                f"a Python task failed on an executor ({cause}): set PYSPARK_PYTHON to a Python "
                "that every worker has, of the driver's minor version"
            ) from None


def _task(names: Sequence[str], folder: str) -> Any:
    # A function inside a function travels by value: Bitstorm may be absent there. For the same
    # reason it is no Arrow task.
    seconds = _TASK_SECONDS

    def task(_: Iterator[int]) -> Iterator[Any]:
        import os
        import platform
        import socket
        import time
        from importlib.metadata import PackageNotFoundError, version
        from importlib.util import find_spec

        time.sleep(seconds)
        packages = []
        for name in names:
            if find_spec(name) is not None:
                try:
                    packages.append((name, version(name)))
                except PackageNotFoundError:
                    packages.append((name, ""))
        sees = os.access(folder, os.W_OK | os.X_OK)
        host = socket.gethostname()
        # The workers of an executor are children of one process.
        yield (host, os.getppid()), (host, platform.python_version(), tuple(packages), sees)

    return task
