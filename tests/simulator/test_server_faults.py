"""The simulator as a double: limits, credits, cache, faults by script, and its ledger."""

import gzip
import json
import math
import os
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.core.errors import HistoryTooOld, KeyProblem, RateLimited
from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS, now_ms
from bitstorm.simulator.market import Market, hourly
from collect.faulty_server import NOW_MS, Waits
from simulator.asking import FULL, between, chart, get
from simulator.limits import LIMITS, Limits
from simulator.watched import Simulator

LIVE = f"/simple/price?{FULL}&include_last_updated_at=true&precision=full"
LIBRARY = Path(__file__).resolve().parents[2] / "lib"


# Limits and credits


@pytest.mark.parametrize("plan", ["keyless", "demo", "pro"])
def test_each_plan_has_its_calls_a_minute(market: Market, plan: Any) -> None:
    allowed = LIMITS[plan].per_minute
    assert allowed is not None
    key = {"x-cg-pro-api-key": "CG-x"} if plan == "pro" else {}
    moment = NOW_MS
    with Simulator(market, clock=lambda: moment, plan=plan, limits=LIMITS[plan]) as simulator:
        codes = [get(simulator, "/ping", **key).status for _ in range(allowed + 2)]
        assert codes == [200] * allowed + [429] * 2
        moment += MINUTE_MS
        assert get(simulator, "/ping", **key).status == 200


def test_a_refusal_is_as_the_one_that_was_captured(market: Market) -> None:
    limits = Limits(1, None)
    with Simulator(market, clock=lambda: NOW_MS, limits=limits) as simulator:
        get(simulator, "/ping")
        refused = get(simulator, "/ping")
    assert len(refused.body) == 187
    assert refused.json()["status"]["error_code"] == 429
    # 23.456 s into the minute.
    assert refused.headers["Retry-After"] == "37"
    assert "no-store" in refused.headers["Cache-Control"]


def test_a_client_waits_as_it_is_told_and_is_served(market: Market) -> None:
    waits = Waits()

    def clock() -> int:
        return NOW_MS + round(waits.monotonic() * 1000)

    with (
        Simulator(market, clock=clock, limits=Limits(2, None)) as simulator,
        CoinGecko(
            base_url=simulator.base_url,
            options=TransportOptions(clock=clock, sleep=waits.sleep, monotonic=waits.monotonic),
        ) as client,
    ):
        for _ in range(3):
            client.ping()
    assert waits.slept == [37.0]


def test_refusals_of_any_kind_count_as_calls_but_cost_no_credit(market: Market) -> None:
    key = {"x-cg-pro-api-key": "CG-x"}
    limits = Limits(4, 2)
    moment = NOW_MS
    with Simulator(market, clock=lambda: moment, plan="pro", limits=limits) as simulator:
        answers = [get(simulator, path, **key) for path in ("/nowhere", "/simple/price", "/key")]
        assert [a.status for a in answers] == [404, 422, 200]
        told = answers[-1].json()
        assert told["current_total_monthly_calls"] == 0
        assert told["current_remaining_monthly_calls"] == 2
        assert get(simulator, "/key", **key).json()["current_total_monthly_calls"] == 1
        assert get(simulator, "/ping", **key).status == 429  # the minute's calls
        moment += MINUTE_MS
        assert get(simulator, "/ping", **key).status == 429  # the month's credits
        moment += 10 * DAY_MS  # into December
        assert get(simulator, "/ping", **key).status == 200


def test_a_paid_plan_pays_nothing_for_a_kept_answer(market: Market) -> None:
    key = {"x-cg-pro-api-key": "CG-x"}
    with Simulator(market, clock=lambda: NOW_MS, plan="pro") as simulator:
        for _ in range(3):
            get(simulator, LIVE, **key)
        assert get(simulator, "/key", **key).json()["current_total_monthly_calls"] == 1


def test_a_key_that_nobody_gave_out_is_refused(market: Market) -> None:
    with (
        Simulator(market, plan="demo", keys={"CG-good"}) as simulator,
        CoinGecko(base_url=simulator.base_url, plan="demo", api_key="CG-bad") as stranger,
        CoinGecko(base_url=simulator.base_url, plan="demo", api_key="CG-good") as known,
    ):
        known.ping()
        with pytest.raises(KeyProblem, match="Invalid API key"):
            stranger.ping()


# The cache


@pytest.mark.parametrize(
    ("path", "plan", "window_ms"),
    [
        (LIVE, "keyless", 60_000),
        (LIVE, "pro", 20_000),
        ("/coins/bitcoin/market_chart?vs_currency=usd&days=2", "demo", 30_000),
        ("/coins/bitcoin/ohlc?vs_currency=usd&days=1", "demo", 900_000),
        ("/coins/markets?vs_currency=usd&precision=full", "demo", 45_000),
    ],
)
def test_a_question_gets_the_same_answer_within_the_window(
    market: Market, path: str, plan: Any, window_ms: int
) -> None:
    # From the last second of a minute, so that the market has moved a moment later.
    begun = NOW_MS // MINUTE_MS * MINUTE_MS + 59_000
    moment = begun
    key = {"x-cg-pro-api-key": "CG-x"} if plan == "pro" else {}
    with Simulator(market, clock=lambda: moment, plan=plan) as simulator:
        first = get(simulator, path, **key)
        moment = begun + window_ms - 1
        again = get(simulator, path, **key)
        moment = begun + window_ms
        fresh = get(simulator, path, **key)
    assert again.body == first.body != fresh.body
    assert [a.headers["Cf-Cache-Status"] for a in (first, again, fresh)] == ["MISS", "HIT", "MISS"]
    assert again.headers["Age"] == str((window_ms - 1) // 1000)


def test_a_range_is_kept_by_its_length(market: Market) -> None:
    begun = NOW_MS // MINUTE_MS * MINUTE_MS + 59_000
    ages = {DAY_MS: 30_000, 30 * DAY_MS: 30 * MINUTE_MS, 100 * DAY_MS: 12 * HOUR_MS}
    for length, window_ms in ages.items():
        moment = begun
        with Simulator(market, clock=lambda: moment) as simulator:  # noqa: B023
            path = (
                "/coins/bitcoin/market_chart/range?vs_currency=usd"
                f"&from={(begun - length) // 1000}&to={begun // 1000}"
            )
            moment += window_ms - 1
            get(simulator, path)
            moment += window_ms - 1
            assert get(simulator, path).headers["Cf-Cache-Status"] == "HIT"
            moment += 1
            assert get(simulator, path).headers["Cf-Cache-Status"] == "MISS"


def test_refusals_are_not_kept(simulator: Simulator) -> None:
    for _ in range(2):
        refused = get(simulator, "/coins/bitcoin/market_chart?vs_currency=usd&days=366")
        assert refused.status == 401
        assert refused.headers["Cf-Cache-Status"] is None


# Off the grid


def test_a_month_of_hours_has_a_few_holes_and_doubles() -> None:
    # A month at a time, as one answer has it: the counts of many months around those recorded.
    holes, doubles, half = [], [], []
    first = NOW_MS // (720 * HOUR_MS) * 720 * HOUR_MS
    for month in range(1, 61):
        start = first - month * 720 * HOUR_MS
        found = hourly(7, start, start + 720 * HOUR_MS - 1).tolist()
        hours = [stamp // HOUR_MS for stamp in found]
        holes.append(720 - len(set(hours)))
        doubles.append(len(hours) - len(set(hours)))
        half.append(sorted(stamp % HOUR_MS for stamp in found)[len(found) // 2] / 1000)
        assert found == sorted(set(found))
    assert sum(holes) / 60 == pytest.approx(4, abs=4 * math.sqrt(4 / 60))
    assert sum(doubles) / 60 == pytest.approx(6, abs=4 * math.sqrt(6 / 60))
    assert max(holes) <= 14
    assert max(doubles) <= 18
    assert all(150 < seconds < 260 for seconds in half)


# Faults by script


def script(*rules: dict[str, Any]) -> Simulator:
    return Simulator(Market(7), clock=lambda: NOW_MS, script=rules)


def test_a_rule_strikes_the_requests_that_it_names_and_no_other() -> None:
    with script(
        {"endpoint": "/simple/*", "requests": "2-3", "status": 503},
        {"endpoint": "*/market_chart", "requests": [1, 3], "status": 502},
        {"endpoint": "/ping", "requests": 2, "status": 500},
        {"endpoint": "/coins/markets", "requests": "2-", "refuse": 429},
    ) as simulator:

        def codes(path: str) -> list[int]:
            return [get(simulator, path).status for _ in range(4)]

        assert codes(LIVE) == [200, 503, 503, 200]
        assert codes("/coins/bitcoin/market_chart?vs_currency=usd&days=1") == [502, 200, 502, 200]
        assert codes("/ping") == [200, 500, 200, 200]
        assert codes("/coins/markets?vs_currency=usd") == [200, 429, 429, 429]


def test_the_first_rule_that_fits_strikes_and_all_count() -> None:
    with script({"requests": 1, "status": 500}, {"requests": "1-2", "status": 502}) as simulator:
        assert [get(simulator, "/ping").status for _ in range(3)] == [500, 502, 200]


@pytest.mark.parametrize(
    ("literal", "written"),
    [
        (None, b"null"),
        ("NaN", b"NaN"),
        ('"Infinity"', b'"Infinity"'),
        (0, b"0"),
        (-1, b"-1"),
        ("1e400", b"1e400"),
        ('"12"', b'"12"'),
    ],
)
def test_a_price_is_put_in_as_it_stands_and_nothing_else_changes(
    literal: Any, written: bytes
) -> None:
    with script({"requests": 2, "endpoint": "/simple/price", "price": literal}) as simulator:
        good, bad = get(simulator, LIVE), get(simulator, LIVE)
    price = json.dumps(good.json()["bitcoin"]["usd"]).encode()
    assert bad.body == good.body.replace(b'"usd":' + price, b'"usd":' + written)


def test_points_of_a_chart_are_changed_one_by_one() -> None:
    rule = {"requests": 2, "points": [0, -2], "price": None, "market_cap": "1e400", "volume": 0}
    with script(rule) as simulator:
        good = chart(simulator, 2)
        bad = get(simulator, "/coins/bitcoin/market_chart?vs_currency=usd&days=2").json()
    count = len(good["prices"])
    for array, value in (("prices", None), ("market_caps", math.inf), ("total_volumes", 0)):
        for place, (before, after) in enumerate(zip(good[array], bad[array], strict=True)):
            touched = place in (0, count - 2)
            assert after == [before[0], value if touched else before[1]]


def test_points_can_be_missing_moved_doubled_or_out_of_order() -> None:
    path = "/coins/bitcoin/market_chart?vs_currency=usd&days=3"
    with script(
        {"requests": 2, "points": [3], "omit": True},
        {"requests": 3, "points": [3], "shift_ms": -955},
        {"requests": 4, "points": [3], "repeat": True},
        {"requests": 5, "reverse": True},
    ) as simulator:
        good, less, moved, more, back = (get(simulator, path).json()["prices"] for _ in range(5))
    assert less == good[:3] + good[4:]
    assert moved == [*good[:3], [good[3][0] - 955, good[3][1]], *good[4:]]
    assert more == [*good[:4], *good[3:]]
    assert back == good[::-1]


@pytest.mark.parametrize(
    ("code", "status"),
    [(401, 401), (403, 403), (429, 429), (10002, 401), (10005, 401), (10010, 400), (10011, 400)],
)
def test_a_refusal_has_the_apis_status_and_shape(code: int, status: int) -> None:
    with script({"refuse": code}) as simulator:
        answer = get(simulator, "/ping")
    assert answer.status == status
    body = answer.json()
    assert code in (body.get("error_code"), body["status"].get("error_code"))


def test_the_wall_of_a_plan_can_be_put_anywhere() -> None:
    with script({"wall_days": 30}) as simulator:
        assert get(simulator, "/coins/bitcoin/market_chart?vs_currency=usd&days=31").status == 401
        assert get(simulator, "/coins/bitcoin/market_chart?vs_currency=usd&days=29").status == 200
        assert "error" in between(simulator, NOW_MS - 31 * DAY_MS, NOW_MS - 29 * DAY_MS)
        with (
            CoinGecko(
                base_url=simulator.base_url, options=TransportOptions(clock=lambda: NOW_MS)
            ) as client,
            pytest.raises(HistoryTooOld),
        ):
            client.market_chart_range(
                "bitcoin", "usd", (NOW_MS - 40 * DAY_MS) // 1000, NOW_MS // 1000
            )


def test_a_skewed_clock_answers_as_of_another_time(market: Market) -> None:
    with script({"clock_skew_seconds": -3600}) as simulator:
        fields = get(simulator, LIVE).json()["bitcoin"]
    assert fields["last_updated_at"] * 1000 == (NOW_MS - HOUR_MS) // MINUTE_MS * MINUTE_MS
    assert fields["usd"] == market.price([NOW_MS - HOUR_MS])[0]


@pytest.mark.parametrize("hint", ["2", "999999", "soon", None])
def test_a_429_says_what_the_script_says(hint: str | None) -> None:
    rule: dict[str, Any] = {"requests": 1, "refuse": 429}
    if hint is not None:
        rule["headers"] = {"Retry-After": hint}
    waits = Waits()
    with (
        script(rule) as simulator,
        CoinGecko(
            base_url=simulator.base_url,
            options=TransportOptions(
                clock=lambda: NOW_MS, sleep=waits.sleep, monotonic=waits.monotonic
            ),
        ) as client,
    ):
        if hint == "999999":
            with pytest.raises(RateLimited, match="999999 s"):
                client.ping()
        else:
            client.ping()
            assert len(waits.slept) == 1
            assert hint != "2" or waits.slept == [2.0]


def test_an_endless_answer_does_not_keep_the_server_from_ending() -> None:
    with script({"endless": True}) as simulator:
        answer = urllib.request.urlopen(simulator.base_url + "/ping")
        assert len(answer.read(3 << 20)) == 3 << 20
    # The block ends only when the server's threads have.
    answer.close()
    assert not [t for t in threading.enumerate() if t.name == "bitstorm-simulator"]


def announced(process: subprocess.Popen[str]) -> str:
    """The address that the process says it serves."""
    assert process.stdout is not None
    text = ""
    while not text.endswith("}\n"):
        line = process.stdout.readline()
        assert line, f"the simulator ended after {text!r}"
        text += line
    address: str = json.loads(text)["base_url"]
    return address


def simulated(tmp_path: Path, *options: str) -> subprocess.Popen[str]:
    """`bitstorm simulate`, another process."""
    return subprocess.Popen(
        [sys.executable, "-m", "bitstorm.cli", "simulate", "--json", *options],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(LIBRARY), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_command_replays_a_file_value_for_value(tmp_path: Path) -> None:
    # Numbers as the API mixes them: integers, floats, digits up to the last that a double has.
    prices = [[1621151013017, 49253], [1621151347955, 49253.1234567890123], [1621151348000, 0.1]]
    body = json.dumps({"prices": prices, "market_caps": prices, "total_volumes": prices[::2]})
    (tmp_path / "chart.json.gz").write_bytes(gzip.compress(body.encode()))
    with simulated(tmp_path, "--replay", "chart.json.gz") as process:
        try:
            url = announced(process)
            with CoinGecko(base_url=url, options=TransportOptions(retries=0)) as client:
                points = client.market_chart_range("bitcoin", "usd", 0, now_ms() // 1000)
                assert client.source.startswith("simulated:replay-")
        finally:
            process.terminate()
    recorded = json.loads(body)
    assert [[o.timestamp, o.price] for o in points] == recorded["prices"][:2]
    assert [o.market_cap for o in points] == [cap for _, cap in recorded["market_caps"][:2]]
    assert [o.volume_24h for o in points] == [49253.0, None]


# The ledger


def test_the_ledger_has_what_a_careful_reader_would_take(market: Market) -> None:
    rules = [
        {"requests": 2, "points": [1], "price": 0},
        {"requests": 3, "truncate": 50},
        {"requests": 4, "body": '{"prices":[[1790000000001,1]]}'},
    ]
    start, end = NOW_MS - 5 * DAY_MS, NOW_MS - DAY_MS
    with Simulator(market, clock=lambda: NOW_MS, script=rules) as simulator:
        with CoinGecko(
            base_url=simulator.base_url, options=TransportOptions(clock=lambda: NOW_MS)
        ) as client:
            points = client.market_chart_range("bitcoin", "usd", start // 1000, end // 1000)
        between(simulator, start, end)
        for _ in range(2):
            path = "/coins/bitcoin/market_chart?vs_currency=usd&days=1"
            urllib.request.urlopen(
                urllib.request.Request(simulator.base_url + path, headers={"User-Agent": "x"})
            ).close()
        first, second, third, fourth = simulator.ledger
    taken = [(o.timestamp, o.price, o.market_cap, o.volume_24h) for o in points]
    assert first.observations() == taken
    assert second.observations() == taken[:1] + taken[2:]
    assert third.observations() == []
    assert fourth.observations() == []
    assert simulator.ledger.observations() == taken
    assert simulator.ledger.observations(endpoint="/price") == []


def test_the_ledger_knows_the_live_price_not_the_point_for_now(
    market: Market, simulator: Simulator
) -> None:
    node = NOW_MS // MINUTE_MS * MINUTE_MS
    chart(simulator, 1)
    assert node not in [stamp for stamp, *_ in simulator.ledger.observations()]
    get(simulator, LIVE)
    assert (node, market.price([node])[0]) in [
        (stamp, price) for stamp, price, *_ in simulator.ledger.observations()
    ]
