"""A training that is stopped at any file-system call goes on to the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FITTING = Path(__file__).with_name("fitting.py")
KINDS = ("kill", "fsize", "EIO", "ENOSPC", "full", "gone", "interrupt")


@pytest.mark.parametrize(
    ("library", "kind"),
    [
        # By default the loop of PyTorch's networks, which takes seconds; Keras' own takes minutes.
        pytest.param("numpy", "kill", marks=pytest.mark.slow),
        *(pytest.param("keras", kind, marks=pytest.mark.faults) for kind in KINDS),
    ],
)
def test_a_fault_at_a_call_of_a_training(tmp_path, library, kind):
    done = subprocess.run(
        [sys.executable, str(FITTING), library, kind, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["problems"] == []
    assert report["ended"].pop("through") >= 1
    if kind == "kill":
        # For each epoch the arrays, the JSON and the best: open, sync, rename, sync.
        assert report["ended"] == {"killed": report["runs"] - 1}
        assert report["runs"] > 4 * 3 * 3
    elif kind != "interrupt":
        # One sentence, whichever call it is; without a folder there is no run to be broken off.
        assert report["ended"].pop("ModelError", 1) == 1
        assert report["ended"].keys() == {"BrokenOff"} and report["ended"]["BrokenOff"] >= 4
