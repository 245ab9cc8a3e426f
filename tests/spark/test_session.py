"""What a session does beside the JVM: imports, threads, the description of its jobs."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from bitstorm.core.errors import EnvironmentProblem
from bitstorm.core.settings import Spark
from bitstorm.spark import session


def test_imports_run_meanwhile_and_end_before_the_block() -> None:
    begun, may_end = threading.Event(), threading.Event()
    ended = []

    def work() -> None:
        begun.set()
        assert may_end.wait(5)
        ended.append(True)
        raise ImportError

    with session._run_meanwhile(work):
        assert begun.wait(5) and not ended
        may_end.set()
    assert ended == [True]


@pytest.mark.slow
def test_the_session_of_another_thread_is_found(spark_session) -> None:
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(session.running_session).result()
    for other in (found, session.running_session()):
        assert other is not None
        assert other.sparkContext is spark_session.sparkContext


@pytest.mark.slow
def test_jobs_are_described_while_the_block_lasts(spark_session) -> None:
    context = spark_session.sparkContext

    def described() -> str | None:
        return context.getLocalProperty("spark.job.description")

    # Of the block that the shared session was started for.
    assert described() == "tests"
    with pytest.raises(KeyError), session.described_jobs(spark_session, "outer"):
        with session.described_jobs(spark_session, "inner"):
            assert described() == "inner"
        assert described() == "outer"
        raise KeyError
    assert described() == "tests"


def test_before_a_remote_session_this_thread_imports() -> None:
    """In another thread the two imports could wait for each other."""
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        raise ImportError

    with (
        pytest.raises(EnvironmentProblem, match="SPARK_REMOTE"),
        session._on_server("no address", Spark(), None, work, print),
    ):
        pass
    assert threads == [threading.main_thread()]
