"""`bitstorm train` in a process of its own, stopped as a user stops it, and taken up again."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.priced import points_of, published, random_walk, small

pytestmark = pytest.mark.faults


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "workspace"
    published(small(root), points_of(random_walk(5)))
    return root


def started(workspace: Path, *arguments: str) -> subprocess.Popen[str]:
    settings = ("look_back=8", "units=4", "epochs=12", "patience=99", "batch_size=4")
    flags = [text for name in settings for text in ("--set", f"training.{name}")]
    where = ("--workspace", str(workspace))
    return subprocess.Popen(
        [sys.executable, "-m", "bitstorm.cli", "train", "--json", *where, *arguments, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def waited(workspace: Path, pattern: str, process: subprocess.Popen[str]) -> Path:
    until = time.monotonic() + 300
    while not (found := list((workspace / "checkpoints").glob(pattern))):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.01)
    return found[0].parent


def losses(folder: Path) -> list[tuple[str, str]]:
    with (folder / "history.csv").open() as stream:
        return [(row["loss"], row["val_loss"]) for row in csv.DictReader(stream)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_5_seconds_and_resume_completes_it(workspace, number):
    process = started(workspace)
    run = waited(workspace, "*/state-000002.json", process)
    time.sleep(0.1)
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    taken = time.monotonic() - began
    assert process.returncode == 1, err
    assert taken < 5, f"{taken:.1f} s"
    assert out == ""
    last = err.splitlines()[-1]
    assert f"(stopped by {number.name}): `bitstorm train --resume {run.name}` goes on" in last
    assert "Traceback" not in err
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"

    resumed = started(workspace, "--resume", run.name)
    out, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert json.loads(out)["run"] == run.name
    whole = started(workspace)
    out, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    assert losses(run) == losses(workspace / "checkpoints" / json.loads(out)["run"])
    assert len(losses(run)) == 12


def test_a_killed_training_is_resumed_by_one_process_alone(workspace):
    process = started(workspace)
    run = waited(workspace, "*/state-000002.json", process)
    process.kill()
    process.communicate()
    assert json.loads((run / "run.json").read_text())["state"] == "running"
    both = [started(workspace, "--resume", run.name) for _ in range(2)]
    ends = [(one.communicate(timeout=300), one.returncode) for one in both]
    told = sorted(ends, key=lambda end: end[1])
    assert [code for _, code in told] == [0, 1]
    assert "is being trained by another process" in told[1][0][1]
    assert len(losses(run)) == 12


def test_two_trainings_at_once_are_two_runs_of_the_same_result(workspace):
    both = [started(workspace) for _ in range(2)]
    ends = [one.communicate(timeout=300) for one in both]
    assert [one.returncode for one in both] == [0, 0], ends
    folders = [workspace / "checkpoints" / json.loads(out)["run"] for out, _ in ends]
    assert folders[0] != folders[1]
    assert losses(folders[0]) == losses(folders[1])
