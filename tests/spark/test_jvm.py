"""How a local JVM is started: what it is told, and that no class archive can hurt it."""

from __future__ import annotations

import sys
from pathlib import Path

import pyspark
import pytest

from bitstorm.spark import jvm


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
    return " ".join(jvm.options(home, environ or {}, small=small))


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


def test_the_reason_of_an_end_is_of_this_start_alone(tmp_path: Path) -> None:
    assert jvm.reason_of_end(None, 0) is None
    log = tmp_path / "spark.log"
    line = "26/11/29 ERROR StandaloneSchedulerBackend: Application has been killed. Reason: {}\n"
    log.write_text(line.format("an older one"))
    known = log.stat().st_size
    assert jvm.reason_of_end(log, known) is None
    with log.open("a") as stream:
        stream.write(f"a note\n{line.format('All masters are unresponsive! Giving up.')}another\n")
    assert jvm.reason_of_end(log, known) == "All masters are unresponsive! Giving up."
