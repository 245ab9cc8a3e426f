"""Batches drawn in a thread of their own, so that nothing in a feed can hold up the training.

petastorm's readers can hang for ever, and a thread that hangs in C sees no signal. So the main
thread only ever waits on a queue, with a deadline, and looks at the signals that came.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Generic, TypeVar

from bitstorm.errors import BrokenOff

T = TypeVar("T")

# The command line leaves at once where a thread of this name still runs.
THREAD = "bitstorm-feed"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Batches that lie ready: enough to open the next reader meanwhile, a megabyte of windows.
AHEAD = 16
_POLL_SECONDS = 0.1
# A reader that is told to end and does not within this is left behind.
_CLOSE_SECONDS = 1.0
# A step of the optimiser that outlasts this after a signal is not waited for.
GRACE_SECONDS = 3.0


class Stop:
    """SIGINT and SIGTERM, noted: the training looks at `signal` between two batches. A second one
    raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    @contextmanager
    def installed(self, overdue: Callable[[str], None]) -> Iterator[None]:
        """For the block, where it is in the main thread (no other can have signals).

        `overdue` is called, in another thread, with the signal's name when the block has not ended
        GRACE_SECONDS after it: Python's handlers don't run while the main thread is inside of a
        long operation of TensorFlow's.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle) for number in SIGNALS}
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        # Written to by the C handler, at once.
        wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        ended = threading.Event()

        def watch() -> None:
            while True:
                number = ours.recv(1)
                if not number or ended.is_set():
                    return
                if number[0] in SIGNALS:
                    if not ended.wait(GRACE_SECONDS):
                        overdue(signal.Signals(number[0]).name)
                    return

        watcher = threading.Thread(target=watch, name="bitstorm-signals", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            signal.set_wakeup_fd(wakeup)
            theirs.close()
            watcher.join()
            ours.close()
            for number, handler in before.items():
                signal.signal(number, handler)


class Supervised(Generic[T]):
    """The items of a source, drawn ahead in a thread; the source is closed there too.

    Raises BrokenOff with the cause where the source fails, where a signal came, or where no item
    came for `deadline_seconds`; and the same again at every call after that.
    """

    def __init__(
        self,
        source: Iterator[T],
        *,
        stop: Stop,
        deadline_seconds: float,
        ahead: int = AHEAD,
    ) -> None:
        # Seconds that the calls have waited for items.
        self.waited = 0.0
        self._source = source
        self._stop = stop
        self._deadline = deadline_seconds
        self._ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(ahead)
        self._closed = threading.Event()
        self._end: BaseException | None = None
        self._thread = threading.Thread(target=self._draw, name=THREAD, daemon=True)

    def __enter__(self) -> Supervised[T]:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closed.set()
        self._thread.join(_CLOSE_SECONDS)

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        if self._end is None:
            began = time.monotonic()
            try:
                return self._next(until=began + self._deadline)
            except BaseException as error:
                self._end = error
                raise
            finally:
                self.waited += time.monotonic() - began
        raise self._end

    def _next(self, *, until: float) -> T:
        while True:
            if self._stop.signal is not None:
                raise BrokenOff(f"stopped by {self._stop.signal}")
            try:
                item, error = self._ready.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if time.monotonic() >= until:
                    raise BrokenOff(
                        f"no batch came for {self._deadline:g} s (training.deadline_seconds)"
                    ) from None
                continue
            if isinstance(error, StopIteration):
                raise error
            if error is not None:
                raise BrokenOff(cause(error)) from error
            return item  # type: ignore[return-value]

    def _draw(self) -> None:
        """In the thread: hand over until the source ends, fails, or nobody wants more."""
        last: BaseException = StopIteration()
        try:
            for item in self._source:
                if not self._put((item, None)):
                    break
        except BaseException as error:  # noqa: BLE001 - it is the main thread's to raise
            last = error
        finally:
            with contextlib.suppress(Exception):
                self._source.close()  # type: ignore[attr-defined]
        self._put((None, last))

    def _put(self, entry: tuple[T | None, BaseException | None]) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(entry, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False


def cause(error: BaseException) -> str:
    """One line. What fails in a feed comes out of TensorFlow as a line of a long text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = next((line for line in reversed(lines) if "Error: " in line), None)
    return named.split("Error: ")[-1].strip() if named else (lines or [type(error).__name__])[0]


def end_overdue(sentence: str) -> None:
    """For `Stop.installed`: say it and end the process; its main thread does not come back from an
    operation of the backend's."""
    sys.stderr.write(f"\nbitstorm: {sentence}\n")
    sys.stderr.flush()
    os._exit(1)


def leave(code: int) -> None:
    """End the process now, where a thread that hangs in a reader would keep it from ending."""
    if any(thread.name == THREAD for thread in threading.enumerate()):
        os._exit(code)
