"""`collect --every`: a look at the market at every full step of the clock, until told to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from bitstorm.collect.live import Collected
from bitstorm.errors import (
    BitstormError,
    KeyProblem,
    UnknownCoin,
    UnknownCurrency,
    UsageError,
    WorkspaceBound,
    WrongHostForKey,
)
from bitstorm.instants import SECOND_MS, duration_text, iso, now_ms
from bitstorm.pipelines.collect import collect
from bitstorm.pipelines.context import Context

# What the next look would meet again. All else (an outage, a full disk, spent credits) may pass.
FATAL = (UsageError, KeyProblem, WrongHostForKey, UnknownCoin, UnknownCurrency, WorkspaceBound)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_JOB = "collect"
_WATCH_SECONDS = 0.25
# Clocks are slewed all the time; a step is more than that.
_STEP_SECONDS = 1.0


@dataclass(frozen=True)
class Kept:
    """What the looks came to, until the signal."""

    runs: int = 0
    landed: int = 0
    stale: int = 0
    failed: int = 0


class _Stopped(BaseException):
    """Raised by the signal's handler, and only while a request is under way."""


class _Stop:
    """SIGTERM and SIGINT: a request is broken off, a write is finished."""

    def __init__(self) -> None:
        self.requested = False
        self._asking = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if self._asking:
            self._asking = False
            raise _Stopped

    @contextmanager
    def asking(self) -> Iterator[None]:
        self._asking = not self.requested
        try:
            if self.requested:
                raise _Stopped
            yield
        finally:
            self._asking = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
            after = iso(_next_step(now_ms(), every_ms))
            context.console.warn(f"{_one_line(error)}; the next look is at {after}")
        except Exception as error:  # noqa: BLE001 - the scheduler would swallow it
            failure = error
        else:
            kept = replace(
                kept,
                runs=kept.runs + 1,
                landed=kept.landed + (not found.stale),
                stale=kept.stale + found.stale,
            )
            context.console.say(_told(found))

    with stop.installed():
        look()
        if failure is None and not stop.requested:
            _repeat(look, every_ms, until=lambda: stop.requested or failure is not None)
    if failure is not None:
        raise failure
    return kept


def _repeat(look: Callable[[], None], every_ms: int, *, until: Callable[[], bool]) -> None:
    """Call `look` in this thread at every step of the clock until `until()` holds."""
    from apscheduler.executors.debug import DebugExecutor
    from apscheduler.schedulers.blocking import BlockingScheduler
    from apscheduler.triggers.interval import IntervalTrigger

    def trigger() -> Any:
        return IntervalTrigger(
            seconds=every_ms / SECOND_MS, start_date=datetime(1970, 1, 1, tzinfo=UTC), timezone=UTC
        )

    # The debug executor runs a look in the scheduler's own thread, which is the one that signals
    # interrupt; with it looks can't overlap either.
    scheduler = BlockingScheduler(timezone=UTC, executors={"default": DebugExecutor()})

    def job() -> None:
        look()
        # The scheduler counts its next wait from before the look: without this it would wake up
        # late by as long as the look took.
        scheduler.wakeup()

    scheduler.add_job(job, trigger(), id=_JOB, coalesce=True, misfire_grace_time=None)
    ended = threading.Event()

    def watch() -> None:
        """Ends the scheduler, and tells it of steps of the clock: it waits by a clock that does
        not see them (nor, on Linux, the time that a machine sleeps)."""
        offset = time.time() - time.monotonic()
        while not ended.wait(_WATCH_SECONDS):
            if until() and scheduler.running:
                scheduler.shutdown(wait=False)
                return
            step = time.time() - time.monotonic() - offset
            if abs(step) > _STEP_SECONDS:
                offset += step
                if step < 0:
                    scheduler.reschedule_job(_JOB, trigger=trigger())
                else:
                    scheduler.wakeup()

    watcher = threading.Thread(target=watch, name="bitstorm-watch", daemon=True)
    watcher.start()
    try:
        scheduler.start()
    finally:
        ended.set()
        watcher.join()


def _next_step(moment_ms: int, every_ms: int) -> int:
    return (moment_ms // every_ms + 1) * every_ms


def _told(found: Collected) -> str:
    observation = found.observation
    seen = f"{observation.price:,.2f} at {iso(observation.timestamp)}"
    if found.stale or found.batch is None:
        return f"{seen}: stale"
    return f"{seen} → {found.batch.path.name}"


def _one_line(error: BitstormError) -> str:
    return " ".join(str(error).split())
