"""Long work: SIGINT and SIGTERM end it between two steps; a loop repeats work by the clock."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bitstorm.core.errors import BrokenOff
from bitstorm.core.time import SECOND_MS, now_ms

_NAP_SECONDS = 0.25

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Notes the first signal; a second one raises KeyboardInterrupt at once."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name

    def check(self) -> None:
        """Call it between two batches. Raises BrokenOff after a signal."""
        if self.signal is not None:
            raise BrokenOff(f"stopped by {self.signal}")

    @contextmanager
    def catch_signals(self) -> Iterator[None]:
        """Handle signals in the block, in the main thread only: no other thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def repeat_every(every_ms: int, work: Callable[[], None], *, until: Callable[[], bool]) -> None:
    """Call `work` now, and once in every step of the clock (UTC), until `until()` holds."""
    last: int | None = None
    while not until():
        moment = now_ms()
        step = moment // every_ms
        # `last` follows a clock that is set back, so that the work goes on.
        due, last = last is None or step > last, step
        if due:
            work()
        else:
            # Short naps: the clock can be set, the machine can sleep, a signal can come.
            wait = next_step(moment, every_ms) - moment
            time.sleep(min(_NAP_SECONDS, wait / SECOND_MS))


def next_step(moment_ms: int, every_ms: int) -> int:
    """The start (Unix ms) of the step after this moment."""
    return (moment_ms // every_ms + 1) * every_ms
