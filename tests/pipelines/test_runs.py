"""`runs`: the list, one run, and what tells two apart, as a user sees them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bitstorm import cli
from bitstorm.model import checkpoint, runs
from bitstorm.model.checkpoint import Checkpoint, Epoch

OLD, LEFT, DONE = (f"2024010{n}T000000Z-aaaaaa" for n in (1, 2, 3))


def record(**changes):
    settings = {"look_back": 60, "epochs": 30, "features": [], "learning_rate": 0.001}
    return {
        "created_at": "2024-01-01T00:00:00Z",
        "backend": "tensorflow",
        "indicators": "00000001-abc",
        "settings": {**settings, **changes},
        "windows": {"training": 6021, "validation": 1300, "test": 1300},
        "threads": {"cores": 2},
        "sessions": [{"started_at": "2024-01-01T00:00:00Z", "after_epoch": 0}],
    }


@pytest.fixture
def workspace(tmp_path):
    """One finished run, one that a kill left after two epochs, one of an older version."""
    checkpoints = tmp_path / "checkpoints"
    for name in (OLD, LEFT, DONE):
        (checkpoints / name).mkdir(parents=True)
    fitted = {"epochs": 7, "best_epoch": 2, "best_validation_loss": 0.75, "seconds": 12.25}
    (checkpoints / OLD / "run.json").write_text(json.dumps({"fitted": fitted, "windows": {}}))
    (checkpoints / DONE / "best.keras").write_bytes(b"weights")
    done = {**record(), "fitted": fitted}
    runs.finish(checkpoints / DONE, done, files=("best.keras",))
    left = record(learning_rate=0.01, features=["price", "rsi_14"])
    runs.write(checkpoints / LEFT, left, state=runs.RUNNING)
    history = (Epoch(1, 1.0, 0.9, 3.0), Epoch(2, 1.0, 0.8, 3.0))
    arrays = {"dense/bias": np.zeros(1, np.float32)}
    checkpoint.save(checkpoints / LEFT, Checkpoint(history, 2, 0.8, arrays, arrays, left))
    return tmp_path


def told(capsys, workspace, *arguments, code=0):
    """What the command prints on standard output, and on standard error."""
    given = [*arguments, "--workspace", str(workspace)]
    assert cli.bitstorm.main(given, "bitstorm", standalone_mode=False) == code
    return capsys.readouterr()


@pytest.mark.parametrize("arguments", [["runs"], ["runs", "list"]])
def test_the_list_has_a_line_a_run_newest_first(capsys, workspace, arguments):
    lines = told(capsys, workspace, *arguments).out.splitlines()
    assert [line.split() for line in lines] == [
        ["run", "state", "backend", "windows", "epochs", "best", "loss", "time", "indicators"],
        [DONE, "finished", "tensorflow", "6,021", "7", "2", "0.7500", "12.2", "s", "00000001-abc"],
        [
            LEFT,
            "interrupted",
            "tensorflow",
            "6,021",
            "2",
            "2",
            "0.8000",
            "6.0",
            "s",
            "00000001-abc",
        ],
        [OLD, "finished", "tensorflow", "7", "2", "0.7500", "12.2", "s"],
    ]
    rows = json.loads(told(capsys, workspace, *arguments, "--json").out)
    assert [row["run"] for row in rows] == [DONE, LEFT, OLD]
    assert rows[1]["best_validation_loss"] == 0.8 and rows[1]["state"] == "interrupted"


def test_without_a_run_the_list_says_how_to_make_one(capsys, tmp_path):
    assert "`bitstorm train` makes one" in told(capsys, tmp_path, "runs").out
    assert json.loads(told(capsys, tmp_path, "runs", "--json").out) == []


def test_a_damaged_record_or_state_is_named_among_the_others(capsys, workspace):
    folder = workspace / "checkpoints"
    (folder / DONE / "run.json").write_text("{")
    for state in (folder / LEFT).glob("state-*.json"):
        state.write_text("")
    out = told(capsys, workspace, "runs").out
    assert f"{DONE}  damaged" in out and f"{OLD}  finished" in out
    assert f"{LEFT}: no state of run {LEFT} can be read" in out
    err = told(capsys, workspace, "runs", "show", DONE, code=1).err
    assert err.startswith("bitstorm: ") and "cannot be read" in err


def test_a_run_is_shown_with_its_settings_and_damaged_files(capsys, workspace):
    out = told(capsys, workspace, "runs", "show", DONE).out
    assert "  look_back      60" in out and "  best_epoch            2" in out
    assert "problem" not in out
    (workspace / "checkpoints" / DONE / "best.keras").write_bytes(b"other weights")
    out = told(capsys, workspace, "runs", "show", DONE).out
    assert "problem: best.keras is not the file whose hash the record has" in out
    shown = json.loads(told(capsys, workspace, "runs", "show", DONE, "--json").out)
    assert shown["record"]["settings"]["epochs"] == 30 and len(shown["problems"]) == 1


def test_two_runs_are_compared_by_what_differs_alone(capsys, workspace):
    found = json.loads(told(capsys, workspace, "runs", "compare", DONE, LEFT, "--json").out)
    assert found["runs"] == [DONE, LEFT]
    assert found["differ"] == {
        "settings.features": [[], ["price", "rsi_14"]],
        "settings.learning_rate": [0.001, 0.01],
        "fitted.state": ["finished", "interrupted"],
        "fitted.epochs": [7, 2],
        "fitted.best_validation_loss": [0.75, 0.8],
        "fitted.seconds": [12.25, 6.0],
    }
    lines = told(capsys, workspace, "runs", "compare", DONE, LEFT).out.splitlines()
    assert lines[0].split() == [DONE, LEFT]
    assert "settings.learning_rate" in lines[2] and "0.001" in lines[2] and "0.01" in lines[2]
    same = told(capsys, workspace, "runs", "compare", DONE, DONE).out
    assert same == "these runs have the same settings, data and results\n"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["runs", "show"], None, "found 0 runs for `runs show`, expected one"),
        (["runs", "compare", OLD], None, "found 1 runs for `runs compare`, expected 2 to 20"),
        (["runs", "list", OLD], None, "found 1 runs for `runs list`, expected none"),
        (["runs", "show", "nobody"], 1, "there is no run nobody in"),
        (["runs", "compare", OLD, "../x"], 1, "there is no run ../x in"),
        (["train", "--accept-snapshot"], None, "--accept-snapshot belongs to --resume RUN"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(capsys, workspace, arguments, code, said):
    err = told(capsys, workspace, *arguments, code=cli.USAGE if code is None else code).err
    assert err.startswith(f"bitstorm: {said}") and "Traceback" not in err
