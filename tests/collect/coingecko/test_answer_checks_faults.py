"""After any wrong answer and one more run: what landed is what was served and wanted, each once.

The simulator fails by script over real HTTP, the commands run as a user runs them, and a Demo key
is set whose text must be in no file and no message afterwards.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from bitstorm.collect.coingecko.answer_checks import FOLDER
from bitstorm.core.time import DAY_MS
from bitstorm.simulator.market import Market
from collect.commands import CANARY, Desk, desk_for
from simulator.watched import Simulator

# An answer without a fault comes within this on a busy machine, too.
QUICK = ("source.read_timeout_seconds=1.5", "source.deadline_seconds=3")
SHAPE_B = '{"status":{"error_code":429,"error_message":"slow down"}}'

# Answers that are wrong as a whole, and what the sentence about it says.
WHOLE: dict[str, tuple[dict[str, Any], str]] = {
    "html": ({"html": True}, "text/html"),
    "html_called_json": ({"html": True, "content_type": "application/json"}, "not JSON"),
    "an error in a 200": ({"refuse": 10012, "status": 200}, "10012"),
    "an error of shape B in a 200": ({"body": SHAPE_B}, "429"),
    "nothing in an object": ({"body": "{}"}, "kept in"),
    "an empty body": ({"body": ""}, "not JSON"),
    "a wrong content type": ({"content_type": "text/plain"}, "text/plain"),
    "truncated": ({"truncate": 40}, "shorter than announced"),
    "truncated at once": ({"truncate": 0}, "shorter than announced"),
    "slow to begin": ({"delay_seconds": 4}, "no answer in time"),
    "slow to end": ({"trickle_seconds": 0.1}, "too slow"),
    "endless": ({"endless": True}, "larger than|too slow"),
    "hung up": ({"drop": True}, "without an answer|connection reset"),
    "401": ({"refuse": 401}, "401"),
    "403": ({"refuse": 403}, "403"),
    "403 from the firewall": ({"html": True, "status": 403}, "firewall"),
    "429": ({"refuse": 429}, "too many requests"),
    "10002": ({"refuse": 10002}, "10002"),
    "10005": ({"refuse": 10005}, "10005"),
    "10010": ({"refuse": 10010}, "source.plan"),
    "10011": ({"refuse": 10011}, "source.plan"),
    "10012": ({"refuse": 10012}, "fewer days"),
    "500": ({"status": 500, "body": '{"status":500,"error":"Internal Server Error"}'}, "500"),
    "502": ({"status": 502, "body": "Bad Gateway", "content_type": "text/plain"}, "502"),
    "all prices null": ({"price": None}, "price"),
    "all prices NaN": ({"price": "NaN"}, "nan"),
    "all prices a text of Infinity": ({"price": '"Infinity"'}, "Infinity"),
    "all prices 0": ({"price": 0}, "0"),
    "all prices -1": ({"price": -1}, "-1"),
    "all prices 1e400": ({"price": "1e400"}, "inf"),
    "all prices a text": ({"price": '"64000"'}, "64000"),
    "of next year": ({"shift_ms": 400 * DAY_MS}, "after|ahead"),
}
# One or two points of a chart, and the rule that they break.
SINGLE: dict[str, tuple[dict[str, Any], str]] = {
    "null": ({"price": None}, "price_present"),
    "NaN": ({"price": "NaN"}, "price_finite"),
    "a text of Infinity": ({"price": '"Infinity"'}, "price_readable"),
    "Infinity": ({"price": "Infinity"}, "price_finite"),
    "0": ({"price": 0}, "price_positive"),
    "-1": ({"price": -1}, "price_positive"),
    "1e400": ({"price": "1e400"}, "price_finite"),
    "a text": ({"price": '"64000"'}, "price_readable"),
    "true": ({"price": True}, "price_readable"),
    "far too high": ({"price": 1e9}, "price_jump"),
    "far too low": ({"price": 1}, "price_jump"),
    "of the future": ({"shift_ms": 400 * DAY_MS}, "not_in_future"),
    "in seconds": ({"shift_ms": -1_790_000_000_000}, "timestamp_readable"),
}


def simulator_of(market: Market, *rules: dict[str, Any]) -> Simulator:
    return Simulator(market, plan="demo", keys={CANARY}, script=rules)


def notes(desk: Desk) -> list[dict[str, Any]]:
    folder = desk.workspace / "rejects" / FOLDER
    return [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]


def check_nothing_tells_the_key(desk: Desk, *said: str) -> None:
    assert desk.holding(CANARY) == []
    assert all(CANARY not in text for text in said)


@pytest.mark.parametrize(("rule", "words"), WHOLE.values(), ids=WHOLE.keys())
def test_a_look_that_failed_is_made_again_and_lands_once(
    market: Market,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: dict[str, Any],
    words: str,
) -> None:
    with (
        simulator_of(market, {"endpoint": "/simple/price", "requests": 1, **rule}) as simulator,
        desk_for(simulator.base_url, tmp_path, monkeypatch, *QUICK) as desk,
    ):
        failed = desk.run("collect")
        assert failed.code == 1
        assert failed.stderr.count("\n") == 1, failed.stderr
        assert any(word in failed.stderr for word in words.split("|")), failed.stderr
        assert desk.landed() == []
        again = desk.run("collect")
        assert again.code == 0, again.stderr
        assert desk.landed() == simulator.ledger.observations(endpoint="/simple/price")
        assert len(desk.landed()) == 1
        check_nothing_tells_the_key(desk, failed.stderr, again.stderr, again.stdout)


@pytest.mark.parametrize(("rule", "words"), WHOLE.values(), ids=WHOLE.keys())
def test_a_failed_backfill_lands_each_point_once(
    market: Market,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: dict[str, Any],
    words: str,
) -> None:
    if rule == {"trickle_seconds": 0.1}:
        rule = {"trickle_seconds": 0.01}
    spoilt = {"endpoint": "*/range", "requests": 2, **rule}
    with (
        simulator_of(market, spoilt) as simulator,
        desk_for(simulator.base_url, tmp_path, monkeypatch, *QUICK) as desk,
    ):
        options = ("--days", "25")
        failed = desk.run("backfill", *options, settings=["backfill.slice_days=10"])
        assert failed.code == 1, failed.stderr
        landed = len(desk.landed())
        assert 0 < landed < 20 * 24
        again = desk.run("backfill", *options, "--json", settings=["backfill.slice_days=10"])
        assert again.code == 0, again.stderr
        first_ms, end_ms = json.loads(again.stdout)["wanted"]
        served = simulator.ledger.observations(
            endpoint="/range", first_ms=first_ms, last_ms=end_ms - 1
        )
        assert desk.landed() == served
        assert len(served) == pytest.approx(25 * 24, abs=15)
        check_nothing_tells_the_key(desk, failed.stderr, again.stderr, again.stdout)


@pytest.mark.parametrize(("rule", "broken"), SINGLE.values(), ids=SINGLE.keys())
def test_bad_points_are_left_out_and_never_stop_the_good_ones(
    market: Market,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rule: dict[str, Any],
    broken: str,
) -> None:
    spoilt = {"endpoint": "*/range", "points": [5, 40], **rule}
    with (
        simulator_of(market, spoilt) as simulator,
        desk_for(simulator.base_url, tmp_path, monkeypatch) as desk,
    ):
        done = desk.run("backfill", "--days", "5", "--json")
        assert done.code == 0, done.stderr
        first_ms, end_ms = json.loads(done.stdout)["wanted"]
        served = simulator.ledger.observations(
            endpoint="/range", first_ms=first_ms, last_ms=end_ms - 1
        )
        assert desk.landed() == served
        assert len(served) == pytest.approx(5 * 24 - 2, abs=5)
        found = notes(desk)
        assert found
        for note in found:
            assert note["refused"] == {broken: 2}
            assert [point["rule"] for point in note["points"]] == [broken, broken]
        assert "2 values of the source were refused" in done.stderr
        check_nothing_tells_the_key(desk, done.stderr, done.stdout)


def test_an_hour_of_a_refused_point_is_asked_for_again(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = {"endpoint": "*/range", "requests": 1, "points": [5, 40], "price": 0}
    with (
        simulator_of(market, spoilt) as simulator,
        desk_for(simulator.base_url, tmp_path, monkeypatch) as desk,
    ):
        first = desk.run("backfill", "--days", "5", "--json")
        before = desk.landed()
        again = desk.run("backfill", "--days", "5", "--json")
        assert (first.code, again.code) == (0, 0), first.stderr + again.stderr
        assert len(desk.landed()) - len(before) == 2
        first_ms, end_ms = json.loads(again.stdout)["wanted"]
        assert desk.landed() == simulator.ledger.observations(
            endpoint="/range", first_ms=first_ms, last_ms=end_ms - 1
        )
        third = desk.run("backfill", "--days", "5", "--json")
        assert json.loads(third.stdout)["points"] == 0


def test_a_price_that_jumps_is_refused_the_true_one_taken(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = {"endpoint": "/simple/price", "requests": 2, "price": 1e9}
    with (
        simulator_of(market, spoilt) as simulator,
        desk_for(simulator.base_url, tmp_path, monkeypatch) as desk,
    ):
        codes = [desk.run("collect").code for _ in range(3)]
        assert codes == [0, 1, 0]
        assert desk.landed() == simulator.ledger.observations(endpoint="/simple/price")
        (note,) = notes(desk)
        assert "10 times apart" in note["reason"]


def test_a_redirect_to_another_host_gets_no_key(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Simulator(market) as elsewhere:
        target = elsewhere.base_url.replace("127.0.0.1", "localhost") + "/simple/price"
        with (
            simulator_of(market, {"requests": 1, "redirect": target}) as simulator,
            desk_for(simulator.base_url, tmp_path, monkeypatch) as desk,
        ):
            failed = desk.run("collect")
            assert failed.code == 1
            assert "redirects to localhost" in failed.stderr
            assert desk.run("collect").code == 0
            assert desk.landed() == simulator.ledger.observations()
            check_nothing_tells_the_key(desk, failed.stderr)
        assert elsewhere.requests == []


@pytest.mark.parametrize("way", ["plain", "in a price", "in the content type", "in an error"])
def test_a_key_that_the_source_repeats_gets_into_no_file(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    rules: dict[str, dict[str, Any]] = {
        "plain": {"body": f"<p>{CANARY}</p>"},
        "in a price": {"price": f'"{" " * 20}{CANARY}"'},
        "in the content type": {"content_type": f"text/{CANARY}"},
        "in an error": {"status": 401, "body": f'{{"error":"{CANARY}"}}'},
    }
    rule = rules[way]
    with (
        simulator_of(market, {"endpoint": "/simple/price", "requests": 1, **rule}) as simulator,
        desk_for(simulator.base_url, tmp_path, monkeypatch) as desk,
    ):
        failed = desk.run("collect", "--debug")
        assert failed.code == 1
        check_nothing_tells_the_key(desk, failed.stderr, failed.stdout)
        assert bool(notes(desk)) == (way != "in an error")
        # Nor a part of it, where a message or a note is cut.
        assert CANARY[:12] not in failed.stderr
        assert desk.holding(CANARY[:12]) == []


def test_a_future_price_is_refused_and_the_true_one_taken(
    market: Market, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The data is two hours ahead of the server's own clock: wrong, whatever this machine's says.
    skewed = {"endpoint": "/simple/price", "requests": 1, "clock_skew_seconds": 7200}
    with (
        simulator_of(market, skewed) as simulator,
        desk_for(simulator.base_url, tmp_path, monkeypatch) as desk,
    ):
        failed = desk.run("collect")
        assert failed.code == 1
        assert "lies ahead" in failed.stderr
        assert desk.run("collect").code == 0
        assert desk.landed() == simulator.ledger.observations()
