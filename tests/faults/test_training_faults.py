"""A training that is stopped at any file-system call goes on to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FITTING = Path(__file__).with_name("fitting.py")
LONG = ("EIO", "ENOSPC", "full", "gone", "interrupt")


@pytest.mark.parametrize(
    "kind",
    [
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("kill", "fsize")),
        *(pytest.param(kind, marks=pytest.mark.faults) for kind in LONG),
    ],
)
def test_a_fault_at_every_call_of_a_training(tmp_path, kind):
    done = subprocess.run(
        [sys.executable, str(FITTING), kind, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["ended"].pop("through") >= 1
    if kind == "kill":
        # For each epoch the arrays, the JSON, the best and the history: open, sync, rename, sync.
        assert report["ended"] == {"killed": report["runs"] - 1}
        assert report["runs"] > 4 * 3 * 3
    elif kind != "interrupt":
        # One sentence, whichever call it is; without a folder there is no run to be broken off.
        assert report["ended"].pop("ModelError", 1) == 1
        assert report["ended"].keys() == {"BrokenOff"} and report["ended"]["BrokenOff"] >= 5
