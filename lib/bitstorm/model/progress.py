"""The progress of a training, and its end by a signal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from bitstorm.core.errors import BrokenOff

_TELL_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """Where an epoch is. `loss` is that of the windows so far; `val_loss` is known at its end."""

    epoch: int
    epochs: int
    windows: int
    of_windows: int
    loss: float
    val_loss: float | None
    windows_per_second: float
    # Until the last epoch that there can be, at the present rate.
    seconds_left: float


class Meter:
    """Times epochs and tells their progress, ten times a second at most."""

    def __init__(
        self, windows: int, *, batch_size: int, epochs: int, tell: Callable[[Progress], None]
    ) -> None:
        self._windows, self._batch_size, self._epochs = windows, batch_size, epochs
        self._tell = tell
        self._epoch = 0
        self._began = self._told = self._trained = 0.0

    def begin(self, epoch: int) -> None:
        self._epoch = epoch
        self._began = self._told = time.monotonic()

    def batch(self, batches: int, loss: float) -> None:
        """So many batches of the epoch are done."""
        now = time.monotonic()
        if now - self._told > _TELL_SECONDS:
            self._told = now
            seen = min(batches * self._batch_size, self._windows)
            self._say(seen, now - self._began, loss, None)

    def trained(self) -> None:
        """The epoch's validation begins."""
        self._trained = time.monotonic()

    def end(self, loss: float, val_loss: float) -> float:
        """The epoch's seconds."""
        self._say(self._windows, self._trained - self._began, loss, val_loss)
        return round(time.monotonic() - self._began, 3)

    def _say(self, seen: int, seconds: float, loss: float, val_loss: float | None) -> None:
        rate = seen / seconds
        left = (self._epochs - self._epoch + 1) * self._windows - seen
        self._tell(
            Progress(
                epoch=self._epoch,
                epochs=self._epochs,
                windows=seen,
                of_windows=self._windows,
                loss=loss,
                val_loss=val_loss,
                windows_per_second=rate,
                seconds_left=left / rate,
            )
        )


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
