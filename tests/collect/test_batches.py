"""A batch is in landing whole, with its sidecar, or it is not there at all."""

import csv
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.collect.batches import (
    Batch,
    Observation,
    Row,
    SourceInfo,
    batch_name,
    delete_leftovers,
    known_batches,
    observation_rows,
    write_batch,
)
from bitstorm.core.schema import CSV_COLUMNS
from bitstorm.core.sidecar import Origin
from collect.faulty_server import NOW_MS

NAME = "bitcoin_prices_20260101_000000.csv"
POINTS = [
    Observation(1767225600123, 87654.32109876543, 1742226908349.8406, 2.9e10, -1.25),
    Observation(1767229200456, 87654.0, None, 0.0, None),
]


def written(landing: Path, rows: Any = None, **more: Any) -> Batch:
    columns = more.pop("columns", CSV_COLUMNS)
    stated: dict[str, Any] = {
        "origin": Origin("simulated:7", "bitcoin", "usd"),
        "granularity_ms": 3_600_000,
        "fetched_at": NOW_MS,
        "request": {"endpoint": "/x"},
    }
    rows = observation_rows(POINTS) if rows is None else rows
    info = SourceInfo(**(stated | more))
    return write_batch(landing, rows, info, name=NAME, columns=columns)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_batch_has_full_precision_and_null_as_nothing(tmp_path: Path) -> None:
    batch = written(tmp_path)
    assert batch.path.read_bytes() == (
        b"timestamp,price,market_cap,volume_24h,price_change_24h\n"
        b"1767225600123,87654.32109876543,1742226908349.8406,29000000000.0,-1.25\n"
        b"1767229200456,87654.0,,0.0,\n"
    )


def test_the_sidecar_states_what_lies_there(tmp_path: Path) -> None:
    path = written(tmp_path, corrections=[{"stamp": "open", "shifted_ms": 1}]).path
    sidecar = json.loads(path.with_name(NAME + ".json").read_bytes())
    assert sidecar == {
        "rows": 2,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": "simulated:7",
        "coin": "bitcoin",
        "vs_currency": "usd",
        "granularity_ms": 3_600_000,
        "first_ms": 1767225600123,
        "last_ms": 1767229200456,
        "fetched_at": NOW_MS,
        "request": {"endpoint": "/x"},
        "corrections": [{"stamp": "open", "shifted_ms": 1}],
    }


def test_nothing_else_is_left_in_landing(tmp_path: Path) -> None:
    written(tmp_path / "landing")
    assert names(tmp_path / "landing") == [NAME, NAME + ".json"]


finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(
    st.lists(
        st.builds(
            Observation,
            st.integers(1_231_000_000_000, 4_000_000_000_000),
            finite,
            st.none() | finite,
            st.none() | finite,
            st.none() | finite,
        ),
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_every_number_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, points: list[Observation]
) -> None:
    batch = written(tmp_path_factory.mktemp("landing"), observation_rows(points))
    frame = pd.read_csv(batch.path, float_precision="round_trip")
    assert len(frame) == len(points) == batch.sidecar.rows
    for row, point in zip(frame.itertuples(index=False), points, strict=True):
        assert row.timestamp == point.timestamp
        for found, number in (
            (row.price, point.price),
            (row.market_cap, point.market_cap),
            (row.volume_24h, point.volume_24h),
            (row.price_change_24h, point.price_change_24h),
        ):
            assert found == number or (number is None and math.isnan(found))


@given(st.lists(st.text(max_size=12), min_size=2, max_size=2))
@settings(max_examples=60, deadline=None)
def test_any_text_stays_one_record_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    rows = [Row(None, cells), Row(5, ["5", "6"])]
    batch = written(tmp_path_factory.mktemp("landing"), rows, columns=("timestamp", "price"))
    content = batch.path.read_bytes()
    assert content.count(b"\n") == 3
    assert b"\r" not in content
    lines = content.decode().split("\n")
    expected = [" ".join(c.splitlines()) if set(c) & {"\n", "\r"} else c for c in cells]
    assert next(csv.reader([lines[1]])) == expected
    assert lines[2] == "5,6"


def test_a_name_is_in_utc() -> None:
    assert batch_name("bitcoin", 1779092258000) == "bitcoin_prices_20260518_081738.csv"


def test_the_same_content_again_is_the_batch_that_is_there(tmp_path: Path) -> None:
    first = written(tmp_path)
    second = written(tmp_path, fetched_at=NOW_MS + 1)
    assert (first.new, second.new) == (True, False)
    assert second.path == first.path
    assert second.sidecar.fetched_at == NOW_MS
    assert names(tmp_path) == [NAME, NAME + ".json"]


def test_other_content_under_the_same_name_gets_the_next_one(tmp_path: Path) -> None:
    first = written(tmp_path)
    second = written(tmp_path, observation_rows(POINTS[:1]))
    third = written(tmp_path, observation_rows(POINTS[1:]))
    assert [b.path.name for b in (first, second, third)] == [
        NAME,
        "bitcoin_prices_20260101_000000_2.csv",
        "bitcoin_prices_20260101_000000_3.csv",
    ]
    assert not written(tmp_path, observation_rows(POINTS[1:])).new
    assert len(list(known_batches(tmp_path))) == 3


def test_rows_that_fail_on_the_way_leave_nothing(tmp_path: Path) -> None:
    def rows() -> Iterator[Row]:
        yield from observation_rows(POINTS)
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError):
        written(tmp_path, rows())
    assert names(tmp_path) == []


def test_many_writers_of_one_name_land_each_content_once(tmp_path: Path) -> None:
    landed: list[Batch] = []

    def write(which: int) -> None:
        point = Observation(1767225600000 + which % 4, 1.5)
        landed.append(written(tmp_path, observation_rows([point])))

    threads = [threading.Thread(target=write, args=(which,)) for which in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    known = dict(known_batches(tmp_path))
    assert len(known) == 4
    assert sum(batch.new for batch in landed) == 4
    for path, sidecar in known.items():
        assert sidecar.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


WRITER = """
import sys
from pathlib import Path
from bitstorm.collect.batches import Observation, SourceInfo, observation_rows, write_batch
from bitstorm.core.sidecar import Origin

number = 0
while True:
    number += 1
    points = [Observation(1767225600000 + number * 1000 + i, 1.5) for i in range(200)]
    info = SourceInfo(Origin("csv", "bitcoin", "usd"), None, 0, {})
    name = f"bitcoin_prices_{number:06d}.csv"
    write_batch(Path(sys.argv[1]), observation_rows(points), info, name=name)
    if number == 3:
        print("at work", flush=True)
"""


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    library = str(Path(__file__).resolve().parents[2] / "lib")
    for delay in (0.0, 0.003, 0.007, 0.012):
        landing = tmp_path / str(delay)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(landing)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": library},
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        batches = [path for path in landing.iterdir() if path.suffix == ".csv"]
        known = dict(known_batches(landing))
        assert set(known) == set(batches)
        for path, sidecar in known.items():
            assert sidecar.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
            assert sidecar.rows == 200
        delete_leftovers(landing, older_than_seconds=-1)
        expected = sorted([p.name for p in batches] + [p.name + ".json" for p in batches])
        assert names(landing) == expected


def test_the_sweep_spares_what_is_young_and_what_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path).path
    orphan = tmp_path / "bitcoin_prices_1.csv.json"
    packed = tmp_path / "bitcoin_prices_2.csv.gz.json"
    hidden = tmp_path / ".tmp-1-2"
    other = tmp_path / "notes.json"
    for leftover in (orphan, packed, hidden, other):
        leftover.write_text("{}")
    assert delete_leftovers(tmp_path) == []
    for old in tmp_path.iterdir():
        os.utime(old, (time.time() - 61,) * 2)
    assert sorted(delete_leftovers(tmp_path)) == sorted([hidden, orphan, packed])
    assert names(tmp_path) == sorted([path.name, path.name + ".json", "notes.json"])


def test_a_batch_lands_beside_a_leftover_sidecar(tmp_path: Path) -> None:
    (tmp_path / (NAME + ".json")).write_text("{}")
    batch = written(tmp_path)
    assert batch.path.name == "bitcoin_prices_20260101_000000_2.csv"
    assert [path for path, _ in known_batches(tmp_path)] == [batch.path]


def test_a_run_killed_between_two_links_is_taken_up(tmp_path: Path) -> None:
    path = written(tmp_path).path
    path.unlink()
    again = written(tmp_path, fetched_at=NOW_MS + 5)
    assert again.new
    assert again.path == path
    assert again.sidecar.fetched_at == NOW_MS  # the sidecar that lies there says so
    assert dict(known_batches(tmp_path)) == {path: again.sidecar}


def test_batches_that_a_person_dropped_in_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("timestamp,price\n1,2\n")
    (tmp_path / "odd.csv").write_text("timestamp,price\n1,2\n")
    (tmp_path / "odd.csv.json").write_text("not json")
    batch = written(tmp_path)
    assert list(known_batches(tmp_path)) == [(batch.path, batch.sidecar)]
    assert list(known_batches(tmp_path / "nowhere")) == []


def test_a_persons_file_of_the_same_name_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("timestamp,price\n1767225600000,1.5\n")
    batch = written(tmp_path)
    second = "bitcoin_prices_20260101_000000_2.csv"
    assert batch.path.name == second
    assert names(tmp_path) == [NAME, second, second + ".json"]
    assert (tmp_path / NAME).read_text() == "timestamp,price\n1767225600000,1.5\n"
