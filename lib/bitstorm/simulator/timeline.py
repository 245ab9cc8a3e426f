"""When the API has its points, as recorded from CoinGecko: off the grid, and not one an hour.

Each is a pure function of (seed, hour) or (seed, five minutes), so that every answer that covers
a moment shows the same points there. All functions take and give Unix milliseconds, bounds
included, ascending.
"""

from __future__ import annotations

import numpy as np

from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from bitstorm.simulator.market import Floats, Ints, uniform

FIVE_MINUTES_MS = 5 * MINUTE_MS

# Of 720 recorded hours 4 had no point and 6 had two.
_EMPTY, _DOUBLED = 4 / 720, 6 / 720
# How far past the hour a point lies, in seconds: 5 % below 55, half below 200, 95 % below 1200.
_OFFSET_SHARES = [0.0, 0.05, 0.50, 0.95, 1.0]
_OFFSET_LOGS = np.log([5.0, 55.0, 200.0, 1200.0, 3500.0])
# Distances of "5-minute" points were 132 to 502 seconds.
_FIVE_MINUTE_JITTER_MS = 170_000

_COUNT, _FIRST, _SECOND, _FIVE = range(201, 205)


def hourly(seed: int, first_ms: int, last_ms: int) -> Ints:
    hours = np.arange(first_ms // HOUR_MS, last_ms // HOUR_MS + 1, dtype=np.int64)
    drawn = uniform(seed, _COUNT, hours)
    once, twice = drawn >= _EMPTY, drawn >= 1 - _DOUBLED
    stamps = np.concatenate(
        [
            hours[once] * HOUR_MS + _offsets(uniform(seed, _FIRST, hours[once])),
            hours[twice] * HOUR_MS + _offsets(uniform(seed, _SECOND, hours[twice])),
        ]
    )
    return _within(np.unique(stamps), first_ms, last_ms)


def five_minutely(seed: int, first_ms: int, last_ms: int) -> Ints:
    slots = np.arange(first_ms // FIVE_MINUTES_MS, last_ms // FIVE_MINUTES_MS + 1, dtype=np.int64)
    jitter = (uniform(seed, _FIVE, slots) * _FIVE_MINUTE_JITTER_MS).astype(np.int64)
    return _within(slots * FIVE_MINUTES_MS + jitter, first_ms, last_ms)


def daily(first_ms: int, last_ms: int) -> Ints:
    return np.arange(-(-first_ms // DAY_MS), last_ms // DAY_MS + 1, dtype=np.int64) * DAY_MS


def _offsets(shares: Floats) -> Ints:
    logs = np.interp(shares, _OFFSET_SHARES, _OFFSET_LOGS)
    return (np.exp(logs) * 1000).astype(np.int64)


def _within(stamps: Ints, first_ms: int, last_ms: int) -> Ints:
    return stamps[(stamps >= first_ms) & (stamps <= last_ms)]
