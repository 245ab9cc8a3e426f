"""`collect --every`: a look at the market at every full step of the clock, until told to stop."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from bitstorm.collect.live import Collected
from bitstorm.context import Context
from bitstorm.core import errors
from bitstorm.core.errors import BitstormError, UsageError
from bitstorm.core.results import Result
from bitstorm.core.stopping import Stop, next_step, repeat_every
from bitstorm.core.time import SECOND_MS, duration_text, iso, now_ms
from bitstorm.pipelines.collect import collect

# What the next look would meet again. All else (an outage, a full disk, spent credits) may pass.
FATAL = (
    UsageError,
    errors.KeyProblem,
    errors.WrongHostForKey,
    errors.UnknownCoin,
    errors.UnknownCurrency,
    errors.WorkspaceBound,
)


@dataclass(frozen=True, repr=False)
class Kept(Result):
    """What the looks came to, until the signal."""

    runs: int = 0
    landed: int = 0
    stale: int = 0
    failed: int = 0


class _Stopped(BaseException):
    """Raised by the signal's handler, and only while a request is under way."""


class _Stop(Stop):
    """SIGTERM and SIGINT: a request is broken off, a write is finished."""

    def __init__(self) -> None:
        super().__init__()
        self._asking = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if self._asking:
            self._asking = False
            raise _Stopped

    @contextmanager
    def asking(self) -> Iterator[None]:
        self._asking = self.signal is None
        try:
            if self.signal is not None:
                raise _Stopped
            yield
        finally:
            self._asking = False


def collect_every(context: Context, every_ms: int) -> Kept:
    """One look now, then one at each multiple of `every_ms` (since 1970, UTC), until a signal.

    Looks don't overlap; of those that were missed (a slow source, a sleeping machine) one is made
    up for. What fails is told in a line, and the next look comes in its turn. To be called in the
    main thread. Raises UsageError for a step below a second, and what no later look could mend
    (`FATAL`), after the write in progress.
    """
    if every_ms < SECOND_MS:
        raise UsageError(
            f"--every {duration_text(every_ms)} is shorter than a second; the source states a new "
            "price about once a minute"
        )
    stop = _Stop()
    kept = Kept()
    failure: BaseException | None = None

    def look() -> None:
        nonlocal kept, failure
        try:
            found = collect(context, asking=stop.asking())
        except _Stopped:
            return
        except FATAL as error:
            failure = error
        except BitstormError as error:
            kept = replace(kept, runs=kept.runs + 1, failed=kept.failed + 1)
            after = iso(next_step(now_ms(), every_ms))
            context.console.warn(f"{' '.join(str(error).split())}; the next look is at {after}")
        except Exception as error:  # noqa: BLE001 - told once the signals are back
            failure = error
        else:
            kept = replace(
                kept,
                runs=kept.runs + 1,
                landed=kept.landed + (not found.stale),
                stale=kept.stale + found.stale,
            )
            context.console.say(_told(found))

    with stop.catch_signals():
        repeat_every(every_ms, look, until=lambda: stop.signal is not None or failure is not None)
    if failure is not None:
        raise failure
    return kept


def _told(found: Collected) -> str:
    seen = f"{found.observation.price:,.2f} at {iso(found.observation.timestamp)}"
    if found.stale or found.batch is None:
        return f"{seen}: stale"
    return f"{seen} → {found.batch.path.name}"
