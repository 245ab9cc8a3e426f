"""Ends the jobs of a standalone cluster that has lost all its executors.

Spark waits for new ones without limit there. YARN and Kubernetes replace them, and have limits of
their own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bitstorm.core.errors import SparkFailure

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

WAIT_SECONDS = 30.0
_NAP_SECONDS = 2.0


@contextmanager
def watched_executors(session: SparkSession) -> Iterator[None]:
    """Cancel the jobs in the block where a standalone cluster has had executors, and has none for
    `WAIT_SECONDS`; raise SparkFailure for them.

    Before the first executor a job can wait for its turn, without limit."""
    if not _is_watched(session):
        yield
        return
    lost, end = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=_watch, args=(session.sparkContext, lost, end), name="bitstorm-watch", daemon=True
    )
    thread.start()
    try:
        yield
    except Exception as error:
        if not lost.is_set():
            raise
        raise SparkFailure(
            f"Spark has lost all executors, and {session.sparkContext.master} has given no new one "
            f"in {WAIT_SECONDS:g} s. Completed work is kept: look whether master and workers run, "
            "and run the command again"
        ) from error
    finally:
        end.set()
        thread.join()


def _is_watched(session: SparkSession) -> bool:
    from pyspark.sql.utils import is_remote

    # Databricks has such a master, too, and gets new machines in minutes.
    if is_remote() or "DATABRICKS_RUNTIME_VERSION" in os.environ:
        return False
    context = session.sparkContext
    # With dynamic allocation Spark itself ends executors.
    dynamic = context.getConf().get("spark.dynamicAllocation.enabled", "false") == "true"
    return context.master.startswith("spark://") and not dynamic


def _watch(context: SparkContext, lost: threading.Event, end: threading.Event) -> None:
    from py4j.protocol import Py4JError

    since = time.monotonic()
    # With an ended JVM the block fails by itself.
    with suppress(Py4JError, OSError):
        store = context._jsc.sc().statusStore()
        while not end.wait(_NAP_SECONDS):
            # The driver is one of the executors; `False` adds those that have ended.
            there, ever = (store.executorList(alive).size() > 1 for alive in (True, False))
            if there or not ever or not context.statusTracker().getActiveJobsIds():
                since = time.monotonic()
            elif time.monotonic() - since > WAIT_SECONDS:
                lost.set()
                # Again and again: the block can start more.
                context.cancelAllJobs()
