"""A way in a process of its own: asked with a line of JSON, it answers with its seconds.

A session's master and settings cannot be changed, so each that is compared has its own process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Failed(Exception):
    """The way ended with an error, or with its process; the text says which."""


class Capped(Exception):
    """The way took longer than it may."""


@dataclass(frozen=True)
class Served:
    """A running process; ask it with `seconds`."""

    process: subprocess.Popen[str]

    def kill(self) -> None:
        """With all that it has started: a JVM outlives the Python that is killed."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def seconds(self, *, limit: float | None = None, **request: Any) -> float:
        """One run of what is requested. Raises Failed, and Capped after `limit` seconds."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps(request, default=str) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise Failed(f"the process has ended with {self.process.wait()}") from None
        if not select.select([stdout], [], [], limit)[0]:
            self.kill()
            raise Capped(f"not done after {limit:g} s")
        answer = stdout.readline().strip()
        if not answer:
            raise Failed(f"the process has ended with {self.process.wait()}")
        if answer.startswith("!"):
            raise Failed(answer.lstrip("! "))
        return float(answer)


@contextmanager
def served(module: str, *arguments: str | Path, log: Path | None = None) -> Iterator[Served]:
    """`python -m MODULE ARGUMENTS`, which ends with the block; its standard error goes to `log`."""
    # A cluster's executors would take the system's Python, and its driver another interface.
    environ = {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        stderr = None if log is None else stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environ,
            text=True,
            start_new_session=True,
        )
        program = Served(process)
        try:
            yield program
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=30)
        finally:
            program.kill()
            process.communicate()


def serve(run: Callable[[dict[str, Any]], None]) -> None:
    """Answer each line of standard input: `run` is given what is requested, and timed."""
    for line in sys.stdin:
        request = json.loads(line)
        began = time.perf_counter()
        try:
            run(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, the asker is told
            text = str(error).strip().splitlines() or [""]
            print(f"! {type(error).__name__}: {_telling(text)}", flush=True)
        else:
            print(time.perf_counter() - began, flush=True)


def _telling(lines: list[str]) -> str:
    """The line of a stack of Java's or Python's that names the cause, or the first."""
    words = ("OutOfMemory", "Caused by", "Error: ")
    causes = [line for line in lines if any(word in line for word in words)]
    return (causes or lines)[0].strip()[:300]
