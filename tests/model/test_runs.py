"""Runs on disk: only finished ones count, the newest first."""

from __future__ import annotations

import json
import re

import pytest

from bitstorm.errors import ModelError
from bitstorm.model import runs


def made(checkpoints, name, record):
    folder = checkpoints / name
    folder.mkdir(parents=True)
    return runs.finish(folder, record)


def test_a_new_folder_is_named_by_its_time_and_never_shared(tmp_path):
    folders = [runs.new_folder(tmp_path / "checkpoints") for _ in range(5)]
    assert len({folder.name for folder in folders}) == 5
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", folder.name) for folder in folders)
    assert all(list(folder.iterdir()) == [] for folder in folders)


def test_a_finished_run_comes_back_with_its_record_and_leaves_no_draft(tmp_path):
    run = made(tmp_path, "20240101T000000Z-aaaaaa", {"settings": {"seed": 1}})
    assert runs.newest(tmp_path) == run
    assert json.loads((run.folder / "run.json").read_text()) == {"settings": {"seed": 1}}
    assert [path.name for path in run.folder.iterdir()] == ["run.json"]


def test_the_newest_finished_run_is_taken_and_a_broken_off_one_is_not(tmp_path):
    made(tmp_path, "20240101T000000Z-ffffff", {"n": 1})
    made(tmp_path, "20240301T000000Z-000000", {"n": 3})
    made(tmp_path, "20240201T000000Z-eeeeee", {"n": 2})
    (tmp_path / "20240401T000000Z-aaaaaa").mkdir()
    assert runs.newest(tmp_path).record == {"n": 3}
    assert runs.newest(tmp_path, name="20240201T000000Z-eeeeee").record == {"n": 2}


def test_without_a_run_the_user_is_told_to_train(tmp_path):
    with pytest.raises(ModelError, match=r"no finished run in .*: run `bitstorm train` first"):
        runs.newest(tmp_path / "checkpoints")
    with pytest.raises(ModelError, match="no finished run NAME"):
        runs.newest(tmp_path, name="NAME")


def test_a_record_that_is_not_json_is_named(tmp_path):
    run = made(tmp_path, "20240101T000000Z-aaaaaa", {})
    (run.folder / "run.json").write_text("{")
    with pytest.raises(ModelError, match=r"run\.json cannot be read .*: train again"):
        runs.newest(tmp_path)


@pytest.mark.slow
def test_a_network_comes_back_with_its_weights(tmp_path):
    import numpy as np

    from bitstorm.model import network

    run = made(tmp_path, "20240101T000000Z-aaaaaa", {})
    model = network.build(look_back=3, features=2, units=4, dropout=0.1, learning_rate=0.01)
    model.save(run.folder / "best.keras")
    window = np.ones((2, 3, 2), np.float32)
    again = runs.load_network(run)
    assert np.array_equal(np.asarray(again(window)), np.asarray(model(window)))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["gone", "empty", "text", "short", "flipped"])
def test_a_damaged_network_is_one_clear_sentence(tmp_path, damage):
    from bitstorm.model import network

    run = made(tmp_path, "20240101T000000Z-aaaaaa", {})
    path = run.folder / "best.keras"
    if damage in ("short", "flipped"):
        model = network.build(look_back=2, features=1, units=2, dropout=0.1, learning_rate=0.01)
        model.save(path)
        content = bytearray(path.read_bytes())
        if damage == "short":
            content = content[: len(content) // 2]
        else:
            middle = len(content) // 2
            content[middle : middle + 200] = bytes(200)
        path.write_bytes(content)
    elif damage != "gone":
        path.write_bytes(b"" if damage == "empty" else b"not a network")
    with pytest.raises(ModelError, match=r"network of run 2024.* cannot be loaded .*train again"):
        runs.load_network(run)
