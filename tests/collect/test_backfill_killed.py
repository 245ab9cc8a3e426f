"""A backfill killed at any slice goes on there: nothing lost, doubled or asked for twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from bitstorm.collect.batches import known_batches
from bitstorm.core.time import DAY_MS, iso, now_ms
from bitstorm.simulator.market import Market, hourly
from collect.gate import Gate, gate_before
from command import command
from simulator.watched import Simulator

pytestmark = pytest.mark.slow  # a process for each kill

DAYS, SLICES = 130, 5
# A multiple of 30 days, where slices of 30 days are cut: always the same number of them.
UNTIL = (now_ms() - 20 * DAY_MS) // (30 * DAY_MS) * 30 * DAY_MS


@pytest.fixture
def gate(market: Market) -> Iterator[tuple[Simulator, Gate]]:
    with Simulator(market) as simulator, gate_before(simulator.base_url) as opened:
        yield simulator, opened


def arguments(gate: Gate, workspace: Path) -> list[str]:
    return [
        "backfill", "--workspace", str(workspace),
        "--days", str(DAYS), "--until", iso(UNTIL), "--quiet", "--json",
        "--set", f"source.base_url={gate.base_url}", "--set", "backfill.slice_days=30",
    ]  # fmt: skip


def start(gate: Gate, workspace: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "bitstorm.cli", *arguments(gate, workspace)],
        env={k: v for k, v in os.environ.items() if not k.startswith("BITSTORM__")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def asked(simulator: Simulator) -> list[str]:
    """The ledger of ranges, oldest request first."""
    found = [r.query for r in simulator.requests if r.path.endswith("/range")]
    simulator.requests.clear()
    return found


def landed(workspace: Path) -> list[int]:
    frames = [pd.read_csv(path) for path, _ in known_batches(workspace / "landing")]
    return sorted(pd.concat(frames)["timestamp"]) if frames else []


@pytest.mark.parametrize("moment", ["asked", "answered"])
@pytest.mark.parametrize("at", range(1, SLICES + 1))
def test_after_a_kill_only_what_had_not_landed_is_asked_for(
    gate: tuple[Simulator, Gate], tmp_path: Path, at: int, moment: str
) -> None:
    simulator, opened = gate
    running: list[subprocess.Popen[str]] = []

    def kill(number: int) -> bool:
        if number == at:
            running[0].send_signal(signal.SIGKILL)
        return number != at

    hooks: dict[str, Callable[[int], bool]] = {"asked": kill}
    opened.before = hooks.get(moment, lambda n: True)
    opened.after = lambda n: None if moment == "asked" else (kill(n), None)[1]
    running.append(start(opened, tmp_path))
    running[0].communicate(timeout=60)
    assert running[0].returncode == -signal.SIGKILL
    first = asked(simulator)
    batches = len(list(known_batches(tmp_path / "landing")))
    # The slice of the kill may have landed when its answer was out, no later one.
    assert batches in ((at - 1,) if moment == "asked" else (at - 1, at))

    opened.before = lambda n: True
    opened.after = lambda n: None
    again = command(*arguments(opened, tmp_path))
    assert again.code == 0, again.stderr
    second = asked(simulator)
    assert len(second) == SLICES - batches
    assert not set(first[:batches]) & set(second)
    wanted = hourly(7, UNTIL - DAYS * DAY_MS, UNTIL)
    assert landed(tmp_path) == wanted.tolist()


def test_after_the_last_slice_nothing_is_asked_for_again(
    gate: tuple[Simulator, Gate], tmp_path: Path
) -> None:
    simulator, opened = gate
    assert command(*arguments(opened, tmp_path)).code == 0
    assert len(asked(simulator)) == SLICES
    assert command(*arguments(opened, tmp_path), "--fail-if-idle").code == 3
    assert asked(simulator) == []
