"""Runs on disk: only finished ones count, the newest first; a file counts by its hash alone."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys

import pytest

from bitstorm.core.errors import ModelError
from bitstorm.model import runs

SETTINGS = {"look_back": 3, "units": 4, "dropout": 0.1, "learning_rate": 0.01}


def made(checkpoints, name, record):
    folder = checkpoints / name
    folder.mkdir(parents=True)
    return runs.finish(folder, record)


def test_a_new_folder_is_named_by_its_time_and_never_shared(tmp_path):
    folders = [runs.new_folder(tmp_path / "checkpoints") for _ in range(5)]
    assert len({folder.name for folder in folders}) == 5
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", folder.name) for folder in folders)
    assert all(list(folder.iterdir()) == [] for folder in folders)


def test_a_finished_run_has_its_record_and_no_state_to_resume(tmp_path):
    folder = tmp_path / "20240101T000000Z-aaaaaa"
    folder.mkdir()
    (folder / "best.keras").write_bytes(b"weights")
    for left in ("state-000001.json", "state-000001.npz", ".tmp-run.json-1234"):
        (folder / left).touch()
    with runs.train_lock(folder):
        run = runs.finish(folder, {"settings": {"seed": 1}}, files=("best.keras",))
        runs.delete_leftovers(folder)
    assert runs.newest(tmp_path) == run
    assert json.loads((folder / "run.json").read_text()) == {
        "settings": {"seed": 1},
        "files": {"best.keras": hashlib.sha256(b"weights").hexdigest()},
        "state": "finished",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["best.keras", "run.json"]


def test_the_newest_finished_run_is_taken_and_no_other(tmp_path):
    made(tmp_path, "20240101T000000Z-ffffff", {"n": 1})
    made(tmp_path, "20240301T000000Z-000000", {"n": 3})
    made(tmp_path, "20240201T000000Z-eeeeee", {"n": 2})
    (tmp_path / "20240401T000000Z-aaaaaa").mkdir()
    for n, state in enumerate((runs.RUNNING, runs.INTERRUPTED, runs.FAILED)):
        folder = tmp_path / f"20240{n + 5}01T000000Z-aaaaaa"
        folder.mkdir()
        runs.write(folder, {"n": 9}, state=state)
    assert runs.newest(tmp_path).record["n"] == 3
    assert runs.newest(tmp_path, name="20240201T000000Z-eeeeee").record["n"] == 2
    name = "20240601T000000Z-aaaaaa"
    with pytest.raises(ModelError, match=f"is interrupted, .*`bitstorm train --resume {name}`"):
        runs.newest(tmp_path, name=name)
    assert len(list(runs.all_runs(tmp_path))) == 6


def test_a_record_without_a_state_is_a_finished_run(tmp_path):
    folder = tmp_path / "20240101T000000Z-aaaaaa"
    folder.mkdir()
    (folder / "run.json").write_text('{"settings": {}}')
    assert runs.newest(tmp_path).name == folder.name
    with pytest.raises(ModelError, match=r"of an older version, has no hash of it\): train again"):
        runs.load_network(runs.newest(tmp_path))


def test_a_run_is_running_only_while_a_process_holds_it(tmp_path):
    folder = tmp_path / "20240101T000000Z-aaaaaa"
    folder.mkdir()
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from bitstorm.model import runs\n"
            "folder = Path(sys.argv[1])\n"
            "with runs.train_lock(folder):\n"
            "    runs.write(folder, {}, state=runs.RUNNING)\n"
            "    print('held', flush=True)\n"
            "    sys.stdin.read()",
            str(folder),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert runs.find(tmp_path, folder.name).state == "running"
        with (
            pytest.raises(ModelError, match="is being trained by another process"),
            runs.train_lock(folder),
        ):
            pass
    finally:
        holder.kill()
        holder.communicate()
    assert runs.find(tmp_path, folder.name).state == "interrupted"
    with runs.train_lock(folder):
        pass


def test_without_a_run_the_user_is_told_to_train(tmp_path):
    with pytest.raises(ModelError, match=r"no finished run in .*: run `bitstorm train` first"):
        runs.newest(tmp_path / "checkpoints")


@pytest.mark.parametrize("name", ["NAME", "../elsewhere", "/etc", ""])
def test_a_name_is_that_of_a_run_and_no_path(tmp_path, name):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "run.json").write_text("{}")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ModelError, match=r"there is no run .*`bitstorm runs` lists them"):
        runs.newest(tmp_path / "checkpoints", name=name)


@pytest.mark.parametrize("text", ["{", "", "[]"])
def test_a_record_that_cannot_be_read_is_named(tmp_path, text):
    run = made(tmp_path, "20240101T000000Z-aaaaaa", {})
    (run.folder / "run.json").write_text(text)
    with pytest.raises(ModelError, match=r"run\.json cannot be read .*: train again"):
        runs.newest(tmp_path)
    ((name, error),) = runs.all_runs(tmp_path)
    assert name == run.name and isinstance(error, ModelError)


def test_the_run_before_a_damaged_newest_record_is_taken(tmp_path):
    older = made(tmp_path, "20240101T000000Z-aaaaaa", {"n": 1})
    newer = made(tmp_path, "20240201T000000Z-bbbbbb", {"n": 2})
    (newer.folder / "run.json").write_text("{")
    told: list[str] = []
    assert runs.newest(tmp_path, damaged=told.append).name == older.name
    (line,) = told
    assert newer.name in line and "cannot be read" in line and line.endswith("an older run is used")


def with_network(checkpoints):
    """A finished run whose network is on disk, and that network."""
    from bitstorm.model import network

    folder = checkpoints / "20240101T000000Z-aaaaaa"
    folder.mkdir(parents=True)
    built = network.seeded(**SETTINGS, features=2, seed=1)
    network.save(built, folder)
    record = {"settings": SETTINGS, "features": ["price", "rsi_14"], "learning_rate": 0.01}
    return runs.finish(folder, record, files=(network.BEST,)), built


@pytest.mark.slow
def test_a_network_comes_back_with_its_weights(tmp_path):
    import numpy as np

    run, model = with_network(tmp_path)
    window = np.ones((2, 3, 2), np.float32)
    again = runs.load_network(run)
    assert np.array_equal(np.asarray(again(window)), np.asarray(model(window)))


@pytest.mark.slow
def test_a_network_that_differs_from_the_record_is_refused(tmp_path):
    run, _ = with_network(tmp_path)
    path = run.folder / "best.keras"
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    refusal = r"network of run 2024.* cannot be loaded \(best.keras.*\): train again"
    for content in (b"", b"not a network", whole[:middle], flipped):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=refusal):
            runs.load_network(run)
    path.unlink()
    with pytest.raises(ModelError, match=refusal):
        runs.load_network(run)
