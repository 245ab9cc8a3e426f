"""The calls made so far, in a file that all runs of a workspace share: bucket and credits.

Each change is one step under a lock: read, temporary file, fsync, rename, fsync of the folder. A
run that is killed leaves the old file or the new one, and the kernel frees its lock; a half
written one the next run removes.

The bucket: so many tokens, each back a minute after the call that took it. That way no minute,
wherever it begins, sees more calls than the plan allows, while a bucket that is full still lets
them go at once (a year of history is five calls). Credits: one a call, by calendar month in UTC.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from bitstorm.core import durable_io
from bitstorm.core.config import Source
from bitstorm.core.errors import CreditsSpent, RateLimited, WorkspaceError
from bitstorm.core.time import iso, now_ms

# A second over the minute: calls take unequal time to arrive, and the server counts arrivals.
TOKEN_MS = 61_000
# Nobody queues for longer. What was booked further ahead than this was booked by another clock.
LONGEST_QUEUE_MS = 600_000
WARN_PERCENT = 80
_MONTHS_KEPT = 12


@dataclass(frozen=True)
class Limits:
    """Calls a minute and credits a month; None is no limit."""

    calls_per_minute: int | None
    monthly_credits: int | None


# What the vendor states for each plan; of the paid ones the smallest.
PLANS: Mapping[Literal["keyless", "demo", "pro"], Limits] = MappingProxyType(
    {
        "keyless": Limits(5, None),
        "demo": Limits(30, 10_000),
        "pro": Limits(250, 100_000),
    }
)


@dataclass(frozen=True)
class _Ledger:
    uses: list[int]
    spent: dict[str, int]


def limits_of(source: Source, *, local: bool) -> Limits:
    """The limits of the settings, else the plan's; a `local` host has none of its own.

    In the settings 0 means none.
    """
    plan = Limits(None, None) if local else PLANS[source.plan]
    calls, credits = source.calls_per_minute, source.monthly_credits
    return Limits(
        plan.calls_per_minute if calls is None else calls or None,
        plan.monthly_credits if credits is None else credits or None,
    )


class RateLimit:
    """Takes a call's token and credit before it leaves.

    `file` is made when first needed, its folder too. `warn` is told when the credits run low.
    `clock` gives Unix ms.
    """

    def __init__(
        self,
        file: Path,
        limits: Limits,
        *,
        warn: Callable[[str], None],
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self.limits = limits
        self._file = file
        self._warn = warn
        self._clock = clock
        self._month: str | None = None
        self._swept = False

    def take(self) -> float:
        """Book one call; returns the seconds to wait before it may leave.

        Raises CreditsSpent when the month's budget is used up, RateLimited when so many runs queue
        that the wait would be longer than ten minutes, WorkspaceError when the file cannot be read
        or written. What raises books nothing.
        """
        calls, budget = self.limits.calls_per_minute, self.limits.monthly_credits
        now = self._clock()
        month = month_of(now)
        with self._held() as ledger:
            spent = ledger.spent.get(month, 0)
            if budget is not None and spent >= budget:
                raise CreditsSpent(
                    f"all {budget:,} credits of {month} are spent (counted in {self._file}), so "
                    f"nothing was asked; they begin anew at {iso(next_month_ms(now))}: wait, or "
                    "raise source.monthly_credits if the plan has more"
                )
            moment, uses = now, ledger.uses
            if calls is not None:
                moment, uses = booked(ledger.uses, now_ms=now, per_minute=calls)
            if moment - now > LONGEST_QUEUE_MS:
                raise RateLimited(
                    f"other runs of this workspace have booked all calls of the next "
                    f"{LONGEST_QUEUE_MS // 60_000} minutes ({calls} a minute, "
                    "source.calls_per_minute), so nothing was asked; run fewer at a time",
                    retry_after=(moment - now) / 1000,
                )
            self._write(_Ledger(uses, changed(ledger.spent, month, 1)))
        self._month = month
        if budget is not None and worth_a_warning(spent + 1, budget):
            self._warn(
                f"{spent + 1:,} of the {budget:,} credits of {month} are spent "
                "(source.monthly_credits); then nothing is asked until "
                f"{iso(next_month_ms(now))}"
            )
        return (moment - now) / 1000

    def give_back(self) -> None:
        """The last call was not answered with 200: its credit is not spent, its token is."""
        if self._month is None:
            return
        with self._held() as ledger:
            self._write(_Ledger(ledger.uses, changed(ledger.spent, self._month, -1)))
        self._month = None

    @contextmanager
    def _held(self) -> Iterator[_Ledger]:
        """The file's content, which nobody else changes inside the block."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._file.with_name(f".{self._file.name}.lock"), os.O_RDWR | os.O_CREAT)
            try:
                durable_io.lock(lock)
                if not self._swept:
                    durable_io.sweep(self._file)
                    self._swept = True
                yield self._read()
            finally:
                os.close(lock)
        except OSError as error:
            raise WorkspaceError(
                f"the calls cannot be counted in {self._file} ({error.strerror}), so nothing was "
                "asked; make room or set the folder's permissions right"
            ) from None

    def _read(self) -> _Ledger:
        try:
            content = json.loads(self._file.read_bytes())
            uses, spent = content["calls"], content["credits"]
            if all(type(n) is int for n in (*uses, *spent.values())):
                return _Ledger(uses, spent)
            problem = "a count is no integer"
        except FileNotFoundError:
            return _Ledger([], {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problem = type(error).__name__
        raise WorkspaceError(
            f"{self._file} is not a count of calls ({problem}); restore it, or remove it: the "
            "month's credits then count from zero"
        )

    def _write(self, ledger: _Ledger) -> None:
        text = json.dumps({"calls": ledger.uses, "credits": ledger.spent}) + "\n"
        durable_io.replace(self._file, text.encode())


def booked(uses: Sequence[int], *, now_ms: int, per_minute: int) -> tuple[int, list[int]]:
    """The moment (Unix ms) at which the next call may leave, and the uses with it among them.

    `uses` are the moments of earlier calls, those that still wait for theirs included. Where the
    clock went back, they lie in the future: they count as made now, so the wait stays a minute.
    """
    settled = sorted(now_ms if use > now_ms + LONGEST_QUEUE_MS else use for use in uses)
    held = [use for use in settled if use > now_ms - TOKEN_MS]
    moment = now_ms
    if len(held) >= per_minute:
        moment = max(now_ms, held[-per_minute] + TOKEN_MS)
    return moment, [*held, moment]


def month_of(now_ms: int) -> str:
    """`2026-05` of a moment in Unix ms."""
    return datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m")


def next_month_ms(now_ms: int) -> int:
    """The first moment of the following month, Unix ms UTC."""
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    years, month = divmod(moment.month, 12)
    return round(datetime(moment.year + years, month + 1, 1, tzinfo=UTC).timestamp() * 1000)


def changed(spent: Mapping[str, int], month: str, by: int) -> dict[str, int]:
    """The months with `by` added to one of them, never below zero; the oldest ones drop out."""
    months = {**spent, month: max(0, spent.get(month, 0) + by)}
    return {name: months[name] for name in sorted(months)[-_MONTHS_KEPT:]}


def worth_a_warning(spent: int, budget: int) -> bool:
    """Whether this call reached a further whole percent of the budget, from 80 on."""
    percent = 100 * spent // budget
    return percent >= WARN_PERCENT and percent > 100 * (spent - 1) // budget
