"""The only builder of a SparkSession."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.core.config import Spark
from bitstorm.core.errors import EnvironmentProblem
from bitstorm.core.third_party_noise import hush_accumulators, native_stderr_to
from bitstorm.spark import java
from bitstorm.spark.failures import spark_failures_told

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What Bitstorm's results depend on: set even where a launcher says otherwise.
REQUIRED = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.ansi.enabled": "true",
}
# What is merely good for it: the launcher's and the user's values win.
PREFERRED = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Hadoop's second algorithm moves files while tasks commit; the first only at the end.
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "1",
    # Hadoop's other local file system writes a checksum file beside each file, which a snapshot
    # drops (its manifest has SHA-256), and without Hadoop's native library starts a `chmod` process
    # several times a file.
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    # What is kept lives for seconds: packing it costs more than it saves.
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    # Java compiles no method beyond 8,000 bytes: a longer one, run as it is, takes ten times as
    # long as the same steps one after another.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # Where in Python each column was made costs a fifth of the time that a small job takes; what
    # a user is told of an error never has it.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    "spark.sql.dataFrameQueryContext.enabled": "false",
    # An hour's worth of jobs keeps no history that anybody would look at.
    "spark.ui.retainedJobs": "10",
    "spark.sql.ui.retainedExecutions": "10",
}

# Java compiles hot methods a second time, which pays only in work that lasts. A year of hours is
# done before; five million minutes are not.
_SMALL = ("-XX:TieredStopAtLevel=1",)
# A collector that trades throughput for short pauses is of no use here. The serial one starts no
# threads of its own.
_COLLECTOR = {True: "-XX:+UseSerialGC", False: "-XX:+UseParallelGC"}
# A JVM that writes a class archive takes its time to end.
_END_SECONDS = 300
# Java logs to standard output, which is a command's own.
_LOGGING = ("-Xlog:disable", "-Xlog:all=warning:stderr")


def under_spark_submit() -> bool:
    """Whether a launcher has already started the JVM for this process."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def is_running() -> bool:
    """Whether this process has a session: one of ours, or the one of a user's notebook."""
    from pyspark import SparkContext

    return SparkContext._active_spark_context is not None


@contextmanager
def spark_session(
    *,
    app_name: str,
    spark: Spark,
    log: Path | None = None,
    environ: Mapping[str, str] | None = None,
    small: bool = False,
    meanwhile: Callable[[], object] | None = None,
) -> Iterator[SparkSession]:
    """A session in UTC for the block; stopped after it, unless it was already there.

    Outside spark-submit the JVM is started with `spark.master`, `spark.driver_memory` and
    `spark.conf`, and its standard error goes to `log`. Under spark-submit the launcher's master
    and settings stand. `small` starts a local JVM that is warm soon but never as fast as another.
    `meanwhile` is called in a thread while the JVM starts, to import what comes next; what it
    raises is left to the import that needs it.

    Raises EnvironmentProblem when there is no Java that Spark 4.0 runs on, and
    SparkFailure where a job in the block fails.
    """
    from py4j.protocol import Py4JError
    from pyspark import SparkConf, SparkContext
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    if is_running():
        session = SparkSession.builder.getOrCreate()
        with spark_failures_told(None), changed(session, REQUIRED):
            yield session
        return

    launched = under_spark_submit()
    if not launched:
        home = _prepare_environment(os.environ if environ is None else environ, master=spark.master)
    else:
        # What the launcher has set is known to its JVM alone; without one SparkConf is empty.
        SparkContext._ensure_initialized()
    conf = SparkConf()
    wanted: dict[str, str] = {**PREFERRED, **{k: _text(v) for k, v in spark.conf.items()}}
    if not launched:
        if spark.master.startswith("local"):
            wanted = {**_local(home, os.environ, small=small), **wanted}
        wanted["spark.driver.memory"] = spark.driver_memory
        wanted["spark.master"] = spark.master
    for key, value in wanted.items():
        if not conf.contains(key):
            conf.set(key, value)
    for key, value in REQUIRED.items():
        conf.set(key, value)
    if not conf.contains("spark.app.name"):
        conf.setAppName(app_name)
    elsewhere = nullcontext() if launched or log is None else native_stderr_to(log)
    try:
        with elsewhere, _done_meanwhile(meanwhile):
            session = SparkSession.builder.config(conf=conf).getOrCreate()
    except (PySparkRuntimeError, Py4JError, OSError) as error:
        where = f"; its log is {log}" if log is not None and not launched else ""
        raise EnvironmentProblem(
            f"Spark did not start on {conf.get('spark.master')} ({_cause(error)}){where}"
        ) from error
    try:
        # Told before the session is stopped, which takes the cause with it.
        with spark_failures_told(None if launched else log):
            session.sparkContext.setLogLevel("ERROR")
            hush_accumulators(session.sparkContext)
            yield session
    finally:
        _stop(session, with_jvm=not launched)


@contextmanager
def changed(session: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """The session with other settings for the block."""
    before = {key: session.conf.get(key, None) for key in values}
    _apply(session, values)
    try:
        yield
    finally:
        _apply(session, before)


def _cause(error: Exception) -> str:
    """One line; of a Java exception its message, without Python's words about the call."""
    thrown = getattr(error, "java_exception", None)
    text = str(error) if thrown is None else str(thrown.getMessage() or thrown.toString())
    return text.strip().splitlines()[0]


def _local(home: Path, environ: Mapping[str, str], *, small: bool) -> dict[str, str]:
    """On one machine a shuffle needs a few partitions, not the 200 that suit a cluster."""
    options = [*_LOGGING, *(_SMALL if small else ())]
    if not any("GC" in environ.get(name, "") for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS")):
        # Beside another collector, Java would not start.
        options.append(_COLLECTOR[small])
    options += [f'"-XX:SharedArchiveFile={archive}"' for archive in class_archives(home)[:1]]
    return {
        "spark.sql.shuffle.partitions": str(max(4, 2 * (os.cpu_count() or 1))),
        "spark.driver.extraJavaOptions": " ".join(options),
    }


def class_archives(home: Path) -> list[Path]:
    """Archives of Spark's classes as this Java loads them quickest. `scripts/setup` makes one in
    the environment; there need not be any.

    Java leaves alone what another Java or other jars have made, but crashes on an archive that is
    cut short: so its name ends with its size.
    """
    found = sorted(Path(sys.prefix).glob(f"{archive_name(home)}-*.jsa"))
    return [path for path in found if path.stem.endswith(f"-{path.stat().st_size}")]


def archive_name(home: Path) -> str:
    """What the name of a class archive begins with."""
    import pyspark

    return f"spark-{pyspark.__version__}-java-{java.version(home)}"


@contextmanager
def _done_meanwhile(work: Callable[[], object] | None) -> Iterator[None]:
    def quietly() -> None:
        with suppress(Exception):
            if work is not None:
                work()

    thread = threading.Thread(target=quietly, name="bitstorm-import")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _prepare_environment(environ: Mapping[str, str], *, master: str) -> Path:
    project = java.project_root()
    home = java.find_java_home(environ, project=project)
    if home is None:
        raise EnvironmentProblem(java.explain(environ, project=project))
    os.environ["JAVA_HOME"] = str(home)
    if master.startswith("local"):
        # Workers would else take the system's python3, which has none of the packages.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    return home


def _stop(session: SparkSession, *, with_jvm: bool) -> None:
    """A JVM that has ended meanwhile cannot stop a session, and need not: what the block came to,
    a result or an error of its own, is what counts."""
    from py4j.protocol import Py4JError
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    with suppress(Py4JError, ConnectionError):
        session.stop()
    if with_jvm:
        _stop_jvm()
        # Half a stop leaves them behind, and the next session would be this one.
        SparkContext._active_spark_context = None
        SparkSession._instantiatedSession = None


def _stop_jvm() -> None:
    """End the JVM with its session: a next one in this process may want other settings."""
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


def _apply(session: SparkSession, values: Mapping[str, str | None]) -> None:
    for key, value in values.items():
        if value is None:
            session.conf.unset(key)
        else:
            session.conf.set(key, value)


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
