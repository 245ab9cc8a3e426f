"""The client: exact observations out of good answers, a clear error out of every other one."""

import gzip
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm import __version__
from bitstorm.collect.batches import Observation
from bitstorm.collect.coingecko.client import CoinGecko, Plan
from bitstorm.collect.coingecko.error_responses import error_details
from bitstorm.collect.coingecko.transport import TransportOptions, server_wait
from bitstorm.collect.live import open_source
from bitstorm.core.errors import (
    BadAnswer,
    HistoryTooOld,
    KeyProblem,
    RateLimited,
    SourceError,
    UnknownCoin,
    UnknownCurrency,
    Unreachable,
    UsageError,
    WrongHostForKey,
)
from bitstorm.core.settings import Settings, Source
from bitstorm.core.time import DAY_MS, MINUTE_MS
from bitstorm.simulator.market import Market
from collect.faulty_server import NOW_MS, Waits, answering, http
from simulator.watched import Simulator

SECRET = "CG-abcDEF0123456789"
NOW_S = NOW_MS // 1000


def asking(
    base_url: str,
    waits: Waits | None = None,
    plan: Plan = "keyless",
    api_key: str | None = None,
    **options: Any,
) -> CoinGecko:
    """A client with the test's clock, which does not really wait when given `waits`."""
    if waits is not None:
        options |= {"sleep": waits.sleep, "monotonic": waits.monotonic}
    transport = TransportOptions(clock=lambda: NOW_MS, **options)
    return CoinGecko(base_url=base_url, plan=plan, api_key=api_key, options=transport)


def price_error(answer: bytes, **more: Any) -> SourceError:
    """The error of `simple_price` for one raw answer, without retries."""
    with (
        answering([answer]) as url,
        asking(url, retries=0, **more) as client,
        pytest.raises(SourceError) as raised,
    ):
        client.simple_price("bitcoin", "usd")
    return raised.value


def chart_of(body: bytes) -> list[Observation]:
    """The points of one raw body, read as a range that ends now."""
    with answering([http("200 OK", body)]) as url, asking(url, retries=0) as client:
        return client.market_chart_range("bitcoin", "usd", 0, NOW_S)


# Good answers


def test_a_live_price_is_exact_with_the_sources_own_time(client: CoinGecko, market: Market) -> None:
    node = NOW_MS // MINUTE_MS * MINUTE_MS
    expected = market.quotes([node])
    assert client.simple_price("bitcoin", "usd") == Observation(
        timestamp=node,
        price=expected.price[0],
        market_cap=expected.market_cap[0],
        volume_24h=expected.volume_24h[0],
        price_change_24h=expected.price_change_24h[0],
    )


def test_the_specifications_example_keeps_every_digit() -> None:
    body = (
        b'{"bitcoin":{"usd":76975,"usd_market_cap":1542226908349.8406,"usd_24h_vol":'
        b'29096603418.89408,"usd_24h_change":-1.4093297098441402,"last_updated_at":1779092258}}'
    )
    with answering([http("200 OK", body)]) as url, asking(url) as client:
        observation = client.simple_price("bitcoin", "usd")
    assert observation == Observation(
        1779092258000, 76975.0, 1542226908349.8406, 29096603418.89408, -1.4093297098441402
    )
    assert isinstance(observation.price, float)


def test_a_recorded_day_comes_out_value_for_value(chart_of_a_day: bytes) -> None:
    recorded = json.loads(chart_of_a_day)
    caps, volumes = dict(recorded["market_caps"]), dict(recorded["total_volumes"])
    expected = [
        (t, float(p), float(caps[t]), float(volumes[t])) for t, p in recorded["prices"][:-1]
    ]
    with Simulator(replay=chart_of_a_day) as simulator, asking(simulator.base_url) as client:
        points = client.market_chart_range("bitcoin", "usd", 0, NOW_S)
    found = [(o.timestamp, o.price, o.market_cap, o.volume_24h) for o in points]
    assert found == expected
    assert all(o.price_change_24h is None for o in points)


def test_the_recorded_history_keeps_its_null_and_its_zeros(chart_of_all_days: bytes) -> None:
    recorded = json.loads(chart_of_all_days)
    with Simulator(replay=chart_of_all_days) as simulator, asking(simulator.base_url) as client:
        points = client.market_chart_range("bitcoin", "usd", 0, NOW_S)
    assert len(points) == len(recorded["prices"]) - 1
    by_stamp = {o.timestamp: o for o in points}
    assert by_stamp[1491091200000].market_cap is None  # 2017-04-02
    assert by_stamp[1367107200000].volume_24h == 0.0
    assert sum(o.volume_24h == 0 for o in points) == 242
    # The off-midnight samples have milliseconds and stay; the one for "now" is gone.
    assert 1517270718718 in by_stamp
    assert recorded["prices"][-1][0] not in by_stamp


def test_the_tail_that_steps_back_in_time_is_dropped() -> None:
    # As recorded once: the newest point again, its milliseconds cut off, so 955 ms "earlier".
    points = [[1621151013017, 1.5], [1621151347955, 2.5], [1621151347000, 2.5]]
    body = {"prices": points, "market_caps": points, "total_volumes": points}
    found = chart_of(json.dumps(body).encode())
    assert [(o.timestamp, o.price) for o in found] == [(1621151013017, 1.5), (1621151347955, 2.5)]


def test_points_come_sorted_and_once_and_join_on_their_stamps() -> None:
    body = {
        "prices": [
            [1621151013003, 3],
            [1621151013001, 1],
            [1621151013001, 9],
            [1621151013002, None],
        ],
        "market_caps": [[1621151013001, 10], [1621151013003, None]],
        "total_volumes": [[1621151013003, 0]],
    }
    assert chart_of(json.dumps(body).encode()) == [
        Observation(1621151013001, 1.0, 10.0, None),
        Observation(1621151013003, 3.0, None, 0.0),
    ]


def test_a_range_holds_its_bounds_and_nothing_for_now(client: CoinGecko) -> None:
    first, last = NOW_S - 30 * 86_400, NOW_S
    points = client.market_chart_range("bitcoin", "usd", first, last)
    stamps = [o.timestamp for o in points]
    assert stamps == sorted(set(stamps))
    assert first * 1000 <= stamps[0]
    assert stamps[-1] <= last * 1000
    assert all(stamp % 1000 for stamp in stamps)
    assert len(points) == pytest.approx(720, abs=20)


def test_a_point_of_whole_seconds_in_the_past_is_kept() -> None:
    day = NOW_S // 86_400 * 86_400 - 30 * 86_400
    points = [[(day + 3600) * 1000 + 5, 1.5], [(day + 7200) * 1000, 2.5]]
    body = json.dumps({"prices": points, "market_caps": [], "total_volumes": []}).encode()
    with answering([http("200 OK", body)]) as url, asking(url) as client:
        found = client.market_chart_range("bitcoin", "usd", day, day + 86_400)
    assert [o.price for o in found] == [1.5, 2.5]


def test_points_outside_the_bounds_are_left_out() -> None:
    day = NOW_S - 30 * 86_400
    points = [[day * 1000 - 1, 1], [day * 1000, 2], [day * 1000 + 86_400_000, 3]]
    points.append([day * 1000 + 86_400_001, 4])
    body = json.dumps({"prices": points, "market_caps": [], "total_volumes": []}).encode()
    with answering([http("200 OK", body)]) as url, asking(url) as client:
        found = client.market_chart_range("bitcoin", "usd", day, day + 86_400)
    assert [o.price for o in found] == [2.0, 3.0]


@given(
    st.lists(
        st.tuples(
            st.integers(1_600_000_000_000, 1_600_000_009_999),
            # Within the bound on jumps, which has tests of its own.
            st.floats(1_000.0, 9_999.0) | st.integers(1_000, 9_999),
        ),
        max_size=12,
    )
)
@settings(max_examples=40, deadline=None)
def test_no_point_is_lost_or_invented_whatever_the_order(points: list[tuple[int, float]]) -> None:
    arrays = [[t, p] for t, p in points]
    tail = [[1_600_000_010_000, 5_555.5]]
    body = {"prices": arrays + tail, "market_caps": [], "total_volumes": []}
    expected: dict[int, float] = {}
    for stamp, price in points:
        expected.setdefault(stamp, float(price))
    found = chart_of(json.dumps(body).encode())
    assert [(o.timestamp, o.price) for o in found] == sorted(expected.items())


# Who asks, and with what


def test_the_client_says_who_it_is_and_asks_for_gzip(
    client: CoinGecko, simulator: Simulator
) -> None:
    client.market_chart_range("bitcoin", "usd", NOW_S - 30 * 86_400, NOW_S)
    (request,) = simulator.requests
    assert request.headers["user-agent"].startswith(f"bitstorm/{__version__} ")
    assert request.headers["accept-encoding"] == "gzip"
    assert "python-requests" not in str(request.headers)


@pytest.mark.parametrize(
    ("plan", "header"), [("demo", "x-cg-demo-api-key"), ("pro", "x-cg-pro-api-key")]
)
def test_the_key_is_in_its_header_and_nowhere_else(market: Market, plan: Any, header: str) -> None:
    with (
        Simulator(market, clock=lambda: NOW_MS, plan=plan) as simulator,
        asking(simulator.base_url, plan=plan, api_key=f" {SECRET}\n") as client,
    ):
        client.simple_price("bitcoin", "usd")
        assert SECRET not in repr(client)
    (request,) = simulator.requests
    assert request.headers[header] == SECRET
    assert [name for name, value in request.headers.items() if SECRET in value] == [header]
    assert SECRET not in request.path + request.query


def test_a_keyless_client_sends_no_key_even_if_there_is_one(simulator: Simulator) -> None:
    settings = Settings(source=Source(base_url=simulator.base_url))
    with open_source(settings, {"COINGECKO_API_KEY": SECRET}) as client:
        client.ping()
    assert SECRET not in str(simulator.requests[0].headers)


def test_a_key_in_an_answer_gets_into_no_message() -> None:
    body = json.dumps({"status": {"error_code": 401, "error_message": f"bad {SECRET}"}}).encode()
    error = price_error(http("401 Unauthorized", body), plan="demo", api_key=SECRET)
    assert isinstance(error, KeyProblem)
    assert SECRET not in str(error)
    assert error.__cause__ is None


@pytest.mark.parametrize("plan", ["demo", "pro"])
def test_a_plan_without_its_key_says_what_to_set(plan: Any) -> None:
    with (
        pytest.raises(KeyProblem, match="COINGECKO_API_KEY is not set"),
        open_source(Settings(source=Source(mode="coingecko", plan=plan)), {}),
    ):
        pass


def test_a_key_with_a_line_break_is_refused_and_not_shown() -> None:
    settings = Settings(source=Source(mode="coingecko", plan="demo"))
    with (
        pytest.raises(KeyProblem) as raised,
        open_source(settings, {"COINGECKO_API_KEY": "CG-secret\r\nX-Evil: 1"}),
    ):
        pass
    assert "secret" not in str(raised.value)


def test_a_key_never_travels_unencrypted() -> None:
    with pytest.raises(UsageError, match="unencrypted"):
        CoinGecko(base_url="http://prices.example/api/v3", plan="demo", api_key=SECRET)


def test_a_redirect_is_not_followed(simulator: Simulator) -> None:
    elsewhere = f"Location: {simulator.base_url}/ping"
    error = price_error(http("302 Found", b"", elsewhere), plan="demo", api_key=SECRET)
    assert isinstance(error, BadAnswer)
    assert "redirects to 127.0.0.1" in str(error)
    assert simulator.requests == []


def test_the_source_is_what_the_answers_say(client: CoinGecko, simulator: Simulator) -> None:
    client.simple_price("bitcoin", "usd")
    assert client.source == "simulated:7"
    assert len(simulator.requests) == 1


def test_an_own_host_is_asked_for_its_source_once(simulator: Simulator) -> None:
    with asking(simulator.base_url) as client:
        assert client.source == "simulated:7"
        assert client.source == "simulated:7"
    assert [request.path for request in simulator.requests] == ["/api/v3/ping"]
    with CoinGecko() as official:
        assert official.source == "coingecko"
        assert official.calls == 0


def test_two_sources_behind_one_address_are_not_mixed() -> None:
    pong = b'{"gecko_says":"(V3) To the Moon!"}'
    answers = [
        http("200 OK", pong, "X-Bitstorm-Simulated: 7"),
        http("200 OK", pong, "X-Bitstorm-Simulated: 8"),
    ]
    with answering(answers) as url, asking(url) as client:
        client.ping()
        with pytest.raises(BadAnswer, match="two sources"):
            client.ping()


# Refusals


def test_the_simulators_refusals_become_named_errors(client: CoinGecko, market: Market) -> None:
    with pytest.raises(UnknownCoin, match=r"source\.coin"):
        client.simple_price("nonsense", "usd")
    with pytest.raises(UnknownCurrency, match=r"source\.vs_currency"):
        client.simple_price("bitcoin", "usdt")
    with pytest.raises(UnknownCoin, match="coin not found"):
        client.market_chart_range("nonsense", "usd", NOW_S - 86_400, NOW_S)
    with pytest.raises(UnknownCurrency, match="invalid vs_currency"):
        client.market_chart_range("bitcoin", "usdt", NOW_S - 86_400, NOW_S)
    with pytest.raises(HistoryTooOld, match=r"\(10012\).*fewer days"):
        client.market_chart_range("bitcoin", "usd", NOW_S - 367 * 86_400, NOW_S)
    with (
        Simulator(market, plan="pro") as pro,
        asking(pro.base_url, plan="demo", api_key=SECRET) as mistaken,
        pytest.raises(WrongHostForKey, match=r"\(10011\).*source\.plan"),
    ):
        mistaken.ping()
    with (
        Simulator(market, plan="pro") as pro,
        asking(pro.base_url) as anonymous,
        pytest.raises(KeyProblem, match=r"\(10002\)"),
    ):
        anonymous.ping()


@pytest.mark.parametrize("plan", ["keyless", "demo", "pro"])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("401 Unauthorized", {"status": {"error_code": 10002, "error_message": "API Key Missing"}}),
        ("401 Unauthorized", {"status": {"error_code": 401, "error_message": "Invalid"}}),
        ("401 Unauthorized", {"status": {"error_code": 10005, "error_message": "PRO only"}}),
        ("401 Unauthorized", b""),
        ("403 Forbidden", {"error": "blocked"}),
        ("400 Bad Request", {"error_code": 10010, "status": {"error_message": "other URL"}}),
        ("400 Bad Request", {"error_code": 10011, "status": {"error_message": "other URL"}}),
    ],
)
def test_a_refusal_speaks_of_a_key_that_was_sent(status: str, body: Any, plan: Plan) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    key = None if plan == "keyless" else SECRET
    told = str(price_error(http(status, raw), plan=plan, api_key=key))
    assert ("no key was sent (source.plan=keyless)" in told) is (plan == "keyless")
    assert ("the key in" in told or "; check COINGECKO_API_KEY" in told) is (plan != "keyless")


@pytest.mark.parametrize(
    ("source", "key", "said"),
    [
        ({"mode": "coingecko"}, SECRET, True),
        ({"mode": "coingecko", "base_url": "http://127.0.0.1:1/api/v3"}, SECRET, True),
        ({"mode": "coingecko", "base_url": "https://proxy.example/api/v3"}, SECRET, True),
        ({"mode": "coingecko"}, None, False),
        ({"mode": "coingecko"}, "", False),
        ({"mode": "coingecko"}, "  ", False),
        ({"mode": "coingecko", "plan": "demo"}, SECRET, False),
        ({"mode": "coingecko", "plan": "pro"}, SECRET, False),
        ({"mode": "simulated"}, SECRET, False),
    ],
)
def test_a_key_that_is_not_sent_is_said(source: Any, key: str | None, said: bool) -> None:
    told: list[str] = []
    environ = {} if key is None else {"COINGECKO_API_KEY": key}
    with open_source(Settings(source=Source(**source)), environ, warn=told.append):
        pass
    assert len(told) == said
    assert all("source.plan is keyless" in text and SECRET not in text for text in told)


STAMP_S = 1779092258
SHAPE_C = {"error": {"status": {"error_code": 10012, "error_message": "too old"}}}
SHAPE_D = {"timestamp": "x", "error_code": 10010, "status": {"error_message": "change your root"}}


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        ("400 Bad Request", SHAPE_D, WrongHostForKey, "change your root"),
        ("401 Unauthorized", SHAPE_C, HistoryTooOld, "too old"),
        ("401 Unauthorized", {"status": {"error_code": 10005}}, KeyProblem, "10005"),
        ("403 Forbidden", {"error": "blocked"}, KeyProblem, "blocked"),
        ("403 Forbidden", b"<html><title>Access denied</title>", SourceError, "Access denied"),
        ("404 Not Found", b"<html>nginx</html>", BadAnswer, "base_url"),
        ("422 Unprocessable", {"error": "Missing parameter ids"}, BadAnswer, "Missing parameter"),
        ("418 Teapot", b"", BadAnswer, "HTTP 418"),
        ("200 OK", {"status": {"error_code": 429, "error_message": "slow"}}, BadAnswer, "429"),
        ("200 OK", SHAPE_C, BadAnswer, "HTTP 200 but an error"),
        ("200 OK", {"status": 500, "error": "Internal Server Error"}, BadAnswer, "Internal"),
        ("200 OK", b"<html><title>Hello</title></html>", BadAnswer, "not JSON"),
        ("200 OK", b"", BadAnswer, "not JSON"),
        ("200 OK", b"[" * 100_000, BadAnswer, "not JSON"),
        ("200 OK", b"[]", BadAnswer, "not an object"),
        ("200 OK", {}, UnknownCoin, "bitcoin"),
        ("200 OK", {"bitcoin": {}}, UnknownCurrency, "usd"),
        ("200 OK", {"bitcoin": [1]}, BadAnswer, "no object"),
        (
            "200 OK",
            {"bitcoin": {"usd": None, "last_updated_at": 1779092258}},
            BadAnswer,
            "no price",
        ),
        ("200 OK", {"bitcoin": {"usd": 0, "last_updated_at": STAMP_S}}, BadAnswer, "no price"),
        (
            "200 OK",
            {"bitcoin": {"usd": "1", "last_updated_at": 1}},
            BadAnswer,
            "instead of a number",
        ),
        (
            "200 OK",
            {"bitcoin": {"usd": True, "last_updated_at": 1}},
            BadAnswer,
            "instead of a number",
        ),
        ("200 OK", {"bitcoin": {"usd": 1}}, BadAnswer, "last_updated_at"),
        ("200 OK", {"bitcoin": {"usd": 1, "last_updated_at": 1779092258000}}, BadAnswer, "seconds"),
        ("200 OK", b'{"bitcoin":{"usd":NaN,"last_updated_at":1779092258}}', BadAnswer, "has 'nan'"),
        (
            "200 OK",
            b'{"bitcoin":{"usd":1e999,"last_updated_at":1}}',
            BadAnswer,
            "instead of a number",
        ),
    ],
)
def test_every_wrong_answer_is_the_right_error(
    status: str, body: Any, error: type[SourceError], words: str
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    raised = price_error(http(status, raw))
    assert type(raised) is error
    assert words in str(raised)
    assert "\n" not in str(raised)


@pytest.mark.parametrize(
    "body",
    [
        b'{"prices":[]}',
        b'{"prices":{},"market_caps":[],"total_volumes":[]}',
        b'{"prices":[[1621151013017]],"market_caps":[],"total_volumes":[]}',
        b'{"prices":[[1621151013,1.0]],"market_caps":[],"total_volumes":[]}',
        b'{"prices":[[1621151013017,"1"]],"market_caps":[],"total_volumes":[]}',
        b'{"prices":[[1621151013017,Infinity]],"market_caps":[],"total_volumes":[]}',
        b'{"prices":[[null,1]],"market_caps":[],"total_volumes":[]}',
        b"[]",
    ],
)
def test_a_chart_of_another_shape_is_no_chart(body: bytes) -> None:
    with pytest.raises(BadAnswer, match=r"check source\.base_url"):
        chart_of(body)


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "status", "error_code", "error_message"]), inner
            )
        ),
        max_leaves=8,
    ).map(lambda content: json.dumps(content).encode())
)
def test_no_error_body_breaks_the_reader(body: bytes) -> None:
    what = error_details(body)
    assert what.code is None or isinstance(what.code, int)
    assert len(what.message) <= 201
    assert what.message == " ".join(what.message.split())


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        (NOW_S, NOW_S - 1, "older one first"),
        (NOW_S - 86_400, NOW_S + 86_400, "after now"),
        (NOW_MS - DAY_MS, NOW_MS, "after now"),  # milliseconds by mistake
        (-5, NOW_S, "older one first"),
    ],
)
def test_bounds_that_make_no_sense_are_refused_before_asking(
    client: CoinGecko, simulator: Simulator, first: int, last: int, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        client.market_chart_range("bitcoin", "usd", first, last)
    assert simulator.requests == []


# Faults that pass, and those that do not


GOOD = b'{"bitcoin":{"usd":5.5,"last_updated_at":1779092258}}'


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(reset, id="reset"),
        pytest.param(b"nonsense\r\n\r\n", id="no HTTP"),
        pytest.param(
            http("500 Internal Server Error", b'{"status":500,"error":"Internal Server Error"}'),
            id="500",
        ),
        pytest.param(http("502 Bad Gateway", b"Bad Gateway"), id="502"),
        pytest.param(http("503 Service Unavailable"), id="503"),
        pytest.param(http("408 Request Timeout"), id="408"),
        pytest.param(http("429 Too Many Requests", b"Throttled"), id="429"),
        pytest.param(http("200 OK", GOOD[:20], length=len(GOOD)), id="cut"),
        pytest.param(
            http("200 OK", gzip.compress(GOOD)[:30], "Content-Encoding: gzip", length=99),
            id="cut gzip",
        ),
        pytest.param(
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"bitcoin', id="cut chunk"
        ),
    ],
)
def test_a_fault_that_passes_costs_a_retry_and_nothing_else(
    fault: bytes | Callable[[socket.socket], None], waits: Waits
) -> None:
    with answering([fault, fault, http("200 OK", GOOD)]) as url, asking(url, waits) as client:
        assert client.simple_price("bitcoin", "usd").price == 5.5
        assert client.calls == 3
    assert len(waits.slept) == 2
    assert 0 < waits.slept[0] < 10


def test_a_chunked_and_a_packed_answer_are_read_whole() -> None:
    packed = gzip.compress(GOOD)
    half = len(packed) // 2
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (packed[:half], packed[half:], b""))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n"
    with answering([head + chunks]) as url, asking(url, retries=0) as client:
        assert client.simple_price("bitcoin", "usd").price == 5.5


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("Retry-After: 7", 7.0),
        ("Retry-After: 119", 119.0),
        ("x-ratelimit-reset: 2026-11-23 02:16:00 +0000", 36.544),
        ("Retry-After: Mon, 23 Nov 2026 02:16:00 GMT", 36.544),
    ],
)
def test_the_wait_that_the_server_asks_for_is_kept(header: str, wait: float, waits: Waits) -> None:
    refused = http("429 Too Many Requests", b"Throttled", header)
    with answering([refused, http("200 OK", GOOD)]) as url, asking(url, waits) as client:
        client.simple_price("bitcoin", "usd")
    assert waits.slept == [pytest.approx(wait)]


@given(st.text(max_size=30), st.text(max_size=30))
def test_no_hint_of_the_server_breaks_the_client(after: str, reset_at: str) -> None:
    wait = server_wait({"retry-after": after, "x-ratelimit-reset": reset_at}, NOW_MS)
    assert wait is None or wait >= 0


def test_a_wait_beyond_the_deadline_is_not_begun(waits: Waits) -> None:
    refused = http("429 Too Many Requests", b"Throttled", "Retry-After: 119")
    with (
        answering([refused]) as url,
        asking(url, waits, deadline=60.0) as client,
        pytest.raises(RateLimited, match=r"119 s.*deadline_seconds") as raised,
    ):
        client.simple_price("bitcoin", "usd")
    assert raised.value.retry_after == 119.0
    assert waits.slept == []


def test_refusals_that_stay_end_with_the_tries(waits: Waits) -> None:
    limited = http("429 Too Many Requests", b"Throttled")
    with (
        answering([limited] * 3) as url,
        asking(url, waits, retries=2) as client,
        pytest.raises(RateLimited, match=r"3 tries.*Throttled"),
    ):
        client.simple_price("bitcoin", "usd")
    broken = http("503 Service Unavailable", b"<html><title>Down</title></html>")
    with (
        answering([broken] * 3) as url,
        asking(url, waits, retries=2) as client,
        pytest.raises(Unreachable, match=r"3 tries.*HTTP 503.*Down"),
    ):
        client.simple_price("bitcoin", "usd")


def test_nobody_there_is_said_in_one_sentence(waits: Waits) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        asking(f"http://127.0.0.1:{port}/api/v3", waits, retries=1) as client,
        pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{port}.*connection refused"),
    ):
        client.ping()


def test_a_server_that_trickles_is_held_to_the_deadline() -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.02)

    begun = time.monotonic()
    with (
        answering([trickle]) as url,
        asking(url, retries=0, deadline=0.3) as client,
        pytest.raises(Unreachable, match="too slow"),
    ):
        client.ping()
    assert time.monotonic() - begun < 3


def test_a_silent_server_is_given_up_after_the_read_timeout() -> None:
    with (
        answering([lambda connection: time.sleep(0.6)]) as url,
        asking(url, retries=0, read_timeout=0.2) as client,
        pytest.raises(Unreachable, match="no answer in time"),
    ):
        client.ping()


def test_a_body_without_end_is_cut_off() -> None:
    bomb = gzip.compress(b" " * (65 * 2**20), compresslevel=9)
    error = price_error(http("200 OK", bomb, "Content-Encoding: gzip"))
    assert isinstance(error, BadAnswer)
    assert "larger than 64 MiB" in str(error)


def test_an_address_that_is_none_is_a_wrong_setting() -> None:
    with (
        CoinGecko(base_url="http://", options=TransportOptions(retries=0)) as client,
        pytest.raises(UsageError),
    ):
        client.ping()
