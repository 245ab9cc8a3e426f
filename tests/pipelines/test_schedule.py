"""`collect --every` as a process of its own: on the clock, one at a time, through outages, to the
signal."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bitstorm.collect.batches import known_batches
from bitstorm.core import durable_io
from bitstorm.simulator.answers import Answer, Request
from bitstorm.simulator.market import Market
from bitstorm.simulator.server import Simulator
from collect.faulty_server import NOW_MS, answering, http

pytestmark = pytest.mark.slow  # they wait for a real clock

LIBRARY = Path(__file__).resolve().parents[2] / "lib"
GOOD = http("200 OK", b'{"bitcoin":{"usd":5.5,"last_updated_at":1779092258}}')
KEY = "CG-CANARYxyz0123456789"

# Faults from outside of the product: Python loads this module before any other.
SHIFTED_CLOCK = """
import datetime, os, pathlib, time

def shift():
    try:
        return float(pathlib.Path(os.environ["SHIFT_FILE"]).read_text() or 0)
    except FileNotFoundError:
        return 0.0

class Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(true_time() + shift(), tz)

true_time = time.time
time.time = lambda: true_time() + shift()
datetime.datetime = Shifted
"""
SLOW_DISK = """
import os, pathlib, time

true_fsync = os.fsync

def slow(descriptor):
    pathlib.Path(os.environ["MARK_FILE"]).touch()
    time.sleep(0.4)
    true_fsync(descriptor)

os.fsync = slow
"""


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(7)


class Watched(Simulator):
    """A market in which a second takes two minutes, twice as long as an answer is cached.

    `asked` are the moments of the looks (Unix seconds), each of which is answered after `seconds`.
    """

    def __init__(self, market: Market, *, seconds: float = 0.0, port: int = 0) -> None:
        began = time.time()
        self.asked: list[float] = []
        self.at_once = self.most_at_once = 0
        self._seconds = seconds
        super().__init__(
            market, clock=lambda: NOW_MS + round((time.time() - began) * 120_000), port=port
        )

    def respond(self, ask: Request) -> Answer:
        self.asked.append(time.time())
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(self._seconds)
        try:
            return super().respond(ask)
        finally:
            self.at_once -= 1


@contextmanager
def collector(
    workspace: Path, url: str, *arguments: str, program: str = "", **environ: str
) -> Iterator[subprocess.Popen[str]]:
    """`bitstorm collect` in its own process; `program` is run first in it."""
    path = [str(LIBRARY)]
    if program:
        outside = workspace.with_name("outside")
        outside.mkdir()
        (outside / "sitecustomize.py").write_text(program)
        path.insert(0, str(outside))
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BITSTORM__")}
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "bitstorm.cli", "collect", "--workspace", str(workspace)),
            *("--set", "source.mode=coingecko", "--set", f"source.base_url={url}"),
            *("--set", "source.retries=0", *arguments),
        ],
        env={**clean, "PYTHONPATH": os.pathsep.join(path), "PYTHONWARNINGS": "error", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(holds: Callable[[], Any], *, seconds: float = 15.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def ended(process: subprocess.Popen[str], *, number: int = signal.SIGTERM) -> tuple[str, str]:
    """Signal it; its output, after it ended with exit code 0 in good time."""
    process.send_signal(number)
    began = time.monotonic()
    out, err = process.communicate(timeout=20)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert time.monotonic() - began < 5
    return out, err


def landed(workspace: Path) -> list[int]:
    """The stamps in landing, each batch held to its sidecar and nothing else lying there."""
    known = dict(known_batches(workspace / "landing"))
    for path, sidecar in known.items():
        assert sidecar.sha256 == durable_io.file_hash(path)
    files = {path.name for path in (workspace / "landing").iterdir()}
    assert files == {n for p in known for n in (p.name, p.name + ".json")}
    return sorted(s.first_ms for s in known.values() if s.first_ms is not None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_looks_are_on_the_clock_until_a_signal(
    market: Market, tmp_path: Path, number: int
) -> None:
    workspace = tmp_path / "w"
    with (
        Watched(market) as simulator,
        collector(workspace, simulator.base_url, "--every", "1s", "--json") as process,
    ):
        until(lambda: len(simulator.asked) >= 4)
        time.sleep(0.5)  # between two looks
        out, err = ended(process, number=number)
    told = json.loads(out)
    assert told["failed"] == 0
    assert told["runs"] == told["landed"] + told["stale"] == len(simulator.asked)
    stamps = landed(workspace)
    assert len(stamps) == len(set(stamps)) == told["landed"] >= 3
    assert err.count(" → bitcoin_prices_") == told["landed"]
    # The first look is at once, the others a moment after the full second.
    phases = sorted(asked % 1 for asked in simulator.asked[1:])
    assert phases[len(phases) // 2] < 0.5, phases  # one may be late on a busy machine
    assert len({int(asked) for asked in simulator.asked[1:]}) == len(simulator.asked) - 1


def test_missed_looks_of_a_slow_source_are_made_up_once(market: Market, tmp_path: Path) -> None:
    with (
        Watched(market, seconds=1.4) as simulator,
        collector(tmp_path / "w", simulator.base_url, "--every", "1s") as process,
    ):
        until(lambda: len(simulator.asked) >= 3)
        ended(process)
    assert simulator.most_at_once == 1
    for before, after in zip(simulator.asked, simulator.asked[1:], strict=False):
        assert 1.4 <= after - before < 3.5  # at once after the slow one, not two more in a row


def test_a_signal_breaks_off_a_request_and_nothing_is_left(tmp_path: Path) -> None:
    asked: list[int] = []

    def silent(connection: socket.socket) -> None:
        asked.append(1)
        connection.settimeout(30)
        connection.recv(1)  # until the client goes away

    with answering([silent]) as url, collector(tmp_path / "w", url, "--every", "1h") as process:
        until(lambda: asked)
        out, _ = ended(process)
    assert "0 requests" in out
    assert list((tmp_path / "w").rglob("*.csv*")) == []


def test_a_write_in_progress_is_finished_after_the_signal(market: Market, tmp_path: Path) -> None:
    mark, workspace = tmp_path / "mark", tmp_path / "w"
    with (
        Simulator(market, clock=lambda: NOW_MS) as simulator,
        collector(
            workspace, simulator.base_url, "--every", "1h", program=SLOW_DISK, MARK_FILE=str(mark)
        ) as process,
    ):
        until(mark.exists)
        assert list(workspace.rglob("*.csv")) == []
        out, _ = ended(process)
    assert "1 requests: 1 landed" in out
    assert landed(workspace) == [NOW_MS // 60_000 * 60_000]


def test_an_outage_is_told_and_the_looks_go_on_after_it(market: Market, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api/v3"
    log = tmp_path / "log"
    with collector(
        workspace, url, "--every", "1s", "--quiet", "--json", "--log-file", str(log)
    ) as process:
        until(lambda: log.exists() and log.read_text().count("connection refused") >= 2)
        with Watched(market, port=port):
            until(lambda: log.read_text().count(" → ") >= 2)
        until(lambda: log.read_text().splitlines()[-1].count("next request"))
        out, err = ended(process)
    told = json.loads(out)
    assert told["failed"] >= 3
    assert told["landed"] == len(landed(workspace)) >= 2
    lines = err.splitlines()
    assert len(lines) == told["failed"]  # --quiet silences no error
    assert all("connection refused" in line and "the next request is at" in line for line in lines)


@pytest.mark.parametrize(
    ("answers", "code", "words"),
    [
        ([http("401 Unauthorized", b'{"status":{"error_code":401}}')], 1, "COINGECKO_API_KEY"),
        ([GOOD, http("400 Bad Request", b'{"error_code":10010}')], 1, "source.plan"),
        ([GOOD, http("200 OK", b"{}")], 1, "has no price of 'bitcoin'"),
    ],
    ids=["key", "host", "coin"],
)
def test_what_no_later_look_can_mend_ends_them(
    answers: list[bytes], code: int, words: str, tmp_path: Path
) -> None:
    with (
        answering(answers) as url,
        collector(
            tmp_path / "w", url, "--every", "1s", "--set", "source.plan=demo", COINGECKO_API_KEY=KEY
        ) as process,
    ):
        _, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err
    assert KEY not in err


@pytest.mark.parametrize(
    ("every", "words"), [("soon", "not a duration"), ("500ms", "expected at least a second")]
)
def test_a_step_that_is_none_is_bad_usage(every: str, words: str, tmp_path: Path) -> None:
    with collector(tmp_path / "w", "http://127.0.0.1:9", "--every", every) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert words in err
    assert "--every" in err


@pytest.mark.parametrize("shift", [-3_600, 86_400])
def test_a_moved_clock_stops_no_looks_and_makes_no_burst(
    market: Market, tmp_path: Path, shift: int
) -> None:
    workspace, file = tmp_path / "w", tmp_path / "shift"
    with (
        Watched(market) as simulator,
        collector(
            workspace,
            simulator.base_url,
            *("--every", "1s", "--json", "--set", "source.monthly_credits=1000"),
            program=SHIFTED_CLOCK,
            SHIFT_FILE=str(file),
        ) as process,
    ):
        until(lambda: len(simulator.asked) >= 2)
        file.write_text(str(shift))
        moved = len(simulator.asked)
        time.sleep(3.2)
        out, _ = ended(process)
    assert 2 <= len(simulator.asked) - moved <= 5
    told = json.loads(out)
    assert told["failed"] == 0
    stamps = landed(workspace)
    assert len(stamps) == len(set(stamps)) == told["landed"]
