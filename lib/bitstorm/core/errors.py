"""Every error that Bitstorm raises on purpose.

A message says what was found, what was expected and what to do.

    BitstormError                      exit 1
    ├── UsageError                     exit 2: the command line or the settings
    │   └── SettingsError              every wrong setting at once
    ├── EnvironmentProblem             Java, a package or a variable does not fit
    ├── SparkFailure                   a Spark job failed, or its Java process ended
    ├── SourceError                    the price source gave no usable answer
    │   ├── Unreachable                no answer: connection, time-out, server fault
    │   ├── RateLimited                429 or our own limit, with the seconds to wait
    │   ├── CreditsSpent               the month's budget of calls is used up
    │   ├── HistoryTooOld              older than the plan allows (10012)
    │   ├── KeyProblem                 missing, wrong or refused key (10002, 401, 403)
    │   ├── WrongHostForKey            demo key on the pro host or the reverse (10010, 10011)
    │   ├── UnknownCoin                the source does not know the coin
    │   ├── UnknownCurrency            the source does not quote in the currency
    │   └── BadAnswer                  an answer that breaks the API's promises
    ├── WorkspaceError                 a workspace that cannot be used
    │   └── WorkspaceBound             it belongs to another source, coin or currency
    ├── BatchError                     a CSV batch or a foreign file as a whole
    ├── StoreError                     a data set on disk
    │   ├── SnapshotMissing            there is no snapshot, or none with that ID
    │   ├── SnapshotDamaged            it differs from its manifest
    │   ├── SealBroken                 the written files break a promise
    │   └── Overtaken                  another run published first: merge again
    ├── DataError                      too little data, or unusable data
    ├── LookAhead                      an output changes with later input
    ├── ModelError                     a training run that cannot be used
    │   └── BrokenOff                  a training that ended early; `train --resume` continues it
    └── NothingToDo                    exit 3 with --fail-if-idle, else exit 0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class BitstormError(Exception):
    """The root. `str(error)` is one clear sentence for the user."""

    exit_code = 1


class UsageError(BitstormError):
    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One wrong setting: its key path, its origin, and a message (found, expected)."""

    key: str
    origin: str
    message: str

    def __str__(self) -> str:
        return f"{self.key} (from {self.origin}): {self.message}"


class SettingsError(UsageError):
    """All problems of the settings together."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = f"{count} setting{'s are' if count > 1 else ' is'} wrong:"
        super().__init__("\n  ".join([head, *map(str, self.problems)]))


class EnvironmentProblem(BitstormError):
    pass


class SparkFailure(BitstormError):
    pass


class SourceError(BitstormError):
    pass


class Unreachable(SourceError):
    pass


class RateLimited(SourceError):
    """`retry_after` is the wait in seconds, None where it is unknown."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class CreditsSpent(SourceError):
    pass


class HistoryTooOld(SourceError):
    pass


class KeyProblem(SourceError):
    pass


class WrongHostForKey(SourceError):
    pass


class UnknownCoin(SourceError):
    pass


class UnknownCurrency(SourceError):
    pass


class BadAnswer(SourceError):
    pass


class WorkspaceError(BitstormError):
    pass


class WorkspaceBound(WorkspaceError):
    pass


class BatchError(BitstormError):
    """`rule` is the broken rule, as in `rejects/`."""

    def __init__(self, message: str, *, rule: str = "batch_readable") -> None:
        super().__init__(message)
        self.rule = rule


class StoreError(BitstormError):
    pass


class SnapshotMissing(StoreError):
    pass


class SnapshotDamaged(StoreError):
    pass


class SealBroken(StoreError):
    pass


class Overtaken(StoreError):
    pass


class DataError(BitstormError):
    pass


class LookAhead(BitstormError):
    pass


class ModelError(BitstormError):
    pass


class BrokenOff(ModelError):
    pass


class NothingToDo(BitstormError):
    exit_code = 3


def first_line(error: BaseException) -> str:
    """The first line of the error's message; its class where the message is empty."""
    try:
        text = str(error).strip()
    except Exception:  # noqa: BLE001 - some of Spark's errors fail in str()
        text = ""
    return text.splitlines()[0] if text else type(error).__name__
