"""Instants and durations: int64 Unix milliseconds UTC inside, text at the edges."""

from __future__ import annotations

import re
from datetime import UTC, datetime

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_UNITS_MS = {
    "ms": 1,
    "s": SECOND_MS,
    "m": MINUTE_MS,
    "min": MINUTE_MS,
    "h": HOUR_MS,
    "d": DAY_MS,
    "w": 7 * DAY_MS,
}
_DURATION = re.compile(r"(\d+)(ms|s|min|m|h|d|w)")


def duration_ms(text: str) -> int:
    """Milliseconds of a duration such as `30s`, `5m`, `5min`, `1h`, `1d`, `1w`.

    Raises ValueError for anything else, zero included.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit: 30s, 5m, 1h, 1d")
    return int(match[1]) * _UNITS_MS[match[2]]


def duration_text(milliseconds: int) -> str:
    """The shortest exact text of a duration: 3_600_000 → `1h`, 0 → `0s`."""
    if milliseconds == 0:
        return "0s"
    for unit in ("w", "d", "h", "m", "s"):
        if milliseconds % _UNITS_MS[unit] == 0 and milliseconds >= _UNITS_MS[unit]:
            return f"{milliseconds // _UNITS_MS[unit]}{unit}"
    return f"{milliseconds}ms"


def now_ms() -> int:
    """The machine's clock as Unix milliseconds."""
    return int(datetime.now(UTC).timestamp() * 1000)


def iso(timestamp_ms: int) -> str:
    """`2021-05-16T08:19:47.123Z`; without the fraction when it is zero."""
    moment = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    fraction = timestamp_ms % 1000
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + (f".{fraction:03d}Z" if fraction else "Z")


def parse_instant(text: str) -> int:
    """Unix milliseconds of an ISO-8601 date or date-time (no offset means UTC) or an integer.

    An integer below 10^11 is seconds, else milliseconds. Raises ValueError.
    """
    stripped = text.strip()
    if re.fullmatch(r"\d{1,15}", stripped):
        value = int(stripped)
        return value * 1000 if value < 10**11 else value
    try:
        moment = datetime.fromisoformat(stripped)
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time; write ISO-8601 (2024-03-01T12:00:00Z) or Unix seconds"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
