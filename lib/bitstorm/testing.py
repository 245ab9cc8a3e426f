"""A pytest fixture for tests of programs that use Bitstorm or Spark.

In a `conftest.py`: `from bitstorm.testing import spark_session`. Needs pytest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bitstorm.core.settings import Spark
from bitstorm.spark import session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

SETTINGS = Spark(
    # Two threads show what is not in order; a third try shows what a retry does.
    master="local[2,3]",
    driver_memory="1g",
    conf={
        # Test data are small: more partitions would only be more tasks to start.
        "spark.sql.shuffle.partitions": 2,
        "spark.default.parallelism": 2,
        # Plans are compiled for their first run; few tests have a second.
        "spark.sql.codegen.cache.maxEntries": 1000,
    },
)

_shared: pytest.StashKey[SparkSession] = pytest.StashKey()


@pytest.fixture
def spark_session(request: pytest.FixtureRequest) -> Iterator[SparkSession]:
    """One local session in UTC for the whole run, as new for each test.

    After a test its settings are as before it, nothing is cached, and no temporary view is left.
    """
    shared = shared_session(request.config)
    before = dict(shared.conf.getAll)
    yield shared
    after = dict(shared.conf.getAll)
    for key in after.keys() - before.keys():
        shared.conf.unset(key)
    for key, value in before.items():
        if after.get(key) != value:
            shared.conf.set(key, value)
    for table in shared.catalog.listTables():
        if table.isTemporary:
            shared.catalog.dropTempView(table.name)
    shared.catalog.clearCache()


def shared_session(config: pytest.Config) -> SparkSession:
    """The session itself, for fixtures that outlive a test; started at the first call."""
    if _shared not in config.stash:
        stack = ExitStack()
        config.stash[_shared] = stack.enter_context(
            session.spark_session(app_name="tests", spark=SETTINGS, log=_log(config), small=True)
        )
        config.add_cleanup(stack.close)
    return config.stash[_shared]


def _log(config: pytest.Config) -> Path:
    # Of pytest-xdist's workers each has its own JVM.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return config.rootpath / ".pytest_cache" / f"spark{worker}.log"
