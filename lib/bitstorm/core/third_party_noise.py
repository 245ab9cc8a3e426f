"""Keeps third-party noise from a user's terminal, each filter as narrow as its source.

petastorm 0.13 and pyarrow 14 warn of their own old names on every import and read; nothing that
a user of Bitstorm could act on. Warnings of Bitstorm's own code are never touched.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark import SparkContext

_NOISY = (
    (FutureWarning, r"petastorm(\.|$)"),
    (DeprecationWarning, r"petastorm(\.|$)"),
    (UserWarning, r"petastorm(\.|$)"),
    (FutureWarning, r"pyarrow(\.|$)"),
    (DeprecationWarning, r"pyarrow(\.|$)"),
    (DeprecationWarning, r"pyspark(\.|$)"),
    (UserWarning, r"pyspark(\.|$)"),
    (FutureWarning, r"pyspark(\.|$)"),
    (DeprecationWarning, r"(tensorflow|keras)(\.|$)"),
    (UserWarning, r"(tensorflow|keras)(\.|$)"),
)


def install_filters() -> None:
    """Add the filters to the process; for commands, which own theirs."""
    for category, module in _NOISY:
        warnings.filterwarnings("ignore", category=category, module=module)


def hush_loggers() -> None:
    """Silence what third parties log below an error; for commands, before TensorFlow is loaded.

    TensorFlow's C++ side reads its level once, when it is loaded: 3 leaves out its notes on
    missing GPU libraries, which it calls errors.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("petastorm", "tensorflow", "absl", "py4j"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Logs as an error what it raises in the next line.
    logging.getLogger("petastorm.pytorch").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_not_of_py4j)


def hush_accumulators(context: SparkContext) -> None:
    """PySpark's server for accumulators, of which we have none, prints a traceback when the JVM
    ends; whoever waits for the JVM is told anyway."""
    server = getattr(context, "_accumulatorServer", None)
    if server is not None:
        server.handle_error = lambda request, address: None


def _not_of_py4j(record: logging.LogRecord) -> bool:
    """py4j logs a broken connection to the root logger, with a traceback, and then raises it."""
    return f"{os.sep}py4j{os.sep}" not in record.pathname


@contextmanager
def third_party_warnings_hushed() -> Iterator[None]:
    """The filters for a block; for library calls inside a user's own program."""
    with warnings.catch_warnings():
        install_filters()
        yield


@contextmanager
def native_stderr_to(log: Path) -> Iterator[None]:
    """What writes to file descriptor 2 inside the block writes to `log`: C++ libraries while they
    are loaded, and for their whole life the processes started here (the JVM, its workers)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    kept = os.dup(2)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.dup2(target, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(target)
