"""A session on a Spark Connect server, and how its errors read. Spark's own client is imported only
where there is such a session."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bitstorm.core.errors import EnvironmentProblem
from bitstorm.spark.environment import PYSPARK

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VARIABLE = "SPARK_REMOTE"
_MODE = "SPARK_CONNECT_MODE_ENABLED"
_CLIENT = "pyspark.sql.connect.session"
_OPEN_SECONDS = 10.0
# The client would try for ten minutes to reach a server that has gone; so it is twelve seconds.
_TRIES, _LONGEST_WAIT_MS = 5, 8_000
_TASK = re.compile(r"Lost task .*?\): (.+)")
# Of an error of gRPC itself, which has many lines.
_DETAILS = re.compile(r'^\s*details = "(.+)"', re.MULTILINE)
_GONE = "the Spark Connect server gives no answer"


def remote_session() -> SparkSession | None:
    """The remote session of this process, of whichever thread."""
    client: Any = sys.modules.get(_CLIENT)
    if client is None:
        return None
    # Spark's active session is this thread's.
    return client.SparkSession.getActiveSession() or client.SparkSession._get_default_session()


@contextmanager
def opened(url: str) -> Iterator[SparkSession]:
    """A new session on the server, for the block.

    Raises EnvironmentProblem without the client's packages, for a wrong URL, where no server
    answers, and for a Spark of another version. No message has the URL: it can hold a token.
    """
    mode = os.environ.get(_MODE)
    session = None
    try:
        session = _open(url)
        yield session
    finally:
        if session is not None:
            _stop(session)
        # Else every later session of this process would have to be a remote one.
        if mode is None:
            os.environ.pop(_MODE, None)


def _open(url: str) -> Any:
    try:
        import grpc
        from pyspark.sql import SparkSession
        from pyspark.sql.connect.client import DefaultChannelBuilder
        from pyspark.sql.connect.client.retries import DefaultPolicy
    except ImportError:
        raise EnvironmentProblem(
            f"{VARIABLE} is set, but Spark Connect's packages are not installed: run pip install "
            "'bitstorm[connect]', or unset it"
        ) from None
    try:
        channel = DefaultChannelBuilder(url).toChannel()
        server = _server(url)
    except ValueError:
        raise EnvironmentProblem(
            f"{VARIABLE} is no address of a Spark Connect server; expected sc://HOST:PORT, and "
            "options as /;NAME=VALUE;NAME=VALUE: correct or unset it"
        ) from None
    try:
        grpc.channel_ready_future(channel).result(_OPEN_SECONDS)
    except grpc.FutureTimeoutError:
        raise EnvironmentProblem(
            f"no Spark Connect server answers at {server} within {_OPEN_SECONDS:g} s: start it, "
            f"or correct or unset {VARIABLE} (with a token the server needs TLS)"
        ) from None
    finally:
        channel.close()
    session: Any = SparkSession.builder.remote(url).getOrCreate()
    policy = DefaultPolicy(max_retries=_TRIES, max_backoff=_LONGEST_WAIT_MS)
    session.client.set_retry_policies([policy])
    try:
        version = session.version
    except errors() as error:
        _stop(session)
        raise EnvironmentProblem(
            f"the Spark Connect server at {server} refuses the session ({cause_of(error)})"
        ) from None
    if not version.startswith(PYSPARK):
        _stop(session)
        raise EnvironmentProblem(
            f"found Spark {version} at {server}, expected {PYSPARK}x: use a server of that version"
        )
    return session


def _stop(session: Any) -> None:
    # The end of a session is no reason to wait for a server.
    session.client.set_retry_policies([])
    session.stop()
    # Its finalizer would close it again, and with it the threads that all sessions share.
    session.client.close = lambda: None


def _server(url: str) -> str:
    """Scheme, host and port. Raises ValueError where there are none."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


def apply_settings(
    session: SparkSession, defaults: Mapping[str, str], users: Mapping[str, str]
) -> list[str]:
    """Set what the server lets a session set; its own values win over `defaults`, and `users` over
    its own. Returns the names of `users` that it does not let."""
    fixed = [name for name in users if not session.conf.isModifiable(name)]
    for name, value in defaults.items():
        if session.conf.isModifiable(name) and session.conf.get(name, None) is None:
            session.conf.set(name, value)
    for name, value in users.items():
        if name not in fixed:
            session.conf.set(name, value)
    return fixed


def errors() -> tuple[type[Exception], ...]:
    """What a remote session's client raises where a job fails or the server is gone."""
    if _CLIENT not in sys.modules:
        return ()
    import grpc
    from pyspark.errors.exceptions.base import RetriesExceeded
    from pyspark.errors.exceptions.connect import SparkConnectException

    return SparkConnectException, RetriesExceeded, grpc.RpcError


def refuses(error: Exception) -> bool:
    """Whether the server does not support the call (Databricks' serverless says so of caching)."""
    return "NOT_SUPPORTED" in str(error).partition("\n")[0]


def is_ours(error: Exception) -> bool:
    """Whether a query is wrong: an error in our own code."""
    from pyspark.errors import AnalysisException

    known = refuses(error) or "PATH_NOT_FOUND" in str(error)
    return isinstance(error, AnalysisException) and not known


def cause_of(error: Exception) -> str:
    """One line: the cause in a task, or what the server says, without its stack."""
    import grpc
    from pyspark.errors.exceptions.base import RetriesExceeded

    if isinstance(error, RetriesExceeded):
        return _GONE
    if isinstance(error, grpc.RpcError):
        return f"{_GONE} ({error.code().name})" if hasattr(error, "code") else _GONE
    first = (str(error).strip().splitlines() or ["no reason given"])[0]
    found = _TASK.search(first) or _DETAILS.search(str(error))
    return found[1] if found else first


def advice(cause: str) -> str:
    """What to do against a cause that only a remote session has; empty for others."""
    if cause.startswith(_GONE):
        return "start it again"
    if "PATH_NOT_FOUND" in cause or "Mkdirs failed" in cause:
        return "choose a --workspace that the server sees under the same path"
    return ""
