"""States on disk: whole or not at all, the one before kept, nothing unpickled."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from bitstorm.core import durable_io
from bitstorm.core.errors import ModelError
from bitstorm.model import checkpoint
from bitstorm.model.checkpoint import Checkpoint, Epoch


def state(epochs: int) -> Checkpoint:
    history = tuple(Epoch(n, 1 / n, 0.7 / n, 1.5) for n in range(1, epochs + 1))
    random = np.random.default_rng(epochs)
    arrays: dict[str, np.ndarray] = {
        "weights/lstm/kernel": random.normal(size=(3, 8)).astype(np.float32),
        "optimizer/000": np.array(epochs, np.int64),
        "seeds/000": random.integers(0, 2**32, 2, dtype=np.uint32),
    }
    best = {"dense/bias": random.normal(size=1).astype(np.float32)}
    record = {"run": "r", "features": ["price"]}
    return Checkpoint(history, epochs, 0.7 / epochs, arrays, best, record)


def assert_same(found: Checkpoint | None, expected: Checkpoint) -> None:
    assert found is not None
    for name in ("history", "best_epoch", "best_loss", "record"):
        assert getattr(found, name) == getattr(expected, name)
    for ours, theirs in ((found.state, expected.state), (found.best, expected.best)):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name].dtype == theirs[name].dtype
            assert np.array_equal(ours[name], theirs[name])


@pytest.fixture
def folder(tmp_path):
    for epochs in (1, 2, 3):
        checkpoint.save(tmp_path, state(epochs))
    return tmp_path


def test_the_newest_state_comes_back_and_the_last_one_is_kept(folder):
    found, problems = checkpoint.load(folder)
    assert_same(found, state(3))
    assert problems == []
    assert sorted(path.name for path in folder.iterdir()) == [
        "state-000002.json",
        "state-000002.npz",
        "state-000003.json",
        "state-000003.npz",
    ]


def test_where_there_is_none_nothing_is_wrong(tmp_path):
    assert checkpoint.load(tmp_path) == (None, [])


DAMAGES = {
    "truncated arrays": ("npz", lambda content: content[: len(content) // 2]),
    "empty arrays": ("npz", lambda content: b""),
    "flipped arrays": ("npz", lambda content: content[:200] + b"\xff" + content[201:]),
    "truncated json": ("json", lambda content: content[: len(content) // 2]),
    "empty json": ("json", lambda content: b""),
    "edited json": (
        "json",
        lambda content: content.replace(b'"best_epoch": 3', b'"best_epoch": 1'),
    ),
    "other json": ("json", lambda content: b"[1, 2]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_state_before_a_damaged_one_is_used_and_reported(folder, damage):
    kind, change = DAMAGES[damage]
    path = folder / f"state-000003.{kind}"
    before = path.read_bytes()
    path.write_bytes(change(before))
    assert path.read_bytes() != before
    found, problems = checkpoint.load(folder)
    assert_same(found, state(2))
    (problem,) = problems
    assert problem.startswith("state-000003.json is damaged (")
    # The epoch is computed again, and its state written over the damaged one.
    checkpoint.save(folder, state(3))
    assert_same(checkpoint.load(folder)[0], state(3))


def test_missing_arrays_are_damage_and_two_damaged_states_fail(folder):
    (folder / "state-000003.npz").unlink()
    assert_same(checkpoint.load(folder)[0], state(2))
    (folder / "state-000002.json").write_text("{")
    with pytest.raises(ModelError, match=r"no state of run .* state-000003.*state-000002.*again"):
        checkpoint.load(folder)


def test_a_pickle_is_never_loaded_even_where_its_hash_is_right(folder, monkeypatch):
    buffer = io.BytesIO()
    np.savez(buffer, **{"state/x": np.array([{"a": 1}], object)})
    with zipfile.ZipFile(buffer) as archive:
        assert archive.namelist() == ["state/x.npy"]
    path = folder / "state-000003.json"
    body = json.loads(path.read_text())
    body.pop("sha256")
    (folder / "state-000003.npz").write_bytes(buffer.getvalue())
    body["arrays"]["sha256"] = durable_io.bytes_hash(buffer.getvalue())
    path.write_text(json.dumps({**body, "sha256": durable_io.json_hash(body)}))
    found, problems = checkpoint.load(folder)
    assert_same(found, state(2))
    assert "allow_pickle" in problems[0]


def test_what_a_killed_process_left_is_removed_with_the_rest(folder):
    (folder / ".tmp-state-000004.npz-1234").write_bytes(b"half")
    (folder / "state-000004.npz").write_bytes(b"whole, but not committed")
    (folder / "run.json").write_text("{}")
    assert_same(checkpoint.load(folder)[0], state(3))
    checkpoint.save(folder, state(4))
    assert len(list(folder.iterdir())) == 5
    checkpoint.clear(folder)
    assert [path.name for path in folder.iterdir()] == ["run.json"]


def test_a_state_of_an_older_version_is_read(folder):
    """Its epochs have the seconds of waiting as well."""
    path = folder / "state-000003.json"
    body = json.loads(path.read_text())
    body.pop("sha256")
    body["wait"] = 0
    for row in body["history"]:
        row["waited"] = 0.5
    path.write_text(json.dumps({**body, "sha256": durable_io.json_hash(body)}))
    assert_same(checkpoint.load(folder)[0], state(3))


def test_the_history_is_the_text_that_keras_logger_writes(tmp_path):
    import csv

    checkpoint.write_history(tmp_path, (Epoch(1, 0.1 + 0.2, 1 / 3, 2.0),))
    with (tmp_path / "history.csv").open(newline="") as stream:
        assert list(csv.reader(stream)) == [
            ["epoch", "loss", "seconds", "val_loss"],
            ["1", "0.30000000000000004", "2.0", "0.3333333333333333"],
        ]


def test_the_next_epoch_on_other_data_is_the_best():
    found = state(3)
    assert (found.epochs, found.wait) == (3, 0)
    assert found.has_next(epochs=4, patience=1) and not found.has_next(epochs=3, patience=1)
    worse = Checkpoint(found.history, 1, 0.7, found.state, found.best, found.record)
    assert worse.has_next(epochs=9, patience=3) and not worse.has_next(epochs=9, patience=2)
    other = worse.without_losses()
    assert other.has_next(epochs=9, patience=1)
    assert (other.best_epoch, other.best_loss) == (3, float("inf"))
