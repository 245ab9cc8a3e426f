"""A publish that is stopped anywhere leaves the old data set or the new one, and can be redone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SWEEPING = Path(__file__).with_name("sweeping.py")
EVERY = ("kill", "interrupt", "EIO", "ENOSPC", "full", "gone")
# What the whole suite runs; the rest waits for scripts/test --faults.
SHORT = {
    ("next", "kill"),
    *(("rollback", kind) for kind in EVERY),
    *(("garbage", kind) for kind in ("kill", "gone")),
    ("append", "kill"),
}


def swept(folder: Path, scenario: str, kind: str, *more: str) -> dict:
    done = subprocess.run(
        [sys.executable, str(SWEEPING), scenario, kind, str(folder), *more],
        capture_output=True,
        text=True,
        timeout=540,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["ended"]["through"] >= 1
    return report


def marked(scenario: str, kind: str):
    short = (scenario, kind) in SHORT
    return pytest.param(scenario, kind, marks=pytest.mark.slow if short else pytest.mark.faults)


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [
        marked(scenario, kind)
        for scenario in ("first", "next", "copies", "rollback", "garbage", "writer", "append")
        for kind in EVERY
    ],
)
def test_a_fault_at_every_call_that_changes_something(tmp_path, scenario, kind):
    report = swept(tmp_path, scenario, kind)
    assert report["runs"] >= {"rollback": 8, "garbage": 20, "append": 30}.get(scenario, 50)
    if kind == "kill":
        assert report["ended"] == {"killed": report["runs"] - 1, "through": 1}


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["EIO", "gone", "interrupt"])
@pytest.mark.parametrize("scenario", ["first", "next", "rollback", "garbage"])
def test_a_fault_at_every_call_reads_included(tmp_path, scenario, kind):
    assert swept(tmp_path, scenario, kind, "reads")["runs"] >= 20


@pytest.mark.slow
def test_a_limit_on_the_size_of_files(tmp_path):
    report = swept(tmp_path, "next", "fsize")
    assert report["ended"].get("StoreError", 0) >= 5


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB, which only root can mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=2m", "tmpfs"]
    mounted = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["first", "next"])
def test_a_disk_that_is_full_after_any_number_of_blocks(small_disk, scenario):
    report = swept(small_disk, scenario, "tmpfs")
    assert report["ended"].get("StoreError", 0) >= 5
