"""The only builder of a SparkSession."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.core.errors import EnvironmentProblem
from bitstorm.core.settings import Spark
from bitstorm.core.third_party_noise import hush_accumulators, native_stderr_to
from bitstorm.spark import connect, environment, jvm
from bitstorm.spark.failures import translate_failures
from bitstorm.spark.watch import watched_executors

if TYPE_CHECKING:
    from pyspark import SparkConf
    from pyspark.sql import SparkSession

# The results depend on these: they win over a launcher's values.
REQUIRED = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}
# These are only useful: the launcher's and the user's values win.
PREFERRED = {
    "spark.ui.showConsoleProgress": "false",
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # Hadoop's second algorithm moves files while tasks commit; the first only at the end.
    "spark.hadoop.mapreduce.fileoutputcommitter.algorithm.version": "1",
    # Hadoop's other local file system writes a checksum file for each file, which a snapshot drops
    # (its manifest has SHA-256), and starts several `chmod` processes a file without Hadoop's
    # native library.
    "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    # Cached data lives for seconds: compression costs more than it saves.
    "spark.sql.inMemoryColumnarStorage.compressed": "false",
    # Java compiles no method above 8,000 bytes: interpreted, it takes ten times as long as the same
    # steps in separate methods.
    "spark.sql.codegen.hugeMethodLimit": "8000",
    # The Python origin of each column costs a fifth of a small job's time; our error messages never
    # show it.
    "spark.python.sql.dataFrameDebugging.enabled": "false",
    "spark.sql.dataFrameQueryContext.enabled": "false",
}
# On a cluster users look at the UI; a local run ends before.
_LOCAL = {
    "spark.ui.enabled": "false",
    "spark.ui.retainedJobs": "10",
    "spark.sql.ui.retainedExecutions": "10",
}
# Spark's 200 partitions are for a long series: `conf/cluster.yaml` has more.
_CLUSTER_PARTITIONS = 8

_reported = False


def running_session() -> SparkSession | None:
    """The session of this process: one of ours, or the one of a user's notebook."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if (remote := connect.remote_session()) is not None:
        return remote
    if SparkContext._active_spark_context is None:
        return None
    # Spark's active session is this thread's.
    return SparkSession.getActiveSession() or SparkSession.builder.getOrCreate()


@contextmanager
def spark_session(
    *,
    app_name: str,
    spark: Spark,
    log: Path | None = None,
    small: bool = False,
    meanwhile: Callable[[], object] | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Iterator[SparkSession]:
    """A session in UTC for the block; an existing session is used and not stopped.

    Where SPARK_REMOTE names a Spark Connect server, the new session is there. Else, outside
    spark-submit the JVM starts with `spark.master`, `spark.driver_memory` and `spark.conf`,
    and its standard error goes to `log`. Under spark-submit the launcher's master and settings
    stay. `small` starts a local JVM that warms up sooner and stays slower. `meanwhile` imports
    the next packages, in a thread while a JVM starts; its errors come again at the import that
    needs them. `report` gets a line about variables of Spark that are ignored.

    Raises EnvironmentProblem for a pyspark of another version and as `environment.variables` and
    `connect.opened`, SparkFailure when a job in the block fails or a standalone cluster has lost
    all executors.
    """
    session = running_session()
    if session is not None:
        _check_file_names(session, log)
        with (
            translate_failures(None),
            watched_executors(session),
            with_settings(session, REQUIRED),
            described_jobs(session, app_name),
        ):
            yield session
        return

    environment.check_pyspark()
    launched = environment.under_spark_submit()
    if (url := os.environ.get(connect.VARIABLE)) and not launched:
        with _on_server(url, spark, log, meanwhile, report) as session:
            yield session
        return
    own_log = None if launched else log
    _report_ignored(spark.master, report)
    with environment.variables(spark.master, cache=log.parent if log else None):
        conf = _conf(app_name, spark, launched=launched, small=small)
        session = _start(conf, own_log, meanwhile)
        try:
            _check_file_names(session, log)
            # Inside, because the end of the session loses the cause.
            with translate_failures(own_log):
                session.sparkContext.setLogLevel("ERROR")
                hush_accumulators(session.sparkContext)
                with watched_executors(session), described_jobs(session, app_name):
                    yield session
        finally:
            _stop(session, with_jvm=not launched)


@contextmanager
def _on_server(
    url: str,
    spark: Spark,
    log: Path | None,
    meanwhile: Callable[[], object] | None,
    report: Callable[[str], None],
) -> Iterator[SparkSession]:
    with ExitStack() as stack:
        # The notes of gRPC, and of what is imported, go to the log.
        with native_stderr_to(log) if log else nullcontext():
            # Not in a thread: this one imports Spark's client, and setuptools imports under
            # Python's own lock, so that each could wait for the other.
            _quietly(meanwhile)
            session = stack.enter_context(connect.opened(url))
        stack.enter_context(translate_failures(None))
        partitions = {"spark.sql.shuffle.partitions": str(_CLUSTER_PARTITIONS)}
        users = {**_users_settings(spark), **REQUIRED}
        fixed = connect.apply_settings(session, {**PREFERRED, **partitions}, users)
        if spark.driver_memory != Spark().driver_memory:
            fixed.append("spark.driver_memory")
        if fixed:
            report(f"ignored: {', '.join(fixed)}; set where the Spark Connect server starts")
        yield session


def _users_settings(spark: Spark) -> dict[str, str]:
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in spark.conf.items()
    }


def _report_ignored(master: str, report: Callable[[str], None]) -> None:
    """One line in the life of the process."""
    global _reported
    if environment.under_spark_submit() or not environment.is_local(master) or _reported:
        return
    names = environment.ignored(os.environ)
    if names:
        _reported = True
        report(
            f"ignored: {', '.join(names)}; a local Spark needs none of them (settings of yours: "
            "spark.conf)"
        )


def _start(
    conf: SparkConf, log: Path | None, meanwhile: Callable[[], object] | None
) -> SparkSession:
    """A new session. Raises EnvironmentProblem with the JVM's first complaint."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkRuntimeError
    from pyspark.sql import SparkSession

    known = log.stat().st_size if log and log.exists() else 0
    try:
        # The notes of what is imported meanwhile go to the log, too.
        with native_stderr_to(log) if log else nullcontext(), _run_meanwhile(meanwhile):
            return SparkSession.builder.config(conf=conf).getOrCreate()
    except (PySparkRuntimeError, Py4JError, OSError, TypeError) as error:
        where = f"; its log is {log}" if log else ""
        # A JVM that runs has Spark's log there, of which one line tells more than the error.
        stopped = isinstance(error, PySparkRuntimeError)
        cause = (jvm.complaint if stopped else jvm.reason_of_end)(log, known)
        raise EnvironmentProblem(
            f"Spark did not start on {conf.get('spark.master')} ({cause or _cause(error)}){where}; "
            "`bitstorm doctor` looks for the reason"
        ) from error


def _check_file_names(session: SparkSession, log: Path | None) -> None:
    """Raise EnvironmentProblem where a JVM that others started has no name for the workspace."""
    from pyspark.sql.utils import is_remote

    if log is None or str(log).isascii() or is_remote():
        return
    encoding = session._jvm.java.lang.System.getProperty("sun.jnu.encoding")
    if encoding.upper() != "UTF-8":
        raise EnvironmentProblem(
            f"{log.parent} is not plain ASCII, and file names are {encoding} in the Java process "
            "of this session: start it with LC_ALL=C.UTF-8"
        )


@contextmanager
def described_jobs(session: SparkSession, text: str) -> Iterator[None]:
    """The jobs that this thread starts in the block have this description on Spark's page."""
    from py4j.protocol import Py4JError
    from pyspark.sql.utils import is_remote

    if is_remote():
        yield
        return
    context, name = session.sparkContext, "spark.job.description"
    before = context.getLocalProperty(name)
    context.setLocalProperty(name, text)
    try:
        yield
    finally:
        # After a failure the JVM can be gone.
        with suppress(Py4JError, ConnectionError):
            context.setLocalProperty(name, before)


@contextmanager
def with_settings(session: SparkSession, values: Mapping[str, str]) -> Iterator[None]:
    """The session with other settings for the block."""
    before = {key: session.conf.get(key, None) for key in values}
    _apply(session, values)
    try:
        yield
    finally:
        _apply(session, before)


def _conf(app_name: str, spark: Spark, *, launched: bool, small: bool) -> SparkConf:
    from pyspark import SparkConf, SparkContext

    wanted = {"spark.app.name": app_name, **PREFERRED}
    if launched:
        # Only the JVM knows the launcher's settings; SparkConf is empty before this.
        SparkContext._ensure_initialized()
    conf = SparkConf()
    local = environment.is_local(conf.get("spark.master", spark.master))
    partitions = max(4, 2 * (os.cpu_count() or 1)) if local else _CLUSTER_PARTITIONS
    wanted |= {"spark.sql.shuffle.partitions": str(partitions), **(_LOCAL if local else {})}
    if local and not launched:
        options = jvm.options(Path(os.environ["JAVA_HOME"]), os.environ, small=small)
        wanted["spark.driver.extraJavaOptions"] = " ".join(options)
    wanted |= _users_settings(spark)
    if not launched:
        wanted |= {"spark.driver.memory": spark.driver_memory, "spark.master": spark.master}
    for key, value in wanted.items():
        conf.setIfMissing(key, value)
    return conf.setAll(list(REQUIRED.items()))


def _cause(error: Exception) -> str:
    """One line; the message of a Java exception without Python's words about the call."""
    thrown = getattr(error, "java_exception", None)
    text = str(error) if thrown is None else str(thrown.getMessage() or thrown.toString())
    return text.strip().splitlines()[0]


def _quietly(work: Callable[[], object] | None) -> None:
    with suppress(Exception):
        if work is not None:
            work()


@contextmanager
def _run_meanwhile(work: Callable[[], object] | None) -> Iterator[None]:
    thread = threading.Thread(target=_quietly, args=(work,), name="bitstorm-import")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _stop(session: SparkSession, *, with_jvm: bool) -> None:
    """Stop the session. Errors of an ended JVM are dropped: the block's result or error counts."""
    from py4j.protocol import Py4JError
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    with suppress(Py4JError, ConnectionError):
        session.stop()
    if with_jvm:
        jvm.stop()
        # A failed stop leaves them, and the next session would be this one.
        SparkContext._active_spark_context = None
        SparkSession._instantiatedSession = None


def _apply(session: SparkSession, values: Mapping[str, str | None]) -> None:
    for key, value in values.items():
        if value is None:
            session.conf.unset(key)
        else:
            session.conf.set(key, value)
