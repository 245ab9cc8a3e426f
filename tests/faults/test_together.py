"""Many writers and readers at once: every commit counts once, every pass is one snapshot's."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitstorm.core.durable_io import TEMPORARY
from bitstorm.store import maintenance, snapshots
from faults.publishing import Batch, commit, rows_of, unbroken
from faults.together import own_rows

pytestmark = pytest.mark.slow


def started(role: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("together.py")), role, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def ended(process: subprocess.Popen, *, within: float) -> str:
    try:
        told, wrong = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail("it did not end within its deadline")
    assert process.returncode == 0, wrong[-3000:]
    return told


def check(root: Path, names: list[str], commits: int) -> None:
    wanted = [row for name in names for n in range(commits) for row in own_rows(name, n)]
    assert len(dict(wanted)) == len(wanted)
    found = snapshots.required(root)
    assert rows_of(found) == sorted(wanted)
    assert len(unbroken(root)) == len(names) * commits
    assert len(list((root / "manifests").iterdir())) == len(names) * commits
    assert len(snapshots.read_ledger(found)) == len(names) * commits
    assert maintenance.verify(root).problems == ()


@pytest.mark.parametrize("role", [pytest.param("writer", marks=pytest.mark.faults), "unlocked"])
def test_five_writers_of_ten_commits_make_fifty_manifests(tmp_path, role):
    root, names = tmp_path / "prices", ["one", "two", "three", "four", "five"]
    writers = [started(role, root, name, 10) for name in names]
    for process in writers:
        ended(process, within=240)
    check(root, names, 10)


def test_readers_during_publishes_see_the_rows_of_one_manifest(tmp_path):
    root, stop = tmp_path / "prices", tmp_path / "stop"
    readers = [started("reader", root, stop) for _ in range(2)]
    try:
        ended(started("unlocked", root, "one", 40), within=240)
    finally:
        stop.touch()
    for process in readers:
        assert int(ended(process, within=60)) >= 5
    check(root, ["one"], 40)


def test_gc_takes_nothing_from_the_readers_and_writers_beside_it(tmp_path):
    root, stop = tmp_path / "prices", tmp_path / "stop"
    root.mkdir()
    beside = [started("reader", root, stop), started("cleaner", root, stop)]
    try:
        ended(started("unlocked", root, "one", 60), within=240)
        until = time.monotonic() + 30
        while len(list((root / "manifests").glob("[0-9]*"))) > 1:
            assert all(process.poll() is None for process in beside), "one of them has failed"
            assert time.monotonic() < until, "gc leaves what is old enough"
            time.sleep(0.05)
        ended(started("unlocked", root, "two", 5), within=60)
    finally:
        stop.touch()
        told = [ended(process, within=60) for process in beside]
    passes, gone = map(int, told)
    assert passes >= 5 and gone >= 20
    wanted = [
        row for name, n in (("one", 60), ("two", 5)) for k in range(n) for row in own_rows(name, k)
    ]
    found = snapshots.required(root)
    assert rows_of(found) == sorted(wanted)
    assert maintenance.verify(root).problems == ()


def test_gc_ignores_a_name_with_nothing_behind_it(tmp_path):
    root = tmp_path / "prices"
    assert commit(root, [Batch("one", own_rows("one", 1))])
    # A name that is listed and has nothing behind it when it is asked for.
    for place in (root, root / "manifests", root / "snapshots"):
        (place / f"{TEMPORARY}gone").symlink_to("nothing")
    found = maintenance.collect_garbage(root, keep=1, younger_than_s=0, now_s=time.time() + 9)
    assert found.snapshots == () and found.orphans == ()
    assert rows_of(snapshots.required(root)) == sorted(own_rows("one", 1))
