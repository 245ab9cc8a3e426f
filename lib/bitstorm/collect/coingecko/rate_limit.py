"""The calls so far, in a file that all runs of a workspace share: bucket and credits.

Each change is one step under a lock: read, write a temporary file, sync it, rename it, sync the
folder. A killed run leaves the old file or the new one, and the kernel frees its lock; the next run
removes a half-written one.

The bucket: so many tokens, each back a minute after the call that took it. So no minute, wherever
it begins, has more calls than the plan allows, and a full bucket still lets its calls go at once (a
year of history is five calls). Credits: one a call, by calendar month in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bitstorm.core import durable_io
from bitstorm.core.errors import CreditsSpent, RateLimited, WorkspaceError
from bitstorm.core.settings import Source
from bitstorm.core.time import iso, now_ms

# A second over the minute: calls take unequal time to arrive, and the server counts arrivals.
TOKEN_MS = 61_000
# The longest wait in the queue. A later booking comes from another clock.
LONGEST_QUEUE_MS = 600_000
WARN_PERCENT = 80
_MONTHS_KEPT = 12


@dataclass(frozen=True)
class Limits:
    """Calls a minute and credits a month; None is no limit."""

    calls_per_minute: int | None
    monthly_credits: int | None


# The vendor's limits of each plan; for paid plans the smallest.
PLANS: Mapping[Literal["keyless", "demo", "pro"], Limits] = MappingProxyType(
    {"keyless": Limits(5, None), "demo": Limits(30, 10_000), "pro": Limits(250, 100_000)}
)


def limits_of(source: Source, *, local: bool) -> Limits:
    """The limits of the settings (0: none), else the plan's; a `local` host has none."""
    plan = Limits(None, None) if local else PLANS[source.plan]
    calls, credits = source.calls_per_minute, source.monthly_credits
    return Limits(
        plan.calls_per_minute if calls is None else calls or None,
        plan.monthly_credits if credits is None else credits or None,
    )


class _Count(BaseModel):
    """The file: moments (Unix ms) of the last minute's calls, and credits by month."""

    model_config = ConfigDict(strict=True, frozen=True)

    calls: list[int]
    credits: dict[str, int]


class RateLimit:
    """Takes a call's token and credit before the call leaves.

    `file` and its folder are made at the first call. `warn` gets a line when credits run low.
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
        self._moment = 0

    def take(self) -> float:
        """Book one call; returns the seconds to wait before it may leave.

        Raises CreditsSpent when the month's budget is used up, RateLimited when so many runs queue
        that the wait is longer than ten minutes, WorkspaceError when the file cannot be read or
        written. An error books nothing.
        """
        per_minute, budget = self.limits.calls_per_minute, self.limits.monthly_credits
        now = self._clock()
        month = month_of(now)
        with self._locked() as count:
            spent = count.credits.get(month, 0)
            if budget is not None and spent >= budget:
                raise CreditsSpent(
                    f"all {budget:,} credits of {month} are spent (counted in {self._file}), so "
                    f"no call was made; they begin anew at {iso(next_month_ms(now))}: wait, or "
                    "raise source.monthly_credits if the plan has more"
                )
            moment, calls = now, count.calls
            if per_minute is not None:
                moment, calls = next_call(calls, now_ms=now, per_minute=per_minute)
            if moment - now > LONGEST_QUEUE_MS:
                raise RateLimited(
                    f"other runs of this workspace have booked all calls of the next "
                    f"{LONGEST_QUEUE_MS // 60_000} minutes ({per_minute} a minute, "
                    "source.calls_per_minute), so no call was made; run fewer at a time",
                    retry_after=(moment - now) / 1000,
                )
            self._write(calls, with_credits(count.credits, month, 1))
        self._month, self._moment = month, moment
        if budget is not None and worth_a_warning(spent + 1, budget):
            self._warn(
                f"{spent + 1:,} of the {budget:,} credits of {month} are spent "
                "(source.monthly_credits); calls stop at the last one until "
                f"{iso(next_month_ms(now))}"
            )
        return (moment - now) / 1000

    def give_back(self, *, unused: bool) -> None:
        """Return the last call's credit, because its status was not 200; an `unused` call, which
        never left this machine, gets its token back too."""
        if self._month is None:
            return
        with self._locked() as count:
            calls = list(count.calls)
            if unused and self._moment in calls:
                calls.remove(self._moment)
            self._write(calls, with_credits(count.credits, self._month, -1))
        self._month = None

    @contextmanager
    def _locked(self) -> Iterator[_Count]:
        """The file's content; no other run changes it inside the block."""
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with durable_io.file_lock(self._file.with_name(f".{self._file.name}.lock")):
                durable_io.delete_leftovers(self._file)
                yield self._read()
        except OSError as error:
            raise WorkspaceError(
                f"the calls cannot be counted in {self._file} ({error.strerror}), so no call was "
                "made; make room or set the folder's permissions right"
            ) from None

    def _read(self) -> _Count:
        try:
            return _Count.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return _Count(calls=[], credits={})
        except ValidationError as error:
            raise WorkspaceError(
                f"{self._file} is not a count of calls ({error.errors()[0]['msg']}); restore it, "
                "or remove it: the month's credits then count from zero"
            ) from None

    def _write(self, calls: list[int], credits: dict[str, int]) -> None:
        text = _Count(calls=calls, credits=credits).model_dump_json() + "\n"
        durable_io.replace(self._file, text.encode())


def next_call(calls: Sequence[int], *, now_ms: int, per_minute: int) -> tuple[int, list[int]]:
    """The moment (Unix ms) at which the next call may leave, and the recent calls with it.

    `calls` are the moments of earlier calls, also of those that still wait. After the clock went
    back they lie in the future: they count as made now, so the wait stays a minute.
    """
    bounded = sorted(now_ms if call > now_ms + LONGEST_QUEUE_MS else call for call in calls)
    recent = [call for call in bounded if call > now_ms - TOKEN_MS]
    moment = now_ms
    if len(recent) >= per_minute:
        moment = max(now_ms, recent[-per_minute] + TOKEN_MS)
    return moment, [*recent, moment]


def month_of(now_ms: int) -> str:
    """`2026-05` of a moment in Unix ms."""
    return datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m")


def next_month_ms(now_ms: int) -> int:
    """The first moment of the following month, Unix ms UTC."""
    moment = datetime.fromtimestamp(now_ms // 1000, UTC)
    years, month = divmod(moment.month, 12)
    return round(datetime(moment.year + years, month + 1, 1, tzinfo=UTC).timestamp() * 1000)


def with_credits(credits: Mapping[str, int], month: str, by: int) -> dict[str, int]:
    """The months with `by` added to one, never below zero; only the newest twelve stay."""
    months = {**credits, month: max(0, credits.get(month, 0) + by)}
    return {name: months[name] for name in sorted(months)[-_MONTHS_KEPT:]}


def worth_a_warning(spent: int, budget: int) -> bool:
    """Whether this call reaches a new whole percent of the budget, from 80 on."""
    percent = 100 * spent // budget
    return percent >= WARN_PERCENT and percent > 100 * (spent - 1) // budget
