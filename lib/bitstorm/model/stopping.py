"""SIGINT and SIGTERM end a training after the current batch, so that it can go on later."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from bitstorm.core.errors import BrokenOff

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """The first signal is noted; a second one raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def check(self) -> None:
        """Call it between two batches. Raises BrokenOff where a signal came."""
        if self.signal is not None:
            raise BrokenOff(f"stopped by {self.signal}")

    @contextmanager
    def installed(self) -> Iterator[None]:
        """For the block, where it is in the main thread: no other can have signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
