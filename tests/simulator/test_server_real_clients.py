"""The vendor's own client and pycoingecko read the simulator as ours does.

So that our client and our simulator cannot be wrong in the same way.
"""

import gzip
import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from bitstorm.collect.batches import Observation
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.core.time import DAY_MS
from bitstorm.simulator.market import Market
from collect.faulty_server import NOW_MS, answering, http
from collect.recordings import recording
from simulator.asking import get
from simulator.watched import Simulator

KEY = "CG-abcDEF0123456789"
FIRST_S, LAST_S = (NOW_MS - 40 * DAY_MS) // 1000, (NOW_MS - DAY_MS) // 1000
FIELDS = {
    "include_market_cap": True,
    "include_24hr_vol": True,
    "include_24hr_change": True,
    "include_last_updated_at": True,
}


@pytest.fixture(params=["demo", "pro"])
def plan(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def double(market: Market, plan: Any) -> Iterator[Simulator]:
    with Simulator(market, clock=lambda: NOW_MS, plan=plan, keys={KEY}) as running:
        yield running


@pytest.fixture
def ours(double: Simulator, plan: Any) -> Iterator[CoinGecko]:
    with CoinGecko(
        base_url=double.base_url,
        plan=plan,
        api_key=KEY,
        options=TransportOptions(clock=lambda: NOW_MS),
    ) as client:
        yield client


@pytest.fixture
def official(double: Simulator, plan: Any) -> Iterator[Any]:
    sdk = pytest.importorskip(
        "coingecko_sdk", reason="coingecko-sdk is not installed: scripts/setup --dev brings it"
    )
    with sdk.Coingecko(
        base_url=double.base_url,
        environment=plan,
        max_retries=0,
        **{f"{plan}_api_key": KEY},
        # An answer that does not fit its model is an error, not a warning.
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
def community(double: Simulator, plan: Any) -> Any:
    package = pytest.importorskip(
        "pycoingecko", reason="pycoingecko is not installed: scripts/setup --dev brings it"
    )
    name = "api_key" if plan == "pro" else "demo_api_key"
    client = package.CoinGeckoAPI(**{name: KEY})
    client.api_base_url = double.base_url + "/"
    client.session.trust_env = False
    return client


def rows(chart: dict[str, Any]) -> list[tuple[int, float, float, float]]:
    """A chart's three arrays as rows, each number a float as our client has it."""
    arrays = (chart["prices"], chart["market_caps"], chart["total_volumes"])
    assert len({tuple(t for t, _ in array) for array in arrays}) == 1
    return [
        (int(t), float(p), float(c), float(v))
        for (t, p), (_, c), (_, v) in zip(*arrays, strict=True)
    ]


def numbers(points: list[Observation]) -> list[tuple[int, Any, Any, Any]]:
    return [(o.timestamp, o.price, o.market_cap, o.volume_24h) for o in points]


def assert_ours_are_the_same(ours: CoinGecko, points: list[tuple[int, Any, Any, Any]]) -> None:
    """The points of another client's chart, against a range of ours from the first to now."""
    assert len(points) > 200
    first_s = points[0][0] // 1000
    assert numbers(ours.market_chart_range("bitcoin", "usd", first_s, NOW_MS // 1000)) == points


def test_the_vendors_client_gets_the_same_numbers(ours: CoinGecko, official: Any) -> None:
    assert official.ping.get().gecko_says == "(V3) To the Moon!"
    item = official.simple.price.get(
        vs_currencies="usd", ids="bitcoin", precision="full", **FIELDS
    )["bitcoin"]
    o = ours.simple_price("bitcoin", "usd")
    assert (item.last_updated_at * 1000, item.usd) == (o.timestamp, o.price)
    assert item.usd_market_cap == o.market_cap
    assert item.usd_24h_vol == o.volume_24h
    assert item.usd_24h_change == o.price_change_24h
    for days in ("1", "30", "365"):
        chart = official.coins.market_chart.get(
            "bitcoin", vs_currency="usd", days=days, precision="full"
        )
        assert_ours_are_the_same(ours, sorted(rows(chart.model_dump())[:-1]))
    span = official.coins.market_chart.get_range(
        "bitcoin", vs_currency="usd", from_=str(FIRST_S), to=str(LAST_S), precision="full"
    )
    points = numbers(ours.market_chart_range("bitcoin", "usd", FIRST_S, LAST_S))
    assert rows(span.model_dump()) == points
    assert len(points) > 900


def test_the_vendors_models_accept_the_other_endpoints(official: Any, plan: Any) -> None:
    candles = official.coins.ohlc.get("bitcoin", vs_currency="usd", days="7", precision="full")
    assert len(candles) == 42
    assert all(low <= opened <= high for _, opened, high, low, _ in candles)
    (coin,) = official.coins.markets.get(vs_currency="usd", ids="bitcoin", precision="full")
    assert coin.id == "bitcoin"
    assert coin.current_price > 0
    assert "usd" in official.simple.supported_vs_currencies.get()
    if plan == "pro":
        assert official.key.get().monthly_call_credit > 0


def test_the_vendors_client_knows_our_refusals_as_its_own(
    official: Any, double: Simulator, plan: Any
) -> None:
    sdk: Any = pytest.importorskip("coingecko_sdk")
    with pytest.raises(sdk.NotFoundError) as unknown:
        official.coins.market_chart.get("nonsense", vs_currency="usd", days="1")
    assert unknown.value.body == {"error": "coin not found"}
    with pytest.raises(sdk.BadRequestError):
        official.coins.market_chart.get("bitcoin", vs_currency="usdt", days="1")
    if plan == "demo":
        with pytest.raises(sdk.AuthenticationError) as old:
            official.coins.market_chart.get("bitcoin", vs_currency="usd", days="366")
        assert old.value.body["error"]["status"]["error_code"] == 10012
        with pytest.raises(sdk.AuthenticationError):
            official.key.get()
    other = {"demo": "pro", "pro": "demo"}[plan]
    with (
        sdk.Coingecko(
            base_url=double.base_url, environment=other, max_retries=0, **{f"{other}_api_key": KEY}
        ) as mistaken,
        pytest.raises(sdk.BadRequestError) as wrong,
    ):
        mistaken.ping.get()
    assert wrong.value.body["error_code"] == {"demo": 10010, "pro": 10011}[plan]


def test_pycoingecko_gets_the_same_numbers(ours: CoinGecko, community: Any) -> None:
    fields = community.get_price(ids="bitcoin", vs_currencies="usd", precision="full", **FIELDS)
    o = ours.simple_price("bitcoin", "usd")
    assert fields == {
        "bitcoin": {
            "usd": o.price,
            "usd_market_cap": o.market_cap,
            "usd_24h_vol": o.volume_24h,
            "usd_24h_change": o.price_change_24h,
            "last_updated_at": o.timestamp // 1000,
        }
    }
    for days in (1, 30, 365):
        chart = community.get_coin_market_chart_by_id("bitcoin", "usd", days, precision="full")
        assert_ours_are_the_same(ours, sorted(rows(chart)[:-1]))
    span = community.get_coin_market_chart_range_by_id(
        "bitcoin", "usd", FIRST_S, LAST_S, precision="full"
    )
    assert rows(span) == numbers(ours.market_chart_range("bitcoin", "usd", FIRST_S, LAST_S))


def test_pycoingecko_knows_our_refusals(community: Any) -> None:
    with pytest.raises(ValueError, match="coin not found"):
        community.get_coin_market_chart_by_id("nonsense", "usd", 1)
    assert community.get_price(ids="nonsense", vs_currencies="usd") == {}


# What was recorded


def test_the_simulator_answers_a_recorded_exchange_as_the_api(simulator: Simulator) -> None:
    path = recording("recorded_http_exchanges_2021.json.gz")
    compared = 0
    for exchange in json.loads(gzip.decompress(path.read_bytes())):
        asked = exchange["request"].removeprefix("GET https://api.coingecko.com/api/v3")
        if exchange["status"] == 500 or "/history" in asked:
            continue  # a fault, and an endpoint that is not simulated
        answer = get(simulator, asked)
        assert answer.status == exchange["status"]
        assert answer.headers["Content-Type"] == exchange["headers"]["Content-Type"]
        recorded = json.loads(exchange["body"])
        if exchange["status"] != 200:
            assert answer.json() == recorded
        elif isinstance(recorded, dict):
            assert {coin: list(fields) for coin, fields in answer.json().items()} == {
                coin: list(fields) for coin, fields in recorded.items()
            }
        else:
            assert list(answer.json()[0]) == list(recorded[0])
        compared += 1
    assert compared == 5


def test_recorded_candles_are_of_the_simulators_shape(simulator: Simulator) -> None:
    path = recording("recorded_ohlc_bitcoin_usd_days-7_2021-05-15.json.gz")
    recorded = json.loads(gzip.decompress(path.read_bytes()))
    served = get(simulator, "/coins/bitcoin/ohlc?vs_currency=usd&days=7&precision=2").json()
    assert len(served) == len(recorded)
    assert {b[0] - a[0] for a, b in pairwise(served)} == {
        b[0] - a[0] for a, b in pairwise(recorded)
    }


@pytest.mark.parametrize(
    "name",
    [
        "recorded_market_chart_bitcoin_usd_days-1_2021-05-16.json.gz",
        "recorded_market_chart_bitcoin_usd_days-max_interval-daily_2023-06-03.json.gz",
    ],
)
@pytest.mark.parametrize("way", ["replayed", "raw", "raw and packed"])
def test_a_recorded_chart_keeps_the_values_of_its_bytes(name: str, way: str) -> None:
    body = gzip.decompress(recording(name).read_bytes())
    recorded = json.loads(body)
    caps, volumes = dict(recorded["market_caps"]), dict(recorded["total_volumes"])
    kind = "Content-Type: application/json; charset=utf-8"
    raw = (
        http("200 OK", body, kind)
        if way == "raw"
        else http("200 OK", gzip.compress(body), kind, "Content-Encoding: gzip")
    )

    def points(url: str) -> list[Observation]:
        with CoinGecko(base_url=url, options=TransportOptions(clock=lambda: NOW_MS)) as client:
            found = client.market_chart_range("bitcoin", "usd", 0, NOW_MS // 1000)
            assert client.refused == 0
            return found

    if way == "replayed":
        with Simulator(replay=body, clock=lambda: NOW_MS) as simulator:
            found = points(simulator.base_url)
    else:
        with answering([raw]) as url:
            found = points(url)
    expected = [(t, p, caps[t], volumes[t]) for t, p in sorted(recorded["prices"][:-1])]
    assert numbers(found) == expected
