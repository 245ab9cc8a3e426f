"""Training with several workers: tasks of one barrier stage that share each batch.

Every worker reads all blocks in the order of one worker and computes its share of each batch, so
all take as many steps: files and row groups don't matter. See `team` and `loop`.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bitstorm.core.stopping import Stop
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.model import backend, checkpoint
from bitstorm.model.team import Address, Ended, Hub, joined
from bitstorm.model.training import Fitted, Progress, Task, broken_off
from bitstorm.spark import barrier

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# A worker ends after its step; where it does not, the end of the session ends it.
_END_SECONDS = 10


def fit(
    spark: SparkSession, library: str, shape: dict[str, Any], task: Task, workers: int
) -> Fitted:
    """As `backend.fit`, with so many workers; `task.batch_size` counts the windows of all.

    Each worker computes with one thread, so the same number of workers gives the same bits. Raises
    BrokenOff, too, where a worker is killed.
    """
    host, stop = spark.conf.get("spark.driver.host", "localhost"), Stop()
    hub = Hub(str(spark.conf.get("spark.driver.bindAddress", host)), workers)
    run = partial(
        _train,
        (host, hub.port),
        hub.key,
        workers=workers,
        library=library,
        shape=shape,
        # The driver shows the progress.
        task=replace(task, progress=_ignore),
    )
    job = barrier.start(spark, workers, run)
    try:
        with stop.catch_signals(), _ended_afterwards(hub, job):
            outcome = hub.serve(job, stop, lambda at: task.progress(Progress(**at)))
    except Ended as error:
        since, _ = checkpoint.load(task.folder)
        epochs = 0 if since is None else since.epochs
        raise broken_off(task.folder, epochs, str(error)) from error
    return Fitted(**outcome)


@contextmanager
def _ended_afterwards(hub: Hub, job: Future[None]) -> Iterator[None]:
    """After the block no worker writes any more."""
    try:
        yield
    finally:
        hub.close()
        futures.wait([job], timeout=_END_SECONDS)


def _train(
    address: Address,
    key: bytes,
    rank: int,
    *,
    workers: int,
    library: str,
    shape: dict[str, Any],
    task: Task,
) -> None:
    """The work of one worker, in a task."""
    from bitstorm.model import loop

    hush_loggers()
    with joined(address, key, rank=rank, size=workers) as team, without_third_party_warnings():
        backend.use_one_thread(library)
        if rank == 0:
            task = replace(task, progress=lambda at: team.report(vars(at)))
        team.done(vars(loop.fit(backend.seeded(library, shape), task, team)))


def _ignore(at: Progress) -> None:
    pass
