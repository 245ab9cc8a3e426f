"""What was served is known afterwards, and claims no point that is not there any more."""

import subprocess
import sys
from pathlib import Path

import pytest

from bitstorm.collect.gaps import note_served, read_served
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import HOUR_MS, Span

ORIGIN = Origin("simulated:7", "bitcoin", "usd")


def hours(first: int, last: int) -> Span:
    return Span(first * HOUR_MS, last * HOUR_MS)


def test_what_is_noted_adds_up_for_its_origin_alone(tmp_path: Path) -> None:
    note_served(tmp_path, ORIGIN, spans=[hours(0, 5)], filled=[hours(0, 2)])
    note_served(tmp_path, ORIGIN, spans=[hours(5, 8)], filled=[hours(6, 7)])
    found = read_served(tmp_path, ORIGIN)
    assert found.spans == (hours(0, 8),)
    assert found.filled == (hours(0, 2), hours(6, 7))
    assert read_served(tmp_path, Origin("coingecko", "bitcoin", "usd")).spans == ()


def test_an_hour_is_settled_only_while_its_point_is_there(tmp_path: Path) -> None:
    note_served(tmp_path, ORIGIN, spans=[hours(0, 8)], filled=[hours(1, 3)])
    found = read_served(tmp_path, ORIGIN)
    assert found.final([hours(1, 3)]) == [hours(0, 8)]
    assert found.final([hours(2, 3)]) == [hours(0, 1), hours(2, 8)]
    assert found.final([]) == [hours(0, 1), hours(3, 8)]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"format": 1}', b'{"format": 9, "origins": {}}', b"\xff\0",
                b'{"format": 1, "origins": {"simulated:7, bitcoin, usd": {"spans": [1]}}}'],
)  # fmt: skip
def test_a_damaged_record_costs_calls_and_nothing_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".served.json").write_bytes(content)
    assert read_served(tmp_path, ORIGIN).final([hours(0, 9)]) == []
    note_served(tmp_path, ORIGIN, spans=[hours(0, 1)], filled=[])
    assert read_served(tmp_path, ORIGIN).spans == (hours(0, 1),)


def test_two_runs_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from bitstorm.collect.gaps import note_served\n"
        "from bitstorm.core.time import Span\n"
        "from bitstorm.core.sidecar import Origin\n"
        "for n in range(int(sys.argv[2]), 60, 2):\n"
        "    note_served(Path(sys.argv[1]), Origin('simulated:7', 'bitcoin', 'usd'),\n"
        "                spans=[Span(n * 10, n * 10 + 10)], filled=[])\n"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(first)])
        for first in (0, 1)
    ]
    assert [run.wait(60) for run in runs] == [0, 0]
    assert read_served(tmp_path, ORIGIN).spans == (Span(0, 600),)
    assert {path.name for path in tmp_path.iterdir()} == {".served.json", ".served.json.lock"}
