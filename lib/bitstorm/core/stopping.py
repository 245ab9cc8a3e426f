"""Long work: SIGINT and SIGTERM end it between two steps; a loop repeats it by the clock."""

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


def repeat_every(every_ms: int, look: Callable[[], None], *, until: Callable[[], bool]) -> None:
    """Call `look` now, and once in every step of the clock (UTC), until `until()` holds."""
    taken: int | None = None
    while not until():
        moment = now_ms()
        step = moment // every_ms
        if taken is None or step > taken:
            taken = step
            look()
            continue
        # A clock that was set back must not stop the looks.
        taken = step
        # Short naps: the clock may be set, the machine may sleep, a signal may come.
        time.sleep(min(_NAP_SECONDS, (next_step(moment, every_ms) - moment) / SECOND_MS))


def next_step(moment_ms: int, every_ms: int) -> int:
    """The beginning (Unix ms) of the step after this moment."""
    return (moment_ms // every_ms + 1) * every_ms
