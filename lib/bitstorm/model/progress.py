"""How far a training is, for whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

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
