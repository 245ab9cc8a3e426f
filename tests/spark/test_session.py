"""How a local JVM is started: what it is told, and that no class archive can hurt it."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyspark
import pytest

from bitstorm.core.errors import EnvironmentProblem
from bitstorm.core.settings import Spark
from bitstorm.spark import session


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Java home, and an environment's folder with a space in its name."""
    home = tmp_path / "jdk"
    home.mkdir()
    (home / "release").write_text('JAVA_VERSION="17.0.9"\n')
    prefix = tmp_path / "an environment"
    prefix.mkdir()
    monkeypatch.setattr(sys, "prefix", str(prefix))
    return home


def archive(size: int, *, said: int, java: str = "17.0.9") -> Path:
    path = Path(sys.prefix, f"spark-{pyspark.__version__}-java-{java}-{said}.jsa")
    path.write_bytes(bytes(size))
    return path


def options(home: Path, environ: dict[str, str] | None = None, *, small: bool = False) -> str:
    return " ".join(session._java_options(home, environ or {}, small=small))


LOGGING = "-Xlog:disable -Xlog:all=warning:stderr"


@pytest.mark.parametrize(
    ("small", "expected"),
    [
        (True, f"{LOGGING} -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"),
        (False, f"{LOGGING} -XX:+UseParallelGC"),
    ],
)
def test_a_small_job_is_compiled_once(home: Path, small: bool, expected: str) -> None:
    assert options(home, small=small) == expected


@pytest.mark.parametrize("name", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"])
def test_the_users_collector_stands_alone(home: Path, name: str) -> None:
    assert options(home, {name: "-XX:+UseZGC"}) == LOGGING


def test_a_whole_archive_of_this_java_is_used(home: Path) -> None:
    made = archive(5, said=5)
    archive(5, said=5, java="21.0.1")
    assert options(home).endswith(f' "-XX:SharedArchiveFile={made}"')


def test_an_archive_that_was_cut_short_is_left_alone(home: Path) -> None:
    archive(4, said=5)
    assert "SharedArchiveFile" not in options(home)


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
