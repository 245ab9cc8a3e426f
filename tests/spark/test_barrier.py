"""Functions at the same time in Spark's tasks, and the reason where one fails."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bitstorm.core.errors import SparkFailure
from bitstorm.spark import barrier

pytestmark = pytest.mark.slow


def test_each_rank_runs_once_and_all_at_the_same_time(spark_session, tmp_path):
    barrier.check(spark_session, 2)

    def meet(rank: int) -> None:
        Path(tmp_path, str(rank)).touch(exist_ok=False)
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2:
            assert time.monotonic() < until
            time.sleep(0.05)

    assert barrier.start(spark_session, 2, meet).result() is None
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1"}


def test_the_error_of_a_rank_is_the_reason(spark_session):
    def fail(rank: int) -> None:
        raise ModuleNotFoundError("No module named 'torch'")

    error = barrier.start(spark_session, 2, fail).exception()
    assert isinstance(error, SparkFailure)
    assert str(error) == "ModuleNotFoundError: No module named 'torch'"
