"""The log of stages: whole lines of real commands, and what a reader can rely on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import prepared
from bitstorm.store.stage_log import StageLog
from command import command

FIELDS = ["time", "command", "stage", "seconds", "rows", "bytes", "snapshot", "exit", "error"]
TEXTS = st.text(st.characters(exclude_categories=()))


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a test, in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "logs" / "stages.jsonl"


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="ascii").splitlines()]


def masked(file: Path) -> list[tuple[Any, ...]]:
    """The values of each line but for its time and its seconds, which are checked here."""
    found = lines(file)
    for line in found:
        assert list(line) == FIELDS
        ended = datetime.fromisoformat(line["time"])
        assert 0 <= (datetime.now(UTC) - ended).total_seconds() < 600
        assert 0 <= line["seconds"] < 600
    return [
        tuple(line[name] for name in FIELDS if name not in ("time", "seconds")) for line in found
    ]


def test_a_command_writes_a_line_also_when_it_fails_or_idles(log: Path):
    for arguments, code in (
        (("backfill", "--days", "3"), 0),
        (("collect",), 0),
        (("collect", "--fail-if-idle"), 3),
        (("train",), 1),
        (("status", "--set", "grid.frequency=soon"), 2),
    ):
        assert command(*arguments, "--stage-log", log).code == code
    missing = f"there is no indicators data set yet in {Path('workspace').absolute()}"
    backfilled, *others = masked(log)
    landed = [file.read_text().splitlines()[1:] for file in Path("workspace/landing").glob("*.csv")]
    # `collect` has landed the last one.
    rows = sum(map(len, landed)) - 1
    assert rows > 60 and backfilled == ("backfill", "backfill", rows, None, None, 0, None)
    assert others == [
        ("collect", "collect", 1, None, None, 0, None),
        ("collect", "collect", 0, None, None, 3, None),
        ("train", "train", None, None, None, 1, f"{missing}: run `bitstorm indicators` first"),
        (
            "status", "status", None, None, None, 2,
            "1 setting is wrong: grid.frequency (from --set): found 'soon'; 'soon' is not a "
            "duration; write a number and a unit: 30s, 5m, 1h, 1d",
        ),
    ]  # fmt: skip


@pytest.mark.slow
def test_a_line_has_the_size_of_its_snapshot(
    log: Path, indicators_workspace: Path, workspace_copy: Callable[[Path], Path]
):
    root = workspace_copy(indicators_workspace)
    options = [word for setting in prepared.SETTINGS for word in ("--set", setting)]
    for name in ("ingest", "indicators"):
        assert command(name, "--workspace", root, "--stage-log", log, *options).code == 0
    for line, data_set in zip(masked(log), ("prices", "indicators"), strict=True):
        snapshot = (root / data_set / "CURRENT").read_text().strip()
        files = [*(root / data_set / "snapshots" / snapshot).rglob("*.parquet")]
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        size = sum(file.stat().st_size for file in files)
        assert line[2:] == (rows, size, snapshot, 0, None)


def test_with_debug_an_error_is_logged_and_raised(log: Path):
    done = command("indicators", "--debug", "--stage-log", log)
    assert done.code == 1 and "SnapshotMissing" in done.stderr
    ((_, _, _, _, _, code, error),) = masked(log)
    assert code == 1 and error.startswith("there is no prices data set yet")


def test_no_key_gets_into_the_log(log: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COINGECKO_API_KEY", "CG-CANARYxyz0123456789")
    at = "http://user:hidden@127.0.0.1:1"
    live = ["--set", "source.mode=coingecko", "--set", f"source.base_url={at}"]
    done = command("collect", *live, "--set", "source.retries=0", "--stage-log", log)
    assert done.code == 1
    text = log.read_text()
    assert '"error": "' in text and "CANARY" not in text and "hidden" not in text


def test_a_file_that_cannot_be_written_stops_a_command_first(log: Path):
    log.mkdir(parents=True)
    done = command("collect", "--stage-log", log)
    assert (done.code, done.stdout) == (1, "")
    assert str(log) in done.stderr and not Path("workspace").exists()
    assert command("collect", "--stage-log", "s3://bucket/log").code == 2


def test_a_file_that_goes_away_fails_no_stage(log: Path, capsys: pytest.CaptureFixture[str]):
    stages = StageLog("train")
    stages.open(log)
    log.unlink()
    log.mkdir()
    for _ in range(2):
        stages.write("train", seconds=1.0)
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f"bitstorm: {log} gets no more lines about stages: Is a directory"


@given(stage=TEXTS, error=TEXTS)
def test_any_text_makes_one_line_of_json(
    tmp_path_factory: pytest.TempPathFactory, stage: str, error: str
):
    log = tmp_path_factory.mktemp("texts") / "log"
    stages = StageLog("train", log)
    for _ in range(2):
        stages.write(stage, seconds=1 / 3, exit=1, error=error)
    for line in lines(log):
        assert (line["stage"], line["seconds"]) == (stage, 0.333)
        assert line["error"] == " ".join(error.split())


def test_half_a_line_of_a_stopped_machine_spoils_no_other(log: Path):
    stages = StageLog("train")
    stages.open(log)
    stages.write("train", seconds=1.0)
    whole = log.read_bytes()
    for cut in range(1, len(whole)):
        log.write_bytes(whole + whole[:cut])
        stages.write("train", seconds=1.0)
        first, torn, last, end = log.read_bytes().split(b"\n")
        assert (first + b"\n", torn, end) == (whole, whole[:cut], b"")
        assert json.loads(last)["stage"] == "train"


def test_a_pipe_gets_lines_too(log: Path):
    log.parent.mkdir()
    os.mkfifo(log)
    descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    StageLog("train", log).write("train", seconds=1.0)
    text = os.read(descriptor, 10_000)
    os.close(descriptor)
    assert json.loads(text)["command"] == "train" and text.endswith(b"}\n")


@pytest.mark.slow
def test_two_processes_at_once_mix_no_lines(log: Path):
    program = (
        "import sys; from pathlib import Path; from bitstorm.store.stage_log import StageLog\n"
        "log = StageLog(sys.argv[2], Path(sys.argv[1]))\n"
        "for n in range(500): log.write(f'fold {n}', seconds=n, error=sys.argv[2] * 3000)"
    )
    log.parent.mkdir()
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(log), name]) for name in ("a", "b")
    ]
    assert [process.wait() for process in both] == [0, 0]
    found = lines(log)
    for name in ("a", "b"):
        ours = [line for line in found if line["command"] == name]
        assert [line["stage"] for line in ours] == [f"fold {n}" for n in range(500)]
        assert {line["error"] for line in ours} == {name * 3000}
    assert len(found) == 1000


@pytest.mark.slow
def test_a_killed_command_leaves_its_ended_stages(log: Path):
    log.parent.mkdir()
    log.touch()
    program = [sys.executable, "-m", "bitstorm.cli", "collect", "--every", "1s", "--quiet"]
    with subprocess.Popen([*program, "--stage-log", str(log)]) as process:
        until = time.monotonic() + 60
        while not log.read_bytes().endswith(b"\n"):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)
        process.kill()
    before = masked(log)
    # Only the command's own line, which is missing, has an exit code.
    assert before and {line[5] for line in before} == {None}
    assert command("collect", "--stage-log", log).code == 0
    assert masked(log)[:-1] == before and masked(log)[-1][5] == 0
