"""The simulated market: its price is a pure function of (seed, absolute time).

It resembles Bitcoin: volatility comes in regimes, tails are fat, volume follows volatility. On
purpose nothing predicts the next move: given the scale s of an hour, its log return is normal with
mean -s²/2 and deviation s, so the expected price after any time is the price now. The minutes
inside an hour are the Brownian bridge of the same law, so this also holds from minute to minute.

The noise is counter-based: each number is a pure function of (seed, lane, index), so any moment is
computed directly. The mixing function is SplitMix64's; the streams of NumPy's own generators can
change between versions, and a market must continue where it stopped.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS, iso

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

# Also the start of CoinGecko's hourly data: 2018-01-30T00:00:00Z.
MARKET_START_MS = 1_517_270_400_000
MARKET_END_MS = 4_102_444_800_000  # 2100-01-01T00:00:00Z
START_PRICE = 40_000.0

# Hourly standard deviation and share of each regime, and the mean hours of one.
_REGIME_SCALES = np.array([0.0028, 0.0050, 0.0105])
_REGIME_SHARES = np.array([0.40, 0.45, 0.15])
_REGIME_HOURS = 96
# Deviation of the log of the scale within a regime: fattens the tails further.
_SCALE_SPREAD = 0.35
_TURNOVER_PER_HOUR = 1.1e9  # USD, in an hour of average volatility
_TYPICAL_SCALE = 0.0055

# Circulating supply at the halvings, past and future; linear in between.
_SUPPLY_TIMES = np.array(
    [
        MARKET_START_MS,
        1_589_224_980_000,  # 2020-05-11
        1_713_571_740_000,  # 2024-04-20
        1_839_628_800_000,  # 2028-04-18
        1_965_859_200_000,  # 2032-04-18
        2_092_089_600_000,  # 2036-04-18
        MARKET_END_MS,
    ],
    dtype=np.float64,
)
_SUPPLY = np.array(
    [16_840_000, 18_375_000, 19_687_500, 20_343_750, 20_671_875, 20_835_938, 21_000_000],
    dtype=np.float64,
)

# Lanes of the noise. Any other first number is another family of markets.
_SWITCH, _REGIME, _SCALE, _RETURN, _TURNOVER, _MINUTE = range(55, 61)


class Quotes(NamedTuple):
    """The market's values at some times, as float64 arrays of one shape.

    Price, cap and the volume of the last 24 hours are in USD, the change over them is in percent;
    volume and change are NaN in the market's first day.
    """

    price: Floats
    market_cap: Floats
    volume_24h: Floats
    price_change_24h: Floats


@dataclass(frozen=True)
class _Hours:
    """The market hour by hour from its start; `log_open` and `turnover` have one more entry."""

    log_open: Floats
    log_return: Floats
    scale: Floats
    turnover: Floats


class Market:
    """A market of one seed. A query takes milliseconds; threads can share it."""

    def __init__(self, seed: int) -> None:
        if not 0 <= seed < 2**63:
            raise ValueError(f"the market's seed is {seed}; expected 0 to 2^63 - 1")
        self.seed = seed
        self._hours = _walk(seed, 0)
        self._extending = threading.Lock()

    def __repr__(self) -> str:
        return f"Market(seed={self.seed})"

    def price(self, times_ms: ArrayLike) -> Floats:
        """USD at the times (Unix ms): the price at the start of their minute.

        Raises ValueError outside [MARKET_START_MS, MARKET_END_MS).
        """
        times = np.asarray(times_ms, dtype=np.int64)
        hours = self._hours_until(times)
        minutes = (times - MARKET_START_MS) // MINUTE_MS
        hour, minute = minutes // 60, minutes % 60
        known, place = np.unique(hour, return_inverse=True)
        steps = normal(self.seed, _MINUTE, known[:, None] * 60 + np.arange(60))
        walked = np.concatenate([np.zeros((len(known), 1)), np.cumsum(steps, axis=1)], axis=1)
        share = np.arange(61) / 60
        bridge = (walked - share * walked[:, -1:]) * (hours.scale[known, None] / np.sqrt(60))
        path = hours.log_open[known, None] + share * hours.log_return[known, None] + bridge
        # A millionth of a dollar: smaller digits differ between processors.
        price: Floats = np.round(np.exp(path[place.reshape(hour.shape), minute]), 6)
        return price

    def quotes(self, times_ms: ArrayLike) -> Quotes:
        """Price, cap, rolling volume and 24 h change at the times (Unix ms); raises as `price`."""
        times = np.asarray(times_ms, dtype=np.int64)
        nodes = times // MINUTE_MS * MINUTE_MS
        price = self.price(nodes)
        day_before = np.maximum(nodes - DAY_MS, MARKET_START_MS)
        whole_day = nodes - DAY_MS >= MARKET_START_MS
        change = (price / self.price(day_before) - 1) * 100
        volume = self._traded(nodes) - self._traded(day_before)
        return Quotes(
            price=price,
            market_cap=np.round(price * np.interp(nodes, _SUPPLY_TIMES, _SUPPLY), 4),
            volume_24h=np.where(whole_day, np.round(volume, 4), np.nan),
            price_change_24h=np.where(whole_day, np.round(change, 10), np.nan),
        )

    def _traded(self, times: Ints) -> Floats:
        """The turnover in USD from the start of the market to the times."""
        since = (times - MARKET_START_MS) / HOUR_MS
        hours = self._hours
        traded: Floats = np.interp(since, np.arange(len(hours.turnover)), hours.turnover)
        return traded

    def _hours_until(self, times: Ints) -> _Hours:
        """The hours up to the newest of the times; extends the walk if needed."""
        if times.size == 0:
            return self._hours
        first, last = int(times.min()), int(times.max())
        if first < MARKET_START_MS or last >= MARKET_END_MS:
            outside = first if first < MARKET_START_MS else last
            raise ValueError(
                f"{iso(outside)} is outside the simulated market, which runs from "
                f"{iso(MARKET_START_MS)} to {iso(MARKET_END_MS)}"
            )
        needed = (last - MARKET_START_MS) // HOUR_MS + 1
        with self._extending:
            if needed > len(self._hours.scale):
                # A month more, so that a running server does not walk again every hour.
                self._hours = _walk(self.seed, needed + 720)
            return self._hours


def _walk(seed: int, count: int) -> _Hours:
    """The first `count` hours. A longer walk begins with the same bits."""
    hour = np.arange(count, dtype=np.int64)
    scale = _REGIME_SCALES[_regimes(seed, hour)] * np.exp(
        _SCALE_SPREAD * normal(seed, _SCALE, hour) - _SCALE_SPREAD**2
    )
    log_return = scale * normal(seed, _RETURN, hour) - scale**2 / 2
    log_open = np.log(START_PRICE) + np.concatenate([[0.0], np.cumsum(log_return)])
    turnover = _TURNOVER_PER_HOUR * (scale / _TYPICAL_SCALE) ** 0.8
    turnover *= np.exp(0.3 * normal(seed, _TURNOVER, hour))
    return _Hours(log_open, log_return, scale, np.concatenate([[0.0], np.cumsum(turnover)]))


def _regimes(seed: int, hour: Ints) -> Ints:
    """The regime of each hour; random hours draw a new one, which stays until the next draw."""
    drawn = np.searchsorted(np.cumsum(_REGIME_SHARES)[:-1], uniform(seed, 2 * _REGIME, hour))
    draws = uniform(seed, 2 * _SWITCH, hour) < 1 / _REGIME_HOURS
    latest = np.maximum.accumulate(np.where(draws, hour, 0))
    return drawn[latest].astype(np.int64)


def uniform(seed: int, lane: int, index: Ints) -> Floats:
    """Numbers in (0, 1), one for each index; `lane` keeps independent uses apart."""
    start = _mix_int(_mix_int(seed & _MASK) ^ (lane * _GOLDEN & _MASK))
    # At least one dimension: NumPy wraps arrays silently but warns about scalars.
    counter = np.atleast_1d(index).astype(np.uint64)
    bits = _mix(counter * np.uint64(_GOLDEN) + np.uint64(start))
    unit = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return unit.reshape(np.shape(index))


def normal(seed: int, lane: int, index: Ints) -> Floats:
    """Standard normal numbers (Box and Muller), one for each index."""
    radius = np.sqrt(-2.0 * np.log(uniform(seed, 2 * lane, index)))
    return radius * np.cos(2.0 * np.pi * uniform(seed, 2 * lane + 1, index))


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_FIRST)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_SECOND)
    return bits ^ (bits >> np.uint64(31))


def _mix_int(bits: int) -> int:
    bits = ((bits ^ (bits >> 30)) * _FIRST) & _MASK
    bits = ((bits ^ (bits >> 27)) * _SECOND) & _MASK
    return bits ^ (bits >> 31)


FIVE_MINUTES_MS = 5 * MINUTE_MS

# In 720 recorded hours, 4 had no point and 6 had two.
_EMPTY, _DOUBLED = 4 / 720, 6 / 720
# A point's seconds after the hour: 5 % below 55, half below 200, 95 % below 1200.
_OFFSET_SHARES = [0.0, 0.05, 0.50, 0.95, 1.0]
_OFFSET_LOGS = np.log([5.0, 55.0, 200.0, 1200.0, 3500.0])
# Distances of "5-minute" points were 132 to 502 seconds.
_FIVE_MINUTE_JITTER_MS = 170_000

_POINT_COUNT, _FIRST_POINT, _SECOND_POINT, _FIVE_MINUTE_POINT = range(201, 205)


def hourly(seed: int, first_ms: int, last_ms: int) -> Ints:
    hours = np.arange(first_ms // HOUR_MS, last_ms // HOUR_MS + 1, dtype=np.int64)
    drawn = uniform(seed, _POINT_COUNT, hours)
    once, twice = drawn >= _EMPTY, drawn >= 1 - _DOUBLED
    stamps = np.concatenate(
        [
            hours[once] * HOUR_MS + _offsets(uniform(seed, _FIRST_POINT, hours[once])),
            hours[twice] * HOUR_MS + _offsets(uniform(seed, _SECOND_POINT, hours[twice])),
        ]
    )
    return _within(np.unique(stamps), first_ms, last_ms)


def five_minutely(seed: int, first_ms: int, last_ms: int) -> Ints:
    slots = np.arange(first_ms // FIVE_MINUTES_MS, last_ms // FIVE_MINUTES_MS + 1, dtype=np.int64)
    jitter = (uniform(seed, _FIVE_MINUTE_POINT, slots) * _FIVE_MINUTE_JITTER_MS).astype(np.int64)
    return _within(slots * FIVE_MINUTES_MS + jitter, first_ms, last_ms)


def daily(first_ms: int, last_ms: int) -> Ints:
    return np.arange(-(-first_ms // DAY_MS), last_ms // DAY_MS + 1, dtype=np.int64) * DAY_MS


def _offsets(shares: Floats) -> Ints:
    logs = np.interp(shares, _OFFSET_SHARES, _OFFSET_LOGS)
    return (np.exp(logs) * 1000).astype(np.int64)


def _within(stamps: Ints, first_ms: int, last_ms: int) -> Ints:
    return stamps[(stamps >= first_ms) & (stamps <= last_ms)]
