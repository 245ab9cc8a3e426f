"""The JVM that a session starts: its options, its first complaint, and its end."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bitstorm.spark import java

# Java compiles hot methods a second time, which pays only in long work: five million minutes, not a
# year of hours.
_SMALL = ("-XX:TieredStopAtLevel=1",)
# A batch job needs throughput, not short pauses. The serial collector starts no threads.
_COLLECTOR = {True: "-XX:+UseSerialGC", False: "-XX:+UseParallelGC"}
# A JVM that writes a class archive ends slowly.
_END_SECONDS = 300
# Java logs to standard output, which holds a command's result.
_LOGGING = ("-Xlog:disable", "-Xlog:all=warning:stderr")


def options(home: Path, environ: Mapping[str, str], *, small: bool) -> list[str]:
    """Options of a local JVM."""
    found = [*_LOGGING, *(_SMALL if small else ())]
    if "TMPDIR" in environ:
        found.append(f'"-Djava.io.tmpdir={environ["TMPDIR"]}"')
    if not any("GC" in environ.get(name, "") for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")):
        # Java does not start with two collectors.
        found.append(_COLLECTOR[small])
    return [*found, *(f'"-XX:SharedArchiveFile={archive}"' for archive in class_archives(home)[:1])]


def class_archives(home: Path) -> list[Path]:
    """Archives of Spark's classes for this Java; `scripts/setup` can make one in the environment.

    Java ignores an archive of another Java or of other jars, but crashes on a truncated one: so the
    name ends with the size.
    """
    found = sorted(Path(sys.prefix).glob(f"{archive_name(home)}-*.jsa"))
    return [path for path in found if path.stem.endswith(f"-{path.stat().st_size}")]


def archive_name(home: Path) -> str:
    """The beginning of a class archive's name."""
    import pyspark

    return f"spark-{pyspark.__version__}-java-{java.version(home)}"


def complaint(log: Path | None, known: int) -> str | None:
    """The first line that the JVM has added to the log, without Java's notes."""
    notes = (*java.NOTES, "WARNING:", "[", "Using Spark's")
    added = _added(log, known).splitlines()
    return next((line for line in added if line and not line.startswith(notes)), None)


def reason_of_end(log: Path | None, known: int) -> str | None:
    """The reason that a standalone cluster's driver has added to the log, as where no master
    answers."""
    found = re.search(r"Application has been killed\. Reason: (.+)", _added(log, known))
    return found and found[1]


def _added(log: Path | None, known: int) -> str:
    return log.read_bytes()[known:].decode("utf-8", "replace") if log and log.exists() else ""


def stop() -> None:
    """End the JVM: the next session in this process can need other settings."""
    from py4j.protocol import Py4JError
    from pyspark import SparkContext

    gateway = SparkContext._gateway
    if gateway is None:
        return
    with suppress(Py4JError, ConnectionError):
        gateway.shutdown()
    process = getattr(gateway, "proc", None)
    if process is not None:
        process.stdin.close()
        process.wait(timeout=_END_SECONDS)
    SparkContext._gateway = None
    SparkContext._jvm = None
