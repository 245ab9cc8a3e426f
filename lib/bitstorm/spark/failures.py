"""Failures below a command (Spark's job, its JVM, the disk), each as one sentence for the user."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitstorm.core.errors import SparkFailure
from bitstorm.spark import connect

_DEPTH = 20
_NO_PLACE = "No space left on device"
_NO_MEMORY = "OutOfMemoryError"
_WORKER_ENDED = "Python worker exited unexpectedly"
# Refusals of the system, not errors in our own code.
_REFUSED = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or ask for a larger quota",
    errno.EFBIG: "raise the limit on file sizes",
    errno.EROFS: "choose a writable --workspace",
    errno.EACCES: "change the permissions, or choose another --workspace",
    errno.EPERM: "change the permissions, or choose another --workspace",
    errno.EIO: "check the disk",
    errno.ESTALE: "check the disk",
    errno.EMFILE: "raise the limit of open files",
    errno.ENFILE: "raise the limit of open files",
    errno.ENOMEM: "free some memory",
}


@contextmanager
def translate_failures(log: Path | None) -> Iterator[None]:
    """Raise SparkFailure with the first cause when a job in the block fails or the JVM is gone.

    The cause is read at once: an exception loses its text with its JVM. `log` is the JVM's log, if
    there is one.
    """
    from py4j.protocol import Py4JError, Py4JJavaError
    from pyspark.errors import PythonException

    words = f" (its log is {log})" if log is not None else ""
    try:
        yield
    except Py4JJavaError as error:
        cause = first_cause(error.java_exception)
        raise SparkFailure(
            f"Spark failed: {cause}{words}. Completed work is kept: "
            f"{_advice(cause)}, and run the command again"
        ) from error
    except PythonException as error:
        # A traceback, whose last line says what happened.
        cause = str(error).strip().splitlines()[-1]
        raise SparkFailure(
            f"a Python task of Spark failed: {cause}{words}. Completed work is kept: fix the "
            "cause, and run the command again"
        ) from error
    except connect.errors() as error:
        if connect.is_ours(error):
            raise
        cause = connect.cause_of(error)
        raise SparkFailure(
            f"Spark failed: {cause}. Completed work is kept: "
            f"{connect.advice(cause) or _advice(cause)}, and run the command again"
        ) from error
    except (Py4JError, ConnectionError) as error:
        if not _jvm_is_gone(error):
            raise
        raise SparkFailure(
            f"Spark's Java process ended during its work: it was killed, or had too little "
            f"memory{words}. Completed work is kept: run the command again, with a larger "
            "spark.driver_memory if memory was short"
        ) from error


def first_cause(thrown: Any) -> str:
    """The root cause of a Java exception in one line: its class and message, or the last line of a
    Python traceback."""
    from py4j.protocol import Py4JError

    text = ""
    try:
        # Some chains of causes are circles.
        for _ in range(_DEPTH):
            text = str(thrown.toString()).strip() or text
            if _WORKER_ENDED in text:
                return "a Python process of Spark was killed, or had too little memory"
            thrown = thrown.getCause()
            if thrown is None:
                break
    except (Py4JError, OSError):
        pass  # the JVM ended meanwhile
    lines = text.splitlines() or ["no reason given"]
    return lines[-1].strip() if "Traceback (most recent call last)" in lines[0] else lines[0]


def system_refusal(error: OSError) -> str | None:
    """A sentence for a refusal of the system (no space, no rights); None for our own errors."""
    if error.errno not in _REFUSED:
        return None
    where = f" ({error.filename})" if error.filename else ""
    return (
        f"{os.strerror(error.errno)}{where}; expected to read and write there. Completed work is "
        f"kept: {_REFUSED[error.errno]}, and run the command again"
    )


def _advice(cause: str) -> str:
    if _NO_PLACE in cause:
        return _REFUSED[errno.ENOSPC]
    if _NO_MEMORY in cause:
        return "raise spark.driver_memory (on a cluster the executors' memory)"
    return "fix the cause"


def _jvm_is_gone(error: Exception) -> bool:
    from py4j.protocol import Py4JNetworkError
    from pyspark import SparkContext

    process = getattr(SparkContext._gateway, "proc", None)
    if process is not None:
        # Its sockets close a moment before the process ends.
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            return False
        return True
    return isinstance(error, ConnectionError | Py4JNetworkError)
