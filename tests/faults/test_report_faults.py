"""A kill while `report` writes leaves each picture and the page the old one or the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPORTING = Path(__file__).with_name("reporting.py")


@pytest.mark.faults
def test_a_kill_leaves_every_page_and_picture_whole(prepared_workspace, workspace_copy):
    done = subprocess.run(
        [sys.executable, str(REPORTING), str(workspace_copy(prepared_workspace))],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert (report["problems"], report["left"], report["old"]) == ([], [], [])
    kinds = [call.partition(" ")[0] for call in report["calls"]]
    assert kinds == ["fsync", "os.rename"] * 2
