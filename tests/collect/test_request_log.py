"""What an answer had and lacked is known afterwards, and claims no point that is not there any
more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.collect.gaps import Silence
from bitstorm.collect.request_log import Served, change_served, read_served
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import HOUR_MS, Span

ORIGIN = Origin("simulated:7", "bitcoin", "usd")


def hours(first: int, last: int) -> Span:
    return Span(first * HOUR_MS, last * HOUR_MS)


def note_served(landing: Path, *, spans: list[Span], filled: list[Span]) -> None:
    change_served(landing, ORIGIN, lambda record: record.with_points(spans, filled))


def test_what_is_noted_adds_up_for_its_origin_alone(tmp_path: Path) -> None:
    note_served(tmp_path, spans=[hours(0, 5)], filled=[hours(0, 2)])
    note_served(tmp_path, spans=[hours(5, 8)], filled=[hours(6, 7)])
    found = read_served(tmp_path, ORIGIN)
    assert found.spans == (hours(0, 8),)
    assert found.filled == (hours(0, 2), hours(6, 7))
    assert read_served(tmp_path, Origin("coingecko", "bitcoin", "usd")).spans == ()


def test_an_hour_is_settled_only_while_its_point_is_there(tmp_path: Path) -> None:
    note_served(tmp_path, spans=[hours(0, 8)], filled=[hours(1, 3)])
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
    note_served(tmp_path, spans=[hours(0, 1)], filled=[])
    assert read_served(tmp_path, ORIGIN).spans == (hours(0, 1),)


def test_two_runs_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from bitstorm.collect.request_log import change_served\n"
        "from bitstorm.core.time import Span\n"
        "from bitstorm.core.sidecar import Origin\n"
        "for n in range(int(sys.argv[2]), 60, 2):\n"
        "    change_served(Path(sys.argv[1]), Origin('simulated:7', 'bitcoin', 'usd'),\n"
        "                  lambda record: record.with_points([Span(n * 10, n * 10 + 10)], []))\n"
    )
    runs = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(first)])
        for first in (0, 1)
    ]
    assert [run.wait(60) for run in runs] == [0, 0]
    assert read_served(tmp_path, ORIGIN).spans == (Span(0, 600),)
    assert {path.name for path in tmp_path.iterdir()} == {".served.json", ".served.json.lock"}


# Silence: hour by hour, as a plain loop has it

MOST = 6
spans_of_hours = st.lists(
    st.tuples(st.integers(0, MOST), st.integers(0, MOST)).map(lambda p: hours(min(p), max(p))),
    max_size=3,
)
pauses = st.sampled_from([60_000, HOUR_MS - 1, HOUR_MS, 5 * HOUR_MS])
answers = st.lists(st.tuples(spans_of_hours, spans_of_hours, pauses), max_size=5)


@given(answers)
def test_silences_are_those_of_a_plain_loop(
    answers: list[tuple[list[Span], list[Span], int]],
) -> None:
    record = Served(spans=(), filled=())
    now = 10**12
    seen: dict[int, tuple[int, int, int | None, bool]] = {}
    for silent, witnessed, later in answers:
        now += later
        record = record.with_silence(silent, witnessed=witnessed, asked_ms=now)
        for n in range(MOST):
            if not any(s.start <= n * HOUR_MS < s.end for s in silent):
                continue
            tries, _, first, sure = seen.get(n, (0, 0, None, False))
            if any(s.start <= n * HOUR_MS < s.end for s in witnessed):
                tries, first = (1, now) if first is None else (tries + 1, first)
                sure = sure or now - first >= HOUR_MS
            else:
                tries += 1
            seen[n] = (tries, now, first, sure)
    found = {
        n: one[2:]
        for one in record.silences
        for n in range(one.start // HOUR_MS, one.end // HOUR_MS)
    }
    assert found == seen
    assert [one.start for one in record.silences] == sorted(one.start for one in record.silences)
    confirmed = sum(sure for *_, sure in seen.values())
    assert sum(end - start for start, end in record.empty()) == confirmed * HOUR_MS


@pytest.mark.parametrize(
    ("tries", "hours"), [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 24), (7, 24), (400, 24)]
)
def test_the_next_request_is_later_each_time_at_most_a_day(tries: int, hours: int) -> None:
    one = Silence(0, HOUR_MS, tries, asked_ms=10**12)
    assert one.next_ms == 10**12 + hours * HOUR_MS
    assert one.waits(one.next_ms - 1) and not one.waits(one.next_ms)
    # The clock was wrong when it was noted: it is not waited for.
    assert not one.waits(10**12 - 1)


def test_a_price_ends_a_silence_and_again_forgets_all(tmp_path: Path) -> None:
    def change(made: Served) -> Served:
        return change_served(tmp_path, ORIGIN, lambda _: made)

    record = change(
        Served(spans=(), filled=()).with_silence([hours(0, 9)], witnessed=[], asked_ms=5)
    )
    record = change(record.with_points([hours(3, 5)], [hours(3, 5)]))
    assert [one.span for one in record.silences] == [hours(0, 3), hours(5, 9)]
    record = change(record.without([hours(2, 4)]))
    assert [one.span for one in record.silences] == [hours(0, 2), hours(5, 9)]
    assert (record.spans, record.filled, record.reopened) == (
        (hours(4, 5),), (hours(4, 5),), (hours(2, 4),),
    )  # fmt: skip
    record = change(record.with_points([hours(3, 4)], []))
    assert read_served(tmp_path, ORIGIN) == record
    assert record.reopened == (hours(2, 3),)


def test_a_record_of_an_earlier_version_still_counts(tmp_path: Path) -> None:
    old = {"spans": [[0, 8 * HOUR_MS]], "filled": [[HOUR_MS, 3 * HOUR_MS]]}
    (tmp_path / ".served.json").write_text(json.dumps({"format": 1, "origins": {str(ORIGIN): old}}))
    assert read_served(tmp_path, ORIGIN).final([hours(1, 3)]) == [hours(0, 8)]
    assert read_served(tmp_path, ORIGIN).empty() == [hours(0, 1), hours(3, 8)]
