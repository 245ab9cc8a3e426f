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
SHORT: dict[str, tuple[str, ...]] = {
    "next": ("kill",),
    "rollback": EVERY,
    "garbage": ("kill", "gone"),
    "append": ("kill",),
}


def swept(folder: Path, scenario: str, *kinds: str, more: tuple[str, ...] = ()) -> dict[str, dict]:
    """The report of each kind; one process has them all, since its start takes as long as one."""
    done = subprocess.run(
        [sys.executable, str(SWEEPING), scenario, ",".join(kinds), str(folder), *more],
        capture_output=True,
        text=True,
        timeout=540,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    reports = json.loads(done.stdout)
    assert tuple(reports) == kinds
    for report in reports.values():
        assert report["problems"] == []
        assert report["ended"]["through"] >= 1
    return reports


@pytest.mark.parametrize(
    ("scenario", "kinds"),
    [
        *(pytest.param(scenario, SHORT[scenario], marks=pytest.mark.slow) for scenario in SHORT),
        *(
            pytest.param(scenario, (kind,), marks=pytest.mark.faults)
            for scenario in ("first", "next", "copies", "rollback", "garbage", "writer", "append")
            for kind in EVERY
            if kind not in SHORT.get(scenario, ())
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_a_fault_at_every_call_that_changes_something(tmp_path, scenario, kinds):
    for kind, report in swept(tmp_path, scenario, *kinds).items():
        assert report["runs"] >= {"rollback": 8, "garbage": 20, "append": 30}.get(scenario, 50)
        if kind == "kill":
            assert report["ended"] == {"killed": report["runs"] - 1, "through": 1}


@pytest.mark.faults
@pytest.mark.parametrize("kind", ["EIO", "gone", "interrupt"])
@pytest.mark.parametrize("scenario", ["first", "next", "rollback", "garbage"])
def test_a_fault_at_every_call_reads_included(tmp_path, scenario, kind):
    assert swept(tmp_path, scenario, kind, more=("reads",))[kind]["runs"] >= 20


@pytest.mark.faults
def test_a_limit_on_the_size_of_files(tmp_path):
    report = swept(tmp_path, "next", "fsize")["fsize"]
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


@pytest.mark.parametrize(
    "scenario",
    [pytest.param("first", marks=pytest.mark.slow), pytest.param("next", marks=pytest.mark.faults)],
)
def test_a_disk_that_is_full_after_any_number_of_blocks(small_disk, scenario):
    report = swept(small_disk, scenario, "tmpfs")["tmpfs"]
    assert report["ended"].get("StoreError", 0) >= 5
