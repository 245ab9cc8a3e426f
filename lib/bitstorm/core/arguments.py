"""Checks of the arguments of the public interface: each raises UsageError with the name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from bitstorm.core.errors import UsageError
from bitstorm.core.time import duration_ms, parse_instant

N = TypeVar("N", int, float)
# ISO-8601, Unix seconds or milliseconds, or a datetime (naive: UTC).
Time = str | int | datetime


def instant(name: str, value: Time) -> int:
    """A time as Unix ms UTC."""
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return _parsed(name, parse_instant, text)


def length(name: str, value: str | timedelta) -> int:
    """A duration, such as `"4h"`, in ms."""
    text = value if isinstance(value, str) else f"{value // timedelta(milliseconds=1)}ms"
    return _parsed(name, duration_ms, text)


def at_least(least: int, name: str, value: N) -> N:
    """The value, which must not be below `least`."""
    if value < least:
        raise UsageError(f"{name}: found {value}, expected at least {least}")
    return value


def _parsed(name: str, parse: Callable[[str], int], text: str) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
