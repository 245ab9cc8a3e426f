"""The simulated market: the same prices for everybody, like Bitcoin's, and not to be foreseen."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from bitstorm.simulator.market import MARKET_END_MS, MARKET_START_MS, Market

YEAR_HOURS = 8766
TODAY_MS = 1_795_400_123_456

times = st.integers(MARKET_START_MS, MARKET_START_MS + 12 * 365 * DAY_MS)
SHARED = Market(7)


def hourly_returns(seed: int, hours: int) -> np.ndarray:
    stamps = MARKET_START_MS + np.arange(hours + 1) * HOUR_MS
    return np.diff(np.log(Market(seed).price(stamps)))


@given(times, times)
@settings(max_examples=30, deadline=None)
def test_a_price_does_not_depend_on_what_was_asked_before(first: int, second: int) -> None:
    fresh = Market(7)
    alone = fresh.price([second])[0]
    assert SHARED.price([first, second])[1] == alone
    assert SHARED.price([second])[0] == alone


@given(times)
@settings(max_examples=50, deadline=None)
def test_a_price_holds_from_the_minutes_beginning_to_its_end(moment: int) -> None:
    node = moment // MINUTE_MS * MINUTE_MS
    begin, inside, end = SHARED.price([node, moment, node + MINUTE_MS - 1])
    assert begin == inside == end


def test_the_series_is_pinned_for_later_versions() -> None:
    stamps = [MARKET_START_MS, 1_700_000_000_000, TODAY_MS]
    assert Market(7).price(stamps) == pytest.approx(
        [40_000.0, 43753.501013, 46739.626812], rel=1e-9
    )


def test_another_seed_is_another_market() -> None:
    assert Market(7).price([TODAY_MS])[0] != Market(8).price([TODAY_MS])[0]


def test_hours_have_bitcoins_spread_and_fat_tails() -> None:
    for seed in (7, 8, 9):
        returns = hourly_returns(seed, 6 * YEAR_HOURS)
        centred = returns - returns.mean()
        kurtosis = np.mean(centred**4) / np.mean(centred**2) ** 2
        assert 0.004 < returns.std() < 0.009
        assert kurtosis > 6


def test_volatility_comes_in_clusters() -> None:
    sizes = np.abs(hourly_returns(7, 6 * YEAR_HOURS))
    assert np.corrcoef(sizes[1:], sizes[:-1])[0, 1] > 0.1


def test_returns_of_hours_and_minutes_are_uncorrelated() -> None:
    returns = hourly_returns(7, 8 * YEAR_HOURS)
    for lag in (1, 2, 24):
        assert abs(np.corrcoef(returns[lag:], returns[:-lag])[0, 1]) < 0.02
    stamps = 1_700_000_000_000 + np.arange(60 * 24 * 60) * MINUTE_MS
    minutes = np.diff(np.log(SHARED.price(stamps)))
    assert abs(np.corrcoef(minutes[1:], minutes[:-1])[0, 1]) < 0.02


def test_the_expected_price_is_the_price_now() -> None:
    # Over 400 markets and a month the mean growth is 1, within four standard errors.
    growth = np.array(
        [
            np.divide(*Market(seed).price([MARKET_START_MS + 30 * DAY_MS, MARKET_START_MS]))
            for seed in range(400)
        ]
    )
    assert abs(growth.mean() - 1) < 4 * growth.std() / np.sqrt(len(growth))


def test_no_sign_of_the_past_tells_the_next_move() -> None:
    # Betting with, and so against, the last hour, the last day or the daily change earns nothing.
    stamps = MARKET_START_MS + np.arange(DAY_MS, 8 * YEAR_HOURS * HOUR_MS, HOUR_MS)
    quotes = SHARED.quotes(stamps)
    growth = quotes.price[1:] / quotes.price[:-1] - 1
    for sign in (
        np.sign(np.diff(quotes.price, prepend=quotes.price[0]))[:-1],
        np.sign(quotes.price_change_24h)[:-1],
        np.sign(quotes.volume_24h - np.nanmean(quotes.volume_24h))[:-1],
    ):
        earned = np.nan_to_num(sign) * growth
        assert abs(earned.mean()) < 4 * earned.std() / np.sqrt(len(earned))


def test_change_and_cap_follow_from_the_price() -> None:
    now, before = SHARED.price([TODAY_MS, TODAY_MS - DAY_MS])
    quotes = SHARED.quotes([TODAY_MS])
    assert quotes.price_change_24h[0] == pytest.approx((now - before) / before * 100)
    assert 19_000_000 < quotes.market_cap[0] / now < 21_000_000


def test_volume_is_that_of_a_whole_day_behind() -> None:
    # Rolling: the sum of what each of 24 hours added is what the day turned over.
    hours = TODAY_MS // HOUR_MS * HOUR_MS - np.arange(49)[::-1] * HOUR_MS
    volume = SHARED.quotes(hours).volume_24h
    assert np.all(volume > 1e9)
    assert np.all(np.abs(np.diff(volume)) < volume[:-1] * 0.5)


def test_the_first_day_has_neither_volume_nor_change() -> None:
    quotes = SHARED.quotes([MARKET_START_MS + HOUR_MS, MARKET_START_MS + DAY_MS])
    assert np.isnan(quotes.volume_24h).tolist() == [True, False]
    assert np.isnan(quotes.price_change_24h).tolist() == [True, False]


@pytest.mark.parametrize("moment", [MARKET_START_MS - 1, MARKET_END_MS])
def test_there_is_no_price_outside_the_market(moment: int) -> None:
    with pytest.raises(ValueError, match="outside the simulated market"):
        SHARED.price([moment])


def test_a_price_of_today_is_there_at_once() -> None:
    begun = time.process_time()
    Market(7).quotes([TODAY_MS])
    assert time.process_time() - begun < 0.5
