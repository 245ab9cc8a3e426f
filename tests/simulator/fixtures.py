"""Fixtures of the simulator and of collect: recorded answers, a simulator whose clock stands."""

import gzip
from collections.abc import Iterator

import pytest

from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.simulator.market import Market
from collect.faulty_server import NOW_MS, Waits
from collect.recordings import recording
from simulator.watched import Simulator


@pytest.fixture(scope="session")
def market() -> Market:
    return Market(7)


@pytest.fixture(scope="session")
def chart_of_a_day() -> bytes:
    """CoinGecko's answer to days=1 of 2021-05-16, byte for byte."""
    path = recording("recorded_market_chart_bitcoin_usd_days-1_2021-05-16.json.gz")
    return gzip.decompress(path.read_bytes())


@pytest.fixture(scope="session")
def chart_of_all_days() -> bytes:
    """CoinGecko's answer to days=max&interval=daily of 2023-06-03."""
    path = recording("recorded_market_chart_bitcoin_usd_days-max_interval-daily_2023-06-03.json.gz")
    return gzip.decompress(path.read_bytes())


@pytest.fixture
def simulator(market: Market) -> Iterator[Simulator]:
    with Simulator(market, clock=lambda: NOW_MS) as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[CoinGecko]:
    with CoinGecko(
        base_url=simulator.base_url, options=TransportOptions(clock=lambda: NOW_MS)
    ) as opened:
        yield opened


@pytest.fixture
def waits() -> Waits:
    return Waits()
