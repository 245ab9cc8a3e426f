"""Keeps third-party noise from a user's terminal, each filter as narrow as its source.

petastorm 0.13 and pyarrow 14 warn of their own old names on every import and read; a user of
Bitstorm can do nothing about it. Warnings of Bitstorm's own code always show.
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
    (FutureWarning, r"(petastorm|pyarrow|pyspark)(\.|$)"),
    (DeprecationWarning, r"(petastorm|pyarrow|pyspark|tensorflow|keras)(\.|$)"),
    (UserWarning, r"(petastorm|pyspark|tensorflow|keras)(\.|$)"),
    # petastorm leaves its files to the garbage collector.
    (ResourceWarning, r"petastorm(\.|$)"),
    # Optuna loads it, which warns in a notebook that ipywidgets are not there.
    (Warning, r"tqdm(\.|$)"),
)


def install_filters() -> None:
    """Add the filters to the process; for commands, which own their process."""
    for category, module in _NOISY:
        warnings.filterwarnings("ignore", category=category, module=module)
    # py4j leaves its sockets to the garbage collector, wherever that runs.
    local = r"unclosed <socket\.socket .*127\.0\.0\.1"
    warnings.filterwarnings("ignore", message=local, category=ResourceWarning)


def hush_loggers() -> None:
    """Silence third-party logs below an error; for commands, before TensorFlow is loaded.

    TensorFlow's C++ side reads its level once, at its start: 3 leaves out its notes on missing GPU
    libraries, which it calls errors.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("petastorm", "tensorflow", "absl", "py4j", "waitress"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # It logs an error and raises it in the next line.
    logging.getLogger("petastorm.pytorch").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(_not_of_py4j)


def hush_accumulators(context: SparkContext) -> None:
    """PySpark's accumulator server prints a traceback when the JVM ends. We have no accumulators,
    and the end of the JVM raises its own error."""
    server = getattr(context, "_accumulatorServer", None)
    if server is not None:
        server.handle_error = lambda request, address: None


def _not_of_py4j(record: logging.LogRecord) -> bool:
    """py4j logs a broken connection to the root logger with a traceback, and raises it too."""
    return f"{os.sep}py4j{os.sep}" not in record.pathname


@contextmanager
def without_third_party_warnings() -> Iterator[None]:
    """The filters for the block; for library calls inside a user's own program."""
    with warnings.catch_warnings():
        install_filters()
        yield


@contextmanager
def native_stderr_to(log: Path) -> Iterator[None]:
    """Send file descriptor 2 to `log` for the block: the output of C++ libraries at their start,
    and of processes started here (the JVM, its workers) for their whole life."""
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
