"""After any fault and one restart, landing holds what the source served: none lost, none doubled,
and the key nowhere."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bitstorm.collect.batches import delete_leftovers, known_batches
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.collect.live import collect_once
from bitstorm.core import durable_io
from bitstorm.core.errors import BadAnswer, BitstormError, RateLimited
from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS, now_ms
from bitstorm.simulator.answers import Request
from bitstorm.simulator.market import Market
from collect.faulty_server import Waits, answering, http
from simulator.faults import Reply
from simulator.watched import Simulator

pytestmark = pytest.mark.slow  # processes that are killed or run full

LIBRARY = Path(__file__).resolve().parents[2] / "lib"
COLLECTING = Path(__file__).with_name("collecting.py")
KEY = "CG-CANARYxyz0123456789"
NOW_MS = now_ms()


class Ledger(Simulator):
    """A demo simulator at a moment that the test sets, with the stamps of the prices it served."""

    def __init__(self) -> None:
        self.now = NOW_MS
        self.served: list[int] = []
        super().__init__(Market(7), clock=lambda: self.now, plan="demo")

    def reply(self, ask: Request) -> Reply:
        reply = super().reply(ask)
        if reply.answer.status == 200 and ask.path.endswith("/simple/price"):
            told = json.loads(reply.answer.body)
            self.served.append(told["bitcoin"]["last_updated_at"] * 1000)
        return reply


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with Ledger() as running:
        yield running


def command(workspace: Path, url: str, *arguments: str) -> list[str]:
    return [
        *(sys.executable, "-m", "bitstorm.cli", "collect", "--workspace", str(workspace)),
        *("--set", "source.mode=coingecko", "--set", f"source.base_url={url}"),
        *("--set", "source.plan=demo", "--set", "source.retries=0", *arguments),
    ]


def environ() -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BITSTORM__")}
    return {
        **clean,
        "PYTHONPATH": os.pathsep.join([str(LIBRARY), *filter(None, sys.path)]),
        "COINGECKO_API_KEY": KEY,
    }


def collected(
    workspace: Path, url: str, *arguments: str, **more: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(workspace, url, *arguments),
        env=environ(), capture_output=True, text=True, timeout=60, check=False, **more,
    )  # fmt: skip


def landed(workspace: Path) -> list[int]:
    """The stamps in landing, each batch as its sidecar says; a sweep leaves nothing else."""
    landing = workspace / "landing"
    delete_leftovers(landing, older_than_seconds=-1)
    known = dict(known_batches(landing))
    for path, sidecar in known.items():
        assert sidecar.sha256 == durable_io.file_hash(path)
        assert path.read_bytes().count(b"\n") == sidecar.rows + 1 == 2
    names = {path.name for path in landing.iterdir()}
    assert names == {name for path in known for name in (path.name, f"{path.name}.json")}
    return sorted(s.first_ms for s in known.values() if s.first_ms is not None)


def assert_key_nowhere(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


# At every write step


def test_a_fault_at_any_write_step_leaves_a_whole_batch_or_none(
    tmp_path: Path, ledger: Ledger
) -> None:
    kinds = ("kill", "EIO", "ENOSPC", "full", "gone", "interrupt")
    # One process for all: its start takes as long as a kind.
    done = subprocess.run(
        [sys.executable, str(COLLECTING), ",".join(kinds), ledger.base_url, str(tmp_path)],
        env=environ(), capture_output=True, text=True, timeout=540, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert tuple(found) == kinds
    # The market stands still, so every run wants one point.
    (served,) = set(ledger.served)
    for kind, runs in found.items():
        check_runs(kind, runs, tmp_path / kind, served)
    assert all(
        request.headers.get("x-cg-demo-api-key") == KEY and KEY not in request.query
        for request in ledger.requests
    )
    assert_key_nowhere(tmp_path)


def check_runs(kind: str, runs: list[dict[str, Any]], folder: Path, served: int) -> None:
    """Each run ended as one may under this fault, and left a whole batch or none."""
    struck, through = runs[:-1], runs[-1]
    assert (through["ended"], through["again"]) == (200, 0)
    # Draft, sidecar, two links, their syncs and removals, and the count of calls before them.
    calls = [run["call"] for run in struck]
    assert len(calls) >= 14
    for step in ("open /.calls", "os.rename /calls", "fsync /landing", "os.link /landing/bitcoin"):
        assert any(call.startswith(step) for call in calls), (kind, step, calls)
    expected = {"kill": {-signal.SIGKILL}, "interrupt": {130}}.get(kind, {0, 1})
    assert {run["ended"] for run in struck} <= expected, kind
    assert {run["again"] for run in struck} == {0}, kind
    for number, run in enumerate(runs, start=1):
        own = folder / f"{number:03d}"
        csvs = [name for name in run["between"] if name.endswith(".csv")]
        assert all(f"{name}.json" in run["between"] for name in csvs), (kind, run)
        assert landed(own / "w") == [served], (kind, run)
        counted = json.loads((own / "w" / "calls.json").read_bytes())
        assert 1 <= sum(counted["credits"].values()) <= 2
        for output in own.glob("output-*"):
            text = output.read_text()
            if kind != "interrupt":
                assert "Traceback" not in text and "unexpected" not in text, text


# A full disk


def test_a_full_disk_is_one_sentence_and_the_next_run_lands(tmp_path: Path, ledger: Ledger) -> None:
    def full() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    failed = collected(tmp_path / "w", ledger.base_url, preexec_fn=full)
    assert failed.returncode == 1
    assert len(failed.stderr.splitlines()) == 1
    assert "File too large" in failed.stderr and "free some space" in failed.stderr
    assert landed(tmp_path / "w") == []
    assert collected(tmp_path / "w", ledger.base_url).returncode == 0
    assert landed(tmp_path / "w") == [ledger.served[-1]]
    assert_key_nowhere(tmp_path)


def test_the_loop_goes_on_when_the_disk_has_room_again(tmp_path: Path, ledger: Ledger) -> None:
    workspace, log = tmp_path / "w", tmp_path / "log"
    # A limit of file size that is set from outside while the process runs: the log is a pipe.
    arguments = ("--every", "1s", "--set", "source.calls_per_minute=0", "--json")
    with log.open("w") as stream, subprocess.Popen(
        command(workspace, ledger.base_url, *arguments),
        env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        lines: list[str] = []

        def next_line() -> str:
            assert process.stderr is not None
            lines.append(process.stderr.readline())
            stream.write(lines[-1])
            return lines[-1]

        assert " → " in next_line()
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        ledger.now += MINUTE_MS
        while "File too large" not in next_line():
            assert "stale" in lines[-1]
        assert "the next request is at" in lines[-1]
        resource.prlimit(
            process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )
        while " → " not in next_line():
            assert "File too large" in lines[-1]
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert json.loads(out)["landed"] == 2
    assert landed(workspace) == sorted(set(ledger.served))
    assert_key_nowhere(tmp_path)


# Several at once


def test_two_collectors_at_once_land_each_observation_once(tmp_path: Path, ledger: Ledger) -> None:
    workspace = tmp_path / "w"
    limits = ("--set", "source.monthly_credits=1000", "--json")
    for _ in range(4):
        both = [
            subprocess.Popen(
                command(workspace, ledger.base_url, *limits),
                env=environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        for process in both:
            _, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (0, "")
        ledger.now += MINUTE_MS
    assert len(ledger.served) == 8
    assert landed(workspace) == sorted(set(ledger.served))
    counted = json.loads((workspace / "calls.json").read_bytes())
    assert sum(counted["credits"].values()) == 8
    assert_key_nowhere(tmp_path)


def test_the_lock_of_a_killed_run_holds_nobody_up(tmp_path: Path, ledger: Ledger) -> None:
    workspace = tmp_path / "w"
    workspace.mkdir()
    holder = (
        "import fcntl, os, sys, time\n"
        "lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(lock, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    limits = ("--set", "source.monthly_credits=1000")
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(workspace / ".calls.json.lock")],
        stdout=subprocess.PIPE, text=True,
    ) as held:  # fmt: skip
        assert held.stdout is not None
        held.stdout.readline()
        with subprocess.Popen(
            command(workspace, ledger.base_url, *limits), env=environ(), stderr=subprocess.PIPE
        ) as waiting:
            time.sleep(0.8)
            assert (waiting.poll(), ledger.served) == (None, [])
            held.kill()
            waiting.communicate(timeout=20)
            assert waiting.returncode == 0
    assert landed(workspace) == ledger.served


# What the source and the clock do


def looked(url: str, landing: Path, waits: Waits, **more: Any) -> Any:
    options = TransportOptions(
        clock=lambda: NOW_MS, sleep=waits.sleep, monotonic=waits.monotonic, **more
    )
    with CoinGecko(base_url=url, plan="demo", api_key=KEY, options=options) as client:
        return collect_once(
            client, landing, coin="bitcoin", vs_currency="usd", clock=lambda: NOW_MS
        )


STAMP_S = NOW_MS // 1000 - 60
GOOD = http("200 OK", b'{"bitcoin":{"usd":5.5,"last_updated_at":%d}}' % STAMP_S)
LIMITED = "429 Too Many Requests"


@pytest.mark.parametrize(
    ("headers", "longest"),
    [
        (["Retry-After: 2"], 2.0),
        (["Retry-After: soon"], 10.0),
        (["Retry-After: -5"], 10.0),
        (["Retry-After: 1e3"], 10.0),
        (["Retry-After: "], 10.0),
        ([], 10.0),
    ],
    ids=str,
)
def test_after_a_429_the_observation_lands_once(
    tmp_path: Path, headers: list[str], longest: float
) -> None:
    waits = Waits()
    with answering([http(LIMITED, b"Throttled", *headers), GOOD]) as url:
        assert not looked(url, tmp_path / "landing", waits).stale
    assert len(waits.slept) == 1
    assert (waits.slept[0] == 2.0) if longest == 2.0 else (0 < waits.slept[0] <= longest)
    assert landed(tmp_path) == [STAMP_S * 1000]
    assert_key_nowhere(tmp_path)


def test_a_429_of_eleven_days_fails_at_once(tmp_path: Path) -> None:
    waits = Waits()
    with answering([http(LIMITED, b"Throttled", "Retry-After: 999999"), GOOD]) as url:
        with pytest.raises(RateLimited, match="wait of 999999 s, more than") as raised:
            looked(url, tmp_path / "landing", waits)
        assert raised.value.retry_after == 999999
        assert waits.slept == []
        assert landed_or_none(tmp_path) == []
        looked(url, tmp_path / "landing", waits)
    assert landed(tmp_path) == [STAMP_S * 1000]


def landed_or_none(workspace: Path) -> list[int]:
    return landed(workspace) if (workspace / "landing").is_dir() else []


def test_four_server_faults_in_a_row_cost_waits_only(tmp_path: Path) -> None:
    faults = [
        http("500 Internal Server Error", b'{"status":500,"error":"Internal Server Error"}'),
        http("502 Bad Gateway", b"Bad Gateway"),
        http("503 Service Unavailable", b"<html><title>Down</title></html>"),
        http("504 Gateway Time-out"),
    ]
    waits = Waits()
    with answering([*faults, GOOD]) as url:
        looked(url, tmp_path / "landing", waits)
    assert len(waits.slept) == 4
    for earlier, later in zip(waits.slept, waits.slept[2:], strict=False):
        assert later > earlier  # doubled, whatever the jitter
    assert landed(tmp_path) == [STAMP_S * 1000]


def test_an_unchanged_stamp_is_one_batch_and_nine_times_stale(
    tmp_path: Path, ledger: Ledger
) -> None:
    waits = Waits()
    stale = [looked(ledger.base_url, tmp_path / "landing", waits).stale for _ in range(10)]
    assert stale == [False] + [True] * 9
    assert len(ledger.served) == 10
    assert landed(tmp_path) == ledger.served[:1]


@pytest.mark.parametrize("moved_ms", [-HOUR_MS, DAY_MS], ids=["an hour back", "a day forward"])
def test_a_wrong_clock_loses_and_doubles_no_observation(
    tmp_path: Path, ledger: Ledger, moved_ms: int
) -> None:
    landing = tmp_path / "landing"

    def look(clock: Callable[[], int]) -> None:
        with CoinGecko(base_url=ledger.base_url, options=TransportOptions(clock=clock)) as client:
            collect_once(client, landing, coin="bitcoin", vs_currency="usd", clock=clock)

    look(lambda: ledger.now)
    ledger.now += MINUTE_MS
    try:
        look(lambda: ledger.now + moved_ms)
    except BadAnswer as error:  # an observation that the clock puts into the future
        assert "future" in str(error)
    look(lambda: ledger.now)
    assert landed(tmp_path) == sorted(set(ledger.served))
    assert len(set(ledger.served)) == 2


# The key


def chain(error: BaseException) -> list[BaseException]:
    links = [error]
    for link in links:
        links += [e for e in (link.__cause__, link.__context__) if e is not None]
    return links


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"nonsense\r\n\r\n",
        http("302 Found", b"", "Location: https://elsewhere.example/x"),
        http("400 Bad Request", b'{"error":"' + KEY.encode() + b'"}'),
        http("429 Too Many Requests", KEY.encode()),
    ],
    ids=["nobody there", "no HTTP", "redirect", "400", "429"],
)
def test_no_exception_carries_the_key_or_the_address_asked(
    tmp_path: Path, answer: bytes | None
) -> None:
    def failing(url: str) -> None:
        with pytest.raises(BitstormError) as raised:
            looked(url, tmp_path / "landing", Waits(), retries=0)
        error = raised.value
        assert "ids=bitcoin" not in str(error) and "/simple/price?" not in str(error)
        for link in chain(error):
            assert KEY not in f"{link!s} {link!r} {link.args}"
        shown = collected(tmp_path / "w", url, "--debug", "--log-file", str(tmp_path / "log"))
        assert shown.returncode == 1
        assert "Traceback" in shown.stderr
        assert KEY not in shown.stderr + shown.stdout

    if answer is None:
        failing("http://127.0.0.1:9/api/v3")
    else:
        with answering([answer, answer]) as url:
            failing(url)
    (tmp_path / "log").touch()
    assert_key_nowhere(tmp_path)
