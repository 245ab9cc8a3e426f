"""The checks: what is believed of an answer, what is left out, and what is kept of the rest."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bitstorm.collect.batches import Observation
from bitstorm.collect.coingecko import answer_checks as doors
from bitstorm.collect.coingecko.answer_checks import FOLDER, MOST_BYTES, AnswerChecks, newest_landed
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.collect.live import collect_once
from bitstorm.core.errors import BadAnswer
from bitstorm.core.time import HOUR_MS, MINUTE_MS
from bitstorm.simulator.market import Market
from bitstorm.simulator.server import Simulator
from collect.faulty_server import NOW_MS, answering, http

HOUR_AGO_MS = NOW_MS - HOUR_MS
JSON = "Content-Type: application/json; charset=utf-8"


def chart_of(body: bytes, checks: AnswerChecks, *headers: str) -> tuple[list[Observation], int]:
    """The points of one raw answer, and how many values were left out."""
    raw = http("200 OK", body, *headers)
    with (
        answering([raw]) as url,
        CoinGecko(
            base_url=url, checks=checks, options=TransportOptions(retries=0, clock=lambda: NOW_MS)
        ) as client,
    ):
        return client.market_chart_range("bitcoin", "usd", 0, NOW_MS // 1000), client.refused


def chart(prices: list[Any], **arrays: list[Any]) -> bytes:
    """A chart of these prices, an hour apart, with one for now behind them."""
    count = len(prices)
    points = [[HOUR_AGO_MS - (count - i) * HOUR_MS + 7, p] for i, p in enumerate(prices)]
    now = [NOW_MS // 1000 * 1000, 100.0]
    body = {"prices": [*points, now], "market_caps": [], "total_volumes": []}
    return json.dumps(body | arrays).encode()


def kept(rejects: Path) -> list[tuple[bytes, dict[str, Any]]]:
    return [
        (note.with_suffix(".txt").read_bytes(), json.loads(note.read_bytes()))
        for note in sorted((rejects / FOLDER).glob("*.json"))
    ]


def test_good_answers_leave_nothing_behind(tmp_path: Path) -> None:
    points, refused = chart_of(chart([100.0, 101.0, 99.0]), AnswerChecks(rejects=tmp_path), JSON)
    assert [p.price for p in points] == [100.0, 101.0, 99.0]
    assert refused == 0
    assert list(tmp_path.iterdir()) == []


def test_the_raw_answer_is_kept_with_its_reason(tmp_path: Path) -> None:
    body = chart([100.0, None, 102.0, -1, 101.0])
    points, refused = chart_of(body, AnswerChecks(rejects=tmp_path), JSON)
    assert [p.price for p in points] == [100.0, 102.0, 101.0]
    assert refused == 2
    ((raw, note),) = kept(tmp_path)
    assert raw == body
    assert note["endpoint"] == "/coins/bitcoin/market_chart/range"
    asked = {"from": "0", "to": str(NOW_MS // 1000)}
    assert note["request"] == {"vs_currency": "usd", "precision": "full", **asked}
    assert (note["status"], note["bytes"], note["received_at_ms"]) == (200, len(body), NOW_MS)
    assert note["refused"] == {"price_present": 1, "price_positive": 1}
    assert [(p["rule"], p["value"]) for p in note["points"]] == [
        ("price_present", None),
        ("price_positive", -1.0),
    ]
    assert "price is null" in note["points"][0]["reason"]


def test_the_same_answer_again_is_kept_once(tmp_path: Path) -> None:
    for _ in range(3):
        chart_of(chart([100.0, 0, 101.0]), AnswerChecks(rejects=tmp_path))
    assert len(kept(tmp_path)) == 1


def test_of_a_huge_answer_the_beginning_is_kept(tmp_path: Path) -> None:
    body = b"<html>" + b"x" * (2 * MOST_BYTES)
    with pytest.raises(BadAnswer, match="kept in"):
        chart_of(gzip.compress(body), AnswerChecks(rejects=tmp_path), "Content-Encoding: gzip")
    ((raw, note),) = kept(tmp_path)
    assert raw == body[:MOST_BYTES]
    assert (note["bytes"], note["kept_bytes"]) == (len(body), MOST_BYTES)


def test_only_the_newest_answers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "MOST_ANSWERS", 3)
    folder = tmp_path / FOLDER
    for number in range(5):
        chart_of(chart([100.0, 0, 101.0 + number]), AnswerChecks(rejects=tmp_path))
        for path in folder.iterdir():
            # One second older each time: file systems differ in how finely they tell times.
            status = path.stat()
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 10**9))
    assert len(list(folder.iterdir())) == 6
    prices = {json.loads(raw)["prices"][2][1] for raw, _ in kept(tmp_path)}
    assert prices == {103.0, 104.0, 105.0}


def test_an_unwritable_folder_does_not_hide_the_refusal(tmp_path: Path) -> None:
    (tmp_path / "rejects").write_text("a file where the folder belongs")
    with pytest.raises(BadAnswer, match=r"not JSON.*could not be kept"):
        chart_of(b"<html>", AnswerChecks(rejects=tmp_path / "rejects"))
    points, refused = chart_of(chart([100.0, 0, 101.0]), AnswerChecks(rejects=tmp_path / "rejects"))
    assert (len(points), refused) == (2, 1)


@pytest.mark.parametrize(
    "header",
    [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/problem+json",
        "text/json",
    ],
)
def test_every_way_of_saying_json_is_taken(header: str) -> None:
    points, _ = chart_of(chart([100.0]), AnswerChecks(), f"Content-Type: {header}")
    assert len(points) == 1


@pytest.mark.parametrize("header", ["text/html", "text/plain; charset=utf-8", "image/png"])
def test_another_content_type_is_refused_whatever_the_body(header: str) -> None:
    with pytest.raises(BadAnswer, match=r"instead of application/json.*source\.base_url"):
        chart_of(chart([100.0]), AnswerChecks(), f"Content-Type: {header}")


def test_a_spike_is_left_out_and_a_lasting_change_is_not() -> None:
    spike = [100.0, 101.0, 5000.0, 99.0, 100.0]
    points, refused = chart_of(chart(spike), AnswerChecks())
    assert [p.price for p in points] == [100.0, 101.0, 99.0, 100.0]
    assert refused == 1
    lasting = [100.0, 101.0, 99.0, 5000.0, 5100.0, 4900.0]
    points, refused = chart_of(chart(lasting), AnswerChecks())
    assert ([p.price for p in points], refused) == (lasting, 0)
    points, refused = chart_of(chart(spike), AnswerChecks(max_jump=None))
    assert ([p.price for p in points], refused) == (spike, 0)


def test_spikes_at_the_ends_and_two_in_a_row_are_left_out() -> None:
    for spoilt in ([9e9, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 9e9], [1, 1, 9e9, 9e9, 1, 1, 1]):
        points, refused = chart_of(chart(spoilt), AnswerChecks())
        assert all(p.price == 1 for p in points)
        assert refused == sum(price > 1 for price in spoilt)


def test_a_cap_or_volume_that_is_none_costs_no_price(tmp_path: Path) -> None:
    stamp = HOUR_AGO_MS - HOUR_MS + 7
    body = chart([100.0], market_caps=[[stamp, "Infinity"]], total_volumes=[[stamp, None]])
    points, refused = chart_of(body, AnswerChecks(rejects=tmp_path))
    assert points == [Observation(stamp, 100.0, None, None)]
    assert refused == 1
    assert kept(tmp_path)[0][1]["refused"] == {"market_cap_readable": 1}


STRANGE = {
    "no array": None,
    "null": "null",
    "an object": "{}",
    "a number": "7",
    "a text": '"none"',
    "numbers": "[1, 2]",
    "a pair too short": "[[1]]",
    "a pair too long": "[[1, 2, 3]]",
    "no pairs": "[{}, null]",
    "other times": "[[1, 2.0]]",
    "no item": "[]",
}


@pytest.mark.parametrize(
    "keys", [("market_caps",), ("total_volumes",), ("market_caps", "total_volumes")]
)
@pytest.mark.parametrize("array", STRANGE)
def test_a_chart_with_strange_caps_keeps_its_prices(
    tmp_path: Path, array: str, keys: tuple[str, ...]
) -> None:
    content = json.loads(chart([100.0, 101.0]))
    stamps = [stamp for stamp, _ in content["prices"][:2]]
    for name in ("market_caps", "total_volumes"):
        content[name] = [[stamp, 5.0] for stamp in stamps]
        if name in keys:
            del content[name]
            if STRANGE[array] is not None:
                content[name] = json.loads(str(STRANGE[array]))
    points, refused = chart_of(json.dumps(content).encode(), AnswerChecks(rejects=tmp_path))
    cap = None if "market_caps" in keys else 5.0
    volume = None if "total_volumes" in keys else 5.0
    assert points == [
        Observation(s, p, cap, volume) for s, p in zip(stamps, (100.0, 101.0), strict=True)
    ]
    if array in ("no item", "other times"):
        assert refused == 0
    else:
        assert refused >= len(keys)
        assert sum(kept(tmp_path)[0][1]["refused"].values()) == refused


def test_what_is_no_pair_is_left_out_and_the_prices_stay() -> None:
    content = json.loads(chart([100.0, 101.0, 102.0]))
    items: list[Any] = [[1], [1, 2, 3], 7, "x", None, {}]
    for strange in items:
        content["prices"][1] = strange
        points, refused = chart_of(json.dumps(content).encode(), AnswerChecks())
        assert ([p.price for p in points], refused) == ([100.0, 102.0], 1)


def test_a_live_price_with_a_strange_cap_is_a_price() -> None:
    body = b'{"bitcoin":{"usd":5.5,"usd_market_cap":NaN,"last_updated_at":1779092258}}'
    with (
        answering([http("200 OK", body)]) as url,
        CoinGecko(
            base_url=url, options=TransportOptions(retries=0, clock=lambda: NOW_MS)
        ) as client,
    ):
        assert client.simple_price("bitcoin", "usd") == Observation(1779092258000, 5.5)
        assert client.refused == 1


@pytest.mark.parametrize(("price", "doubtful"), [(None, False), (0, True), ("x", True), (1, False)])
def test_strange_prices_are_doubtful_and_nulls_are_not(price: Any, doubtful: bool) -> None:
    raw = http("200 OK", chart([1.0, price, 1.0]))
    with (
        answering([raw]) as url,
        CoinGecko(
            base_url=url, options=TransportOptions(retries=0, clock=lambda: NOW_MS)
        ) as client,
    ):
        client.market_chart_range("bitcoin", "usd", 0, NOW_MS // 1000)
        assert client.doubtful is doubtful


def live(market: Market, *, clock_ms: int, checks: AnswerChecks, landing: Path) -> Any:
    """One collect with this machine's clock, from a server whose own is right."""
    with (
        Simulator(market, clock=lambda: NOW_MS) as simulator,
        CoinGecko(
            base_url=simulator.base_url,
            checks=checks,
            options=TransportOptions(clock=lambda: clock_ms),
        ) as client,
    ):
        return collect_once(
            client, landing, coin="bitcoin", vs_currency="usd", clock=lambda: clock_ms
        )


@pytest.mark.parametrize("behind_ms", [HOUR_MS, -24 * HOUR_MS])
def test_a_wrong_clock_still_lands_the_sources_time(
    market: Market, tmp_path: Path, behind_ms: int
) -> None:
    found = live(market, clock_ms=NOW_MS - behind_ms, checks=AnswerChecks(), landing=tmp_path)
    stamp = NOW_MS // MINUTE_MS * MINUTE_MS
    assert found.batch.sidecar.first_ms == stamp
    # Ingest refuses rows that lie after their batch was fetched.
    assert found.batch.sidecar.fetched_at >= stamp


@pytest.mark.parametrize(
    ("price", "age_ms", "taken"),
    [(1.0, HOUR_MS, False), (1e9, HOUR_MS, False), (1.0, 7 * HOUR_MS, True)],
)
def test_a_live_price_is_compared_with_a_fresh_last_one(
    market: Market, tmp_path: Path, price: float, age_ms: int, taken: bool
) -> None:
    checks = AnswerChecks(rejects=tmp_path / "rejects", previous=lambda: (NOW_MS - age_ms, price))
    if taken:
        assert live(market, clock_ms=NOW_MS, checks=checks, landing=tmp_path).batch is not None
    else:
        with pytest.raises(BadAnswer, match=r"10 times apart.*source\.max_jump"):
            live(market, clock_ms=NOW_MS, checks=checks, landing=tmp_path)
        assert len(kept(tmp_path / "rejects")) == 1


def test_the_last_price_is_read_from_the_newest_batch(market: Market, tmp_path: Path) -> None:
    assert newest_landed(tmp_path / "nowhere", coin="bitcoin") is None
    assert newest_landed(tmp_path, coin="bitcoin") is None
    found = live(market, clock_ms=NOW_MS, checks=AnswerChecks(), landing=tmp_path)
    older = "timestamp,price\n1,2\n"
    for name in ("bitcoin_prices_20200101_000000_hourly", "btc_prices_2099", "bitcoin_prices_mine"):
        (tmp_path / f"{name}.csv").write_text(older)
    o = found.observation
    assert newest_landed(tmp_path, coin="bitcoin") == (o.timestamp, o.price)
    (tmp_path / "bitcoin_prices_20991231_000000.csv").write_text("time,usd\nx,y\n")
    assert newest_landed(tmp_path, coin="bitcoin") is None
