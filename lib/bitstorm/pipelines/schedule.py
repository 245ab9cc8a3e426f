"""`collect --every`: one observation in each full step of the clock, until a signal."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

from bitstorm.collect.live import Collected
from bitstorm.context import Context
from bitstorm.core import errors
from bitstorm.core.errors import UsageError
from bitstorm.core.results import Result
from bitstorm.core.stopping import Stop, next_step, repeat_every
from bitstorm.core.time import SECOND_MS, duration_text, iso, now_ms
from bitstorm.pipelines.collect import collect

# Errors that come again at the next observation. Others (an outage, a full disk) can pass.
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
    """The number of requests until the signal, by outcome."""

    runs: int = 0
    landed: int = 0
    stale: int = 0
    failed: int = 0


class _Stopped(BaseException):
    """The signal's handler raises it, only during a request."""


class _Stop(Stop):
    """SIGTERM and SIGINT end a request at once, but let a write finish."""

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
    """Collect now, then at each multiple of `every_ms` (since 1970, UTC), until a signal.

    Requests don't overlap; after missed steps (a slow source, a sleeping machine) one request
    follows at once. A failed request prints a warning, and the next step tries again. Call this in
    the main thread. Raises UsageError for a step below a second, and the errors in `FATAL`.
    """
    if every_ms < SECOND_MS:
        raise errors.UsageError(
            f"--every is {duration_text(every_ms)}, expected at least a second; the source has a "
            "new price about once a minute"
        )
    stop, counts = _Stop(), Kept()
    failure: BaseException | None = None

    def collect_now() -> None:
        nonlocal counts, failure
        try:
            with context.stages.stage("collect") as ended:
                found = collect(context, asking=stop.asking())
                ended(found)
        except _Stopped:
            return
        except FATAL as error:
            failure = error
        except errors.BitstormError as error:
            counts = replace(counts, runs=counts.runs + 1, failed=counts.failed + 1)
            after = iso(next_step(now_ms(), every_ms))
            context.console.warn(f"{' '.join(str(error).split())}; the next request is at {after}")
        except Exception as error:  # noqa: BLE001 - raised after the signal handlers are restored
            failure = error
        else:
            landed, stale = counts.landed + (not found.stale), counts.stale + found.stale
            counts = replace(counts, runs=counts.runs + 1, landed=landed, stale=stale)
            context.console.say(_text(found))

    with stop.catch_signals():
        repeat_every(
            every_ms, collect_now, until=lambda: stop.signal is not None or failure is not None
        )
    if failure is not None:
        raise failure
    return counts


def _text(found: Collected) -> str:
    observation = found.observation
    seen = f"{observation.price:,.2f} at {iso(observation.timestamp)}"
    if found.stale or found.batch is None:
        return f"{seen}: stale"
    return f"{seen} → {found.batch.path.name}"
