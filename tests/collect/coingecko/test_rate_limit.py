"""Our own limits: no minute and no month sees more calls than it should, whoever makes them."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.rate_limit import (
    LONGEST_QUEUE_MS,
    TOKEN_MS,
    Limits,
    RateLimit,
    limits_of,
    month_of,
    next_call,
    next_month_ms,
    with_credits,
    worth_a_warning,
)
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.collect.live import open_source
from bitstorm.core.errors import CreditsSpent, RateLimited, Unreachable, WorkspaceError
from bitstorm.core.settings import Settings, Source
from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS, iso
from collect.faulty_server import NOW_MS, Waits, answering, http
from simulator.watched import Simulator

LIBRARY = str(Path(__file__).resolve().parents[3] / "lib")
GOOD = http("200 OK", b'{"bitcoin":{"usd":5.5,"last_updated_at":1779092258}}')
MONTH = "2026-11"


def spent(file: Path) -> dict[str, int]:
    credits: dict[str, int] = json.loads(file.read_bytes())["credits"]
    return credits


class Told(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


# The bucket


@given(
    st.integers(1, 40),
    st.lists(st.integers(0, 3 * MINUTE_MS), max_size=80).map(
        lambda steps: [NOW_MS + sum(steps[: i + 1]) for i in range(len(steps))]
    ),
)
def test_no_minute_sees_more_calls_than_the_limit(limit: int, asked: list[int]) -> None:
    uses: list[int] = []
    left = []
    for now_ms in asked:
        moment, booking = next_call(uses, now_ms=now_ms, per_minute=limit)
        assert moment >= now_ms
        if moment - now_ms <= LONGEST_QUEUE_MS:  # else the meter refuses and books nothing
            uses = booking
            left.append(moment)
    assert left == sorted(left)
    for first, later in zip(left, left[limit:], strict=False):
        assert later - first > MINUTE_MS


def test_a_full_bucket_lets_its_calls_go_and_then_waits() -> None:
    uses: list[int] = []
    moments = []
    for _ in range(7):
        moment, uses = next_call(uses, now_ms=NOW_MS, per_minute=5)
        moments.append(moment - NOW_MS)
    assert moments == [0, 0, 0, 0, 0, TOKEN_MS, TOKEN_MS]


@pytest.mark.parametrize(
    ("moved_ms", "longest_wait_ms"), [(-HOUR_MS, TOKEN_MS), (DAY_MS, 0), (-DAY_MS, TOKEN_MS)]
)
def test_a_clock_that_is_moved_costs_at_most_a_minute(moved_ms: int, longest_wait_ms: int) -> None:
    uses: list[int] = []
    for _ in range(5):
        _, uses = next_call(uses, now_ms=NOW_MS, per_minute=5)
    moment, uses = next_call(uses, now_ms=NOW_MS + moved_ms, per_minute=5)
    assert moment - (NOW_MS + moved_ms) == longest_wait_ms
    assert max(uses) <= NOW_MS + moved_ms + longest_wait_ms


# Credits


@pytest.mark.parametrize(
    ("now_ms", "month", "next_month"),
    [
        (NOW_MS, "2026-11", "2026-12-01T00:00:00Z"),
        (1798761599999, "2026-12", "2027-01-01T00:00:00Z"),
        (1798761600000, "2027-01", "2027-02-01T00:00:00Z"),
    ],
)
def test_a_month_is_that_of_utc(now_ms: int, month: str, next_month: str) -> None:
    assert month_of(now_ms) == month
    assert iso(next_month_ms(now_ms)) == next_month


def test_a_year_of_months_is_kept() -> None:
    months: dict[str, int] = {}
    for number in range(30):
        months = with_credits(months, f"{2026 + number // 12}-{number % 12 + 1:02d}", 1)
    assert len(months) == 12
    assert max(months) == "2028-06"


def test_the_warnings_come_once_a_percent_from_four_fifths() -> None:
    warned = [n for n in range(1, 10_001) if worth_a_warning(n, 10_000)]
    assert warned == list(range(8_000, 10_001, 100))


def test_a_budget_warns_then_refuses_until_the_next_month(tmp_path: Path) -> None:
    file, told = tmp_path / "calls.json", Told()
    now_ms = NOW_MS

    def take() -> float:
        # A new meter each time: a restart.
        return RateLimit(file, Limits(None, 10), warn=told, clock=lambda: now_ms).take()

    assert [take() for _ in range(7)] == [0.0] * 7
    assert told == []
    take(), take(), take()
    assert [text.split(" credits")[0] for text in told] == [f"{n} of the 10" for n in (8, 9, 10)]
    with pytest.raises(CreditsSpent, match=r"10 credits of 2026-11.*2026-12-01T00:00:00Z.*raise"):
        take()
    assert spent(file) == {MONTH: 10}
    now_ms = next_month_ms(NOW_MS)
    assert take() == 0.0
    now_ms = NOW_MS  # and the clock back into November: its credits are still spent
    with pytest.raises(CreditsSpent):
        take()
    assert spent(file) == {MONTH: 10, "2026-12": 1}


def test_a_queue_that_is_too_long_is_refused_and_books_nothing(tmp_path: Path) -> None:
    meter = RateLimit(tmp_path / "calls.json", Limits(1, None), warn=Told(), clock=lambda: NOW_MS)
    waits = [meter.take() for _ in range(LONGEST_QUEUE_MS // TOKEN_MS + 1)]
    assert waits == [number * TOKEN_MS / 1000 for number in range(len(waits))]
    before = (tmp_path / "calls.json").read_bytes()
    with pytest.raises(RateLimited, match=r"1 a minute, source\.calls_per_minute"):
        meter.take()
    assert (tmp_path / "calls.json").read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"calls": 1, "credits": {}}', b'{"calls":[],"credits":{"a":"1"}}'],
)
def test_a_damaged_count_is_an_error_and_never_a_new_budget(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "calls.json"
    file.write_bytes(content)
    with pytest.raises(WorkspaceError, match=r"calls\.json is not a count.*remove it"):
        RateLimit(file, Limits(5, 5), warn=Told()).take()
    assert file.read_bytes() == content


def test_a_count_that_cannot_be_written_is_a_clear_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkspaceError, match="cannot be counted"):
        RateLimit(tmp_path / "file" / "calls.json", Limits(5, 5), warn=Told()).take()


TAKER = """
import sys
from pathlib import Path
from bitstorm.collect.coingecko.rate_limit import Limits, RateLimit

meter = RateLimit(Path(sys.argv[1]), Limits(None, 10_000), warn=print)
for _ in range(int(sys.argv[2])):
    meter.take()
    if len(sys.argv) > 3:
        print("taken", flush=True)
"""


def taker(file: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", TAKER, str(file), *arguments],
        env={**os.environ, "PYTHONPATH": LIBRARY},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_processes_and_threads_at_once_count_every_call(tmp_path: Path) -> None:
    file = tmp_path / "calls.json"
    with taker(file, "40") as one, taker(file, "40") as other:

        def take() -> None:
            meter = RateLimit(file, Limits(None, 10_000), warn=Told())
            for _ in range(20):
                meter.take()

        threads = [threading.Thread(target=take) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (one.wait(), other.wait()) == (0, 0)
    assert sum(spent(file).values()) == 120


def test_a_killed_run_leaves_a_whole_count_and_no_lock(tmp_path: Path) -> None:
    file = tmp_path / "calls.json"
    with taker(file, "100000", "aloud") as running:
        assert running.stdout is not None
        for _ in range(20):
            running.stdout.readline()
        running.send_signal(signal.SIGKILL)
        told = 20 + len(running.stdout.readlines())
    counted = sum(spent(file).values())
    assert told <= counted <= told + 1  # the last one may have been taken and not yet told
    # What it may have left half written, if not this time.
    (tmp_path / ".tmp-calls.json-0a1b2c3d").write_text("{")
    for left in tmp_path.glob(".tmp-*"):
        os.utime(left, (0, 0))
    RateLimit(file, Limits(None, 100_000), warn=Told()).take()
    assert sum(spent(file).values()) == counted + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [".calls.json.lock", "calls.json"]


# Limits of the plans


@pytest.mark.parametrize(
    ("settings", "local", "expected"),
    [
        ({}, False, Limits(5, None)),
        ({"plan": "demo"}, False, Limits(30, 10_000)),
        ({"plan": "pro"}, False, Limits(250, 100_000)),
        ({}, True, Limits(None, None)),
        ({"plan": "demo"}, True, Limits(None, None)),
        ({"calls_per_minute": 2, "monthly_credits": 3}, True, Limits(2, 3)),
        ({"calls_per_minute": 100, "plan": "demo"}, False, Limits(100, 10_000)),
        ({"calls_per_minute": 0, "monthly_credits": 0, "plan": "demo"}, False, Limits(None, None)),
    ],
)
def test_the_limits_are_the_plans_and_none_for_a_local_host(
    settings: dict[str, Any], local: bool, expected: Limits
) -> None:
    assert limits_of(Source(mode="coingecko", **settings), local=local) == expected


# The client with its meter


def metered(url: str, file: Path, limits: Limits, waits: Waits, **more: Any) -> CoinGecko:
    """A client whose clock, and that of its meter, moves with the waits alone."""

    def clock() -> int:
        return NOW_MS + round(1000 * waits.monotonic())

    options = TransportOptions(
        rate_limit=RateLimit(file, limits, warn=Told(), clock=clock),
        clock=clock,
        sleep=waits.sleep,
        monotonic=waits.monotonic,
        **more,
    )
    return CoinGecko(base_url=url, options=options)


def test_the_client_waits_for_its_bucket_and_says_so(
    simulator: Simulator, tmp_path: Path, waits: Waits
) -> None:
    told = Told()
    file = tmp_path / "calls.json"
    with metered(
        simulator.base_url, file, Limits(3, None), waits, report=told, deadline=5.0
    ) as client:
        for _ in range(7):
            client.simple_price("bitcoin", "usd")
    assert waits.slept == [61.0, 61.0]
    assert told == ["    waiting 61 s: our limit is 3 calls a minute (source.calls_per_minute)"] * 2
    assert len(simulator.requests) == 7


def test_two_clients_of_one_workspace_share_the_bucket(
    simulator: Simulator, tmp_path: Path, waits: Waits
) -> None:
    limits = Limits(3, None)
    with (
        metered(simulator.base_url, tmp_path / "calls.json", limits, waits) as one,
        metered(simulator.base_url, tmp_path / "calls.json", limits, waits) as other,
    ):
        for client in (one, other, one, other):
            client.simple_price("bitcoin", "usd")
    assert waits.slept == [61.0]


def test_only_an_answer_with_status_200_spends_a_credit(tmp_path: Path, waits: Waits) -> None:
    faults = [
        b"",
        http("500 Internal Server Error"),
        http("502 Bad Gateway"),
        http("429 Too Many Requests", b"Throttled", "Retry-After: 2"),
        http("200 OK", b'{"bit', length=99),  # broken off, but served
    ]
    file = tmp_path / "calls.json"
    with answering([*faults, GOOD]) as url, metered(url, file, Limits(30, 100), waits) as client:
        client.simple_price("bitcoin", "usd")
        assert client.calls == 6
    assert spent(file) == {MONTH: 2}
    assert len(json.loads(file.read_bytes())["calls"]) == 6


def test_a_refused_credit_makes_no_call(simulator: Simulator, tmp_path: Path, waits: Waits) -> None:
    with metered(simulator.base_url, tmp_path / "c.json", Limits(None, 2), waits) as client:
        client.ping()
        client.ping()
        with pytest.raises(CreditsSpent):
            client.ping()
    assert len(simulator.requests) == 2


def test_nobody_there_costs_no_credit(tmp_path: Path, waits: Waits) -> None:
    file = tmp_path / "calls.json"
    with (
        metered("http://127.0.0.1:9/api/v3", file, Limits(30, 100), waits, retries=2) as client,
        pytest.raises(Unreachable),
    ):
        client.ping()
    assert spent(file) == {MONTH: 0}


def test_a_wait_that_is_interrupted_costs_no_credit(tmp_path: Path, simulator: Simulator) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "calls.json"
    meter = RateLimit(file, Limits(1, 10), warn=Told(), clock=lambda: NOW_MS)
    with CoinGecko(
        base_url=simulator.base_url, options=TransportOptions(rate_limit=meter, sleep=interrupted)
    ) as client:
        client.ping()
        with pytest.raises(KeyboardInterrupt):
            client.ping()
    assert spent(file) == {MONTH: 1}


@pytest.mark.parametrize(
    ("settings", "limited"), [({}, False), ({"calls_per_minute": 3, "monthly_credits": 9}, True)]
)
def test_the_settings_make_the_meter_and_a_simulator_has_none(
    simulator: Simulator, tmp_path: Path, settings: dict[str, Any], limited: bool
) -> None:
    file = tmp_path / "calls.json"
    source = Source(base_url=simulator.base_url, **settings)
    with open_source(Settings(source=source), {}, calls=file) as client:
        client.ping()
    assert file.exists() == limited
    if limited:
        assert sum(spent(file).values()) == 1
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 in (0o44, 0)


@pytest.mark.parametrize(
    "refusal",
    [
        lambda said: http("429 Too Many Requests", said),
        lambda said: http("503 Service Unavailable", said),
        lambda said: http("302 Found", b"", "Location: https://" + said.decode() + ".example/"),
        lambda said: http("200 OK", b"x" * 190 + said),
        lambda said: http("401 Unauthorized", b'{"error":"' + b"x" * 190 + said + b'"}'),
    ],
    ids=["429", "503", "redirect", "no JSON", "401"],
)
def test_a_repeated_key_is_in_no_message_and_no_wait(
    refusal: Callable[[bytes], bytes], waits: Waits
) -> None:
    key, told = "CG-CANARYxyz0123456789", Told()
    options = TransportOptions(report=told, retries=1, sleep=waits.sleep, monotonic=waits.monotonic)
    with (
        answering([refusal(key.encode())] * 2) as url,
        CoinGecko(base_url=url, plan="demo", api_key=key, options=options) as client,
        pytest.raises(Exception) as raised,
    ):
        client.ping()
    shown = f"{raised.value!s} {raised.value!r} {told} {client!r}"
    assert "CG-CAN" not in shown
