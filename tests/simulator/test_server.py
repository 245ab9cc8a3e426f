"""The simulator answers as CoinGecko's recordings and the vendor's documents say."""

import gzip
import http.client
import itertools
import json
import statistics
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest

from bitstorm.core.errors import UsageError
from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS
from bitstorm.simulator.market import Market, hourly
from collect.faulty_server import NOW_MS
from simulator.asking import FULL, between, chart, get
from simulator.watched import Simulator

NODE_MS = NOW_MS // MINUTE_MS * MINUTE_MS


def test_ping(simulator: Simulator) -> None:
    assert get(simulator, "/ping").json() == {"gecko_says": "(V3) To the Moon!"}


def test_a_live_price_is_whole_unless_precision_is_asked(
    simulator: Simulator, market: Market
) -> None:
    price = market.price([NODE_MS])[0]
    rounded = get(simulator, "/simple/price?ids=bitcoin&vs_currencies=usd")
    assert rounded.body == b'{"bitcoin":{"usd":%d}}' % round(price)
    full = get(simulator, "/simple/price?ids=bitcoin&vs_currencies=usd&precision=full").json()
    assert full == {"bitcoin": {"usd": price}}
    two = get(simulator, "/simple/price?ids=bitcoin&vs_currencies=usd&precision=2").json()
    assert two == {"bitcoin": {"usd": round(price, 2)}}


def test_a_live_price_has_the_fields_that_were_asked(simulator: Simulator) -> None:
    more = "&include_24hr_change=true&include_last_updated_at=true"
    fields = get(simulator, f"/simple/price?{FULL}{more}").json()["bitcoin"]
    assert list(fields) == [
        "usd",
        "usd_market_cap",
        "usd_24h_vol",
        "usd_24h_change",
        "last_updated_at",
    ]
    assert fields["last_updated_at"] == NODE_MS // 1000


def test_a_live_price_stays_the_same_within_its_minute(market: Market) -> None:
    path = f"/simple/price?{FULL}&include_last_updated_at=true&precision=full"
    moment = NODE_MS
    with Simulator(market, clock=lambda: moment) as simulator:
        first = get(simulator, path).body
        moment = NODE_MS + 59_999
        assert get(simulator, path).body == first
        moment = NODE_MS + 60_000
        assert get(simulator, path).body != first


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("ids=nonsense&vs_currencies=usd", {}),
        ("ids=bitcoin&vs_currencies=usdt", {"bitcoin": {}}),
        ("ids=ethereum,%20bitcoin&vs_currencies=usd", {}),
    ],
)
def test_an_unknown_coin_or_currency_is_left_out_with_status_200(
    simulator: Simulator, query: str, body: Any
) -> None:
    answer = get(simulator, f"/simple/price?{query}")
    assert (answer.status, answer.json()) == (200, body)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/simple/price", 422, {"error": "Missing parameter ids"}),
        ("/simple/price?ids=bitcoin", 422, {"error": "Missing parameter vs_currencies"}),
        ("/coins/bitcoin/market_chart", 422, {"error": "Missing parameter vs_currency"}),
        (
            "/coins/bitcoin/market_chart?vs_currency=kes&days=1",
            400,
            {"error": "invalid vs_currency"},
        ),
        ("/coins/nonsense/market_chart?vs_currency=usd&days=1", 404, {"error": "coin not found"}),
    ],
)
def test_wrong_requests_get_the_recorded_refusals(
    simulator: Simulator, path: str, status: int, body: Any
) -> None:
    answer = get(simulator, path)
    assert (answer.status, answer.json()) == (status, body)


def test_a_day_is_five_minutely_as_the_recorded_one(
    simulator: Simulator, chart_of_a_day: bytes
) -> None:
    recorded = json.loads(chart_of_a_day)["prices"]
    served = chart(simulator, 1)["prices"]
    assert abs(len(served) - len(recorded)) <= 2

    def gaps(points: list[list[float]]) -> list[float]:
        times = [t for t, _ in points[:-1]]
        return sorted(b - a for a, b in itertools.pairwise(times))

    assert statistics.median(gaps(served)) == pytest.approx(
        statistics.median(gaps(recorded)), rel=0.05
    )
    assert gaps(served)[0] > 100_000
    assert gaps(served)[-1] < 510_000


def test_the_three_arrays_have_the_same_stamps(simulator: Simulator) -> None:
    content = chart(simulator, 30)
    times = [[t for t, _ in content[key]] for key in ("prices", "market_caps", "total_volumes")]
    assert times[0] == times[1] == times[2]


def test_a_month_is_hourly_off_the_grid_with_holes_and_doubles() -> None:
    # Against the shape of the recorded 720 hours, over enough hours to be sure.
    hours = 40_000
    first = NOW_MS // HOUR_MS * HOUR_MS - hours * HOUR_MS
    found = hourly(7, first, first + hours * HOUR_MS - 1)
    counts: dict[int, int] = {}
    for stamp in found.tolist():
        counts[stamp // HOUR_MS] = counts.get(stamp // HOUR_MS, 0) + 1
    empty = hours - len(counts)
    doubled = sum(count == 2 for count in counts.values())
    assert empty / hours * 720 == pytest.approx(4, abs=1)
    assert doubled / hours * 720 == pytest.approx(6, abs=1)
    offsets = sorted(stamp % HOUR_MS / 1000 for stamp in found.tolist())
    twentieth, half, most = (offsets[int(len(offsets) * q)] for q in (0.05, 0.5, 0.95))
    assert twentieth == pytest.approx(55, rel=0.1)
    assert half == pytest.approx(200, rel=0.1)
    assert most == pytest.approx(1200, rel=0.1)


def test_a_year_is_daily_and_ends_with_the_newest_price(simulator: Simulator) -> None:
    times = [t for t, _ in chart(simulator, 365)["prices"]]
    assert len(times) == 366
    assert all(t % DAY_MS == 0 for t in times[:-1])
    assert times[-1] == NODE_MS
    assert len(chart(simulator, 90, "&interval=daily")["prices"]) == 91


def test_the_newest_point_can_be_older_than_the_one_before_it(market: Market) -> None:
    # As in a recording: a regular point of the running minute, then "now" in whole seconds.
    stamp = int(hourly(7, NOW_MS - DAY_MS, NOW_MS)[-1])
    with Simulator(market, clock=lambda: stamp) as simulator:
        last, current = chart(simulator, 7)["prices"][-2:]
    assert last[0] == stamp
    assert current[0] == stamp // MINUTE_MS * MINUTE_MS < last[0]
    assert current[1] == last[1]


@pytest.mark.parametrize(
    ("start", "end", "median_ms"),
    [
        (NOW_MS - DAY_MS, NOW_MS, 300_000),
        (NOW_MS - 11 * DAY_MS, NOW_MS - 10 * DAY_MS, HOUR_MS),
        (NOW_MS - 90 * DAY_MS, NOW_MS, HOUR_MS),
        (NOW_MS - 200 * DAY_MS, NOW_MS - 100 * DAY_MS, DAY_MS),
    ],
)
def test_the_length_of_a_range_decides_how_fine_it_is(
    simulator: Simulator, start: int, end: int, median_ms: int
) -> None:
    times = [t for t, _ in between(simulator, start, end)["prices"]]
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert statistics.median(gaps) == pytest.approx(median_ms, rel=0.1)
    assert start // 1000 * 1000 <= min(times)
    assert max(times) <= end


def test_only_a_range_up_to_now_ends_with_the_newest_price(simulator: Simulator) -> None:
    touching = between(simulator, NOW_MS - 5 * DAY_MS, NOW_MS)["prices"]
    past = between(simulator, NOW_MS - 5 * DAY_MS, NOW_MS - HOUR_MS)["prices"]
    assert touching[-1][0] == NODE_MS
    assert past[-1][0] % 1000 != 0


def test_overlapping_ranges_show_the_same_points(simulator: Simulator) -> None:
    month = between(simulator, NOW_MS - 30 * DAY_MS, NOW_MS - DAY_MS)["prices"]
    week = between(simulator, NOW_MS - 20 * DAY_MS, NOW_MS - 13 * DAY_MS)["prices"]
    assert week == [point for point in month if week[0][0] <= point[0] <= week[-1][0]]


def test_a_range_without_points_is_three_empty_arrays(simulator: Simulator) -> None:
    nothing: dict[str, list[Any]] = {"prices": [], "market_caps": [], "total_volumes": []}
    assert between(simulator, NOW_MS, NOW_MS - DAY_MS) == nothing


@pytest.mark.parametrize("days", ["366", "max"])
def test_free_plans_refuse_more_than_a_year_as_a_whole(simulator: Simulator, days: str) -> None:
    answer = get(simulator, f"/coins/bitcoin/market_chart?vs_currency=usd&days={days}")
    status = answer.json()["error"]["status"]
    assert (answer.status, status["error_code"]) == (401, 10012)
    assert status["timestamp"].endswith("+00:00")
    assert status["error_message"].endswith("/pricing. ")


def test_a_range_that_begins_before_the_last_year_is_refused(simulator: Simulator) -> None:
    refused = between(simulator, NOW_MS - 366 * DAY_MS, NOW_MS)
    assert refused["error"]["status"]["error_code"] == 10012  # type: ignore[call-overload]


def test_the_paid_plan_has_all_days(market: Market) -> None:
    with Simulator(market, clock=lambda: NOW_MS, plan="pro") as simulator:
        path = "/coins/bitcoin/market_chart?vs_currency=usd&days=max"
        prices = get(simulator, path, **{"x-cg-pro-api-key": "CG-x"}).json()["prices"]
    assert prices[0][0] <= 1_517_270_400_000 + DAY_MS  # 2018-01-30 and a day
    assert prices[0][0] % DAY_MS == 0


@pytest.mark.parametrize(
    ("plan", "header", "status", "code"),
    [
        ("pro", None, 401, lambda body: body["status"]["error_code"] == 10002),
        ("pro", "x-cg-demo-api-key", 400, lambda body: body["error_code"] == 10011),
        ("demo", "x-cg-pro-api-key", 400, lambda body: body["error_code"] == 10010),
        ("keyless", "x-cg-pro-api-key", 400, lambda body: body["error_code"] == 10010),
    ],
)
def test_host_and_key_have_to_fit(
    market: Market, plan: Any, header: str | None, status: int, code: Callable[[Any], bool]
) -> None:
    with Simulator(market, clock=lambda: NOW_MS, plan=plan) as simulator:
        answer = get(simulator, "/ping", **({header: "CG-x"} if header else {}))
    assert answer.status == status
    assert code(answer.json())


def test_who_does_not_say_who_he_is_gets_no_service(simulator: Simulator) -> None:
    url = urlsplit(simulator.base_url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port)
    try:
        connection.putrequest("GET", url.path + "/ping")
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 403
        assert "User-Agent" in json.loads(answer.read())["status"]["error_message"]
    finally:
        connection.close()


def test_every_answer_names_the_simulator_and_its_seed(simulator: Simulator) -> None:
    for path in ("/ping", "/simple/price", "/nonsense"):
        assert get(simulator, path).headers["X-Bitstorm-Simulated"] == "7"
    assert "max-age=30" in get(simulator, "/ping").headers["Cache-Control"]


def test_gzip_when_asked_and_only_then(simulator: Simulator) -> None:
    path = "/coins/bitcoin/market_chart?vs_currency=usd&days=30"
    packed = get(simulator, path, **{"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == get(simulator, path).body


def test_the_ledger_keeps_what_was_asked_and_how(simulator: Simulator) -> None:
    get(simulator, "/simple/price?ids=bitcoin", **{"User-Agent": "me", "x-cg-demo-api-key": "CG"})
    (request,) = simulator.requests
    assert (request.path, request.query) == ("/api/v3/simple/price", "ids=bitcoin")
    assert request.status == 422
    assert request.headers["user-agent"] == "me"
    assert "CG" not in repr(request)


def test_candles_hold_the_prices_of_their_minutes(simulator: Simulator, market: Market) -> None:
    path = "/coins/bitcoin/ohlc?vs_currency=usd&days=7&precision=full"
    rows = get(simulator, path).json()
    assert len(rows) == 42
    assert rows[-1][0] > NOW_MS  # the running candle is stamped with its close
    close, *ohlc = rows[-2]
    minutes = range(close - 4 * HOUR_MS, close, MINUTE_MS)
    prices = market.price(list(minutes))
    assert ohlc == [prices[0], prices.max(), prices.min(), prices[-1]]
    assert get(simulator, "/coins/bitcoin/ohlc?vs_currency=usd&days=50").status == 400


def test_markets_and_supported_currencies(simulator: Simulator, market: Market) -> None:
    (coin,) = get(simulator, "/coins/markets?vs_currency=usd&precision=full").json()
    assert coin["current_price"] == market.price([NODE_MS])[0]
    assert coin["last_updated"] == "2026-11-23T02:15:00.000Z"
    currencies = get(simulator, "/simple/supported_vs_currencies").json()
    assert "usd" in currencies
    assert "usdt" not in currencies


def test_a_recording_is_served_byte_for_byte(chart_of_a_day: bytes) -> None:
    with Simulator(replay=chart_of_a_day, clock=lambda: NOW_MS) as simulator:
        served = get(simulator, "/coins/bitcoin/market_chart?vs_currency=usd&days=1")
        live = get(simulator, "/simple/price?ids=bitcoin&vs_currencies=usd").json()
    assert served.body == chart_of_a_day
    assert served.headers["X-Bitstorm-Simulated"].startswith("replay-")
    stamp, price = max(json.loads(chart_of_a_day)["prices"])
    assert live["bitcoin"]["usd"] == price
    assert live["bitcoin"]["last_updated_at"] == stamp // 1000


@pytest.mark.parametrize("body", [b"", b"[]", b'{"prices":[]}', b"<html>"])
def test_a_recording_that_is_none_is_refused_at_the_start(body: bytes) -> None:
    with pytest.raises(UsageError, match="not a recorded market chart"):
        Simulator(replay=body)


def test_a_port_that_is_taken_is_a_clear_refusal(simulator: Simulator, market: Market) -> None:
    port = urlsplit(simulator.base_url).port
    assert port is not None
    with pytest.raises(UsageError, match=f"port {port} .* cannot be served"):
        Simulator(market, port=port)
