"""A training that is broken off goes on to the same bits, and only on what it was begun on."""

from __future__ import annotations

import csv
import dataclasses
import errno
import io
import json
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest

from bitstorm.core import durable_io
from bitstorm.core.console import Console
from bitstorm.core.errors import BrokenOff, ModelError, NothingToDo, SnapshotMissing
from bitstorm.model import feed, runs
from bitstorm.pipelines.forecast import forecast
from bitstorm.pipelines.runs import compare, overviews, show
from bitstorm.pipelines.train import train
from bitstorm.store import snapshots
from pipelines.priced import impatient, points_of, published, random_walk, small

pytestmark = pytest.mark.slow

SETTINGS = ("training.epochs=8", "training.patience=20", "training.dropout=0.2", "training.units=4")


class Watched(io.StringIO):
    """Standard error; when a text comes by, a signal is sent a moment later."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__()
        self.text, self.number = text, number

    def write(self, line: str) -> int:
        if self.text in line:
            threading.Timer(0.03, os.kill, (os.getpid(), self.number)).start()
            self.text = "\0"
        return super().write(line)


def losses(folder) -> list[tuple[str, str]]:
    """(loss, val_loss) by epoch as the text of the file: equal only when every bit is."""
    with (folder / "history.csv").open() as stream:
        return [(row["loss"], row["val_loss"]) for row in csv.DictReader(stream)]


def weights(folder) -> list[bytes]:
    record = json.loads((folder / "run.json").read_text())
    return [w.tobytes() for w in runs.load_network(runs.Run(folder, record)).get_weights()]


@pytest.fixture(scope="module")
def once():
    """What the first test has made, for the others."""
    return []


@pytest.fixture
def made(spark_session, tmp_path_factory, once):
    """A run that nobody disturbed, and one that SIGTERM met after its third epoch."""
    if not once:
        once.append(_made(tmp_path_factory))
    return once[0]


def _made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    context = published(small(root, *SETTINGS), points_of(random_walk(5)))
    whole = train(context).run
    stream = Watched("epoch 3/8", signal.SIGTERM)
    watched = dataclasses.replace(context, console=Console(stream=stream))
    began = time.monotonic()
    with pytest.raises(BrokenOff) as broken:
        train(watched)
    (other,) = {path.name for path in context.workspace.checkpoints.iterdir()} - {whole}
    assert time.monotonic() - began < 60
    return root, whole, other, str(broken.value), stream.getvalue()


@pytest.fixture
def broken(made, tmp_path):
    """A context on a copy of that workspace, the whole run's name, and the broken one's."""
    shutil.copytree(made[0], tmp_path / "copy", symlinks=True)
    return small(tmp_path / "copy", *SETTINGS), made[1], made[2]


def test_a_signal_leaves_a_run_that_says_how_to_go_on(made):
    root, whole, name, sentence, told = made
    folder = root / "checkpoints" / name
    epochs = len(losses(folder))
    assert 3 <= epochs < 8
    assert sentence == (
        "the training broke off (stopped by SIGTERM): "
        f"`bitstorm train --resume {name}` goes on after epoch {epochs}"
    )
    # Where nobody watches, a line an epoch.
    lines = [line.split("  ") for line in told.splitlines() if "epoch" in line]
    assert [line[2] for line in lines] == [f"epoch {n}/8" for n in range(1, epochs + 1)]
    assert all("windows/s" in line[5] and "at most" in line[6] for line in lines)
    record = json.loads((folder / "run.json").read_text())
    assert (record["state"], record["reason"]) == ("interrupted", sentence)
    assert record["warm_up"] == {"needed": 9, "had": 601}
    assert record["threads"]["cores"] >= 1 and record["code"]["version"]
    found = overviews(small(root))
    assert {(o.run, o.state, o.epochs) for o in found} == {
        (whole, "finished", 8),
        (name, "interrupted", epochs),
    }
    # The newest finished one is what forecasts take.
    assert runs.newest(root / "checkpoints").name == whole


def test_a_resumed_run_reaches_the_same_bits_beside_newer_points(broken):
    context, whole, name = broken
    checkpoints = context.workspace.checkpoints
    own = snapshots.required(context.workspace.indicators)
    published(context, points_of(random_walk(6)))
    done = train(context, resume=name)
    assert (done.run, done.epochs, done.indicators) == (name, 8, own.id)
    assert losses(checkpoints / name) == losses(checkpoints / whole)
    assert weights(checkpoints / name) == weights(checkpoints / whole)
    files = {"best.keras", "history.csv", "run.json"}
    assert {path.name for path in (checkpoints / name).iterdir()} == files
    shown = show(context, name)
    assert shown.problems == () and shown.overview.state == "finished"
    first, second = (session["after_epoch"] for session in shown.record["sessions"])
    assert first == 0 and 3 <= second < 8
    ours = set(compare(context, [name, whole]).differ)
    assert ours <= {"fitted.seconds"}
    with pytest.raises(NothingToDo, match="is finished: there is nothing to resume"):
        train(impatient(context), resume=name)


def test_the_state_before_a_damaged_one_leads_to_the_same_bits(broken):
    context, whole, name = broken
    folder = context.workspace.checkpoints / name
    newest = max(folder.glob("state-*.npz"))
    newest.write_bytes(newest.read_bytes()[:1000])
    (folder / "run.json").write_bytes((folder / "run.json").read_bytes()[:200])
    # What a kill between two writes leaves: a network of an epoch that was not completed.
    (folder / "best.keras").write_bytes(b"half")
    epochs = len(losses(folder))
    stream = io.StringIO()
    train(dataclasses.replace(context, console=Console(True, None, stream)), resume=name)
    told = stream.getvalue().splitlines()
    assert (
        "run.json cannot be read" in told[0] and "the record in its last state is used" in told[0]
    )
    assert f"state-{epochs:06d}.json is damaged" in told[1]
    assert told[1].endswith(f"the state before it, after epoch {epochs - 1}, is used")
    whole_folder = context.workspace.checkpoints / whole
    assert losses(folder) == losses(whole_folder)
    assert weights(folder) == weights(whole_folder)


def test_another_snapshot_is_refused_unless_it_is_accepted(broken):
    context, _, name = broken
    altered = random_walk(5)
    altered[300:] *= 1.5
    published(context, points_of(altered))
    newer = snapshots.required(context.workspace.indicators).id
    other = dataclasses.replace(context, snapshot=newer)
    with pytest.raises(ModelError, match=f"not on {newer}: remove .* add --accept-snapshot"):
        train(dataclasses.replace(impatient(context), snapshot=newer), resume=name)
    path = context.workspace.checkpoints / name / "run.json"
    begun = json.loads(path.read_text())
    begun["versions"]["keras"] = begun["sessions"][0]["versions"]["keras"] = "3.0.0"
    begun["code"]["commit"] = begun["sessions"][0]["code"]["commit"] = "0" * 40
    path.write_text(json.dumps(begun))
    stream = io.StringIO()
    other = dataclasses.replace(other, console=Console(True, None, stream))
    done = train(other, resume=name, accept_snapshot=True)
    assert done.indicators == newer
    assert "versions.keras was 3.0.0 and is 3." in stream.getvalue()
    assert f"code.commit was {'0' * 40} and is" in stream.getvalue()
    record = json.loads(path.read_text())
    # The record keeps the versions of its start; each session has its own.
    assert record["versions"]["keras"] == "3.0.0" and record["code"]["commit"] == "0" * 40
    first, second = record["sessions"]
    assert first["versions"]["keras"] == "3.0.0" != second["versions"]["keras"]
    assert second["code"] != first["code"] and second["threads"] == record["threads"]
    assert first["indicators"] != newer == second["indicators"]
    # A loss on the other prices says nothing about these: the best epoch is one of the new ones.
    assert record["fitted"]["best_epoch"] > second["after_epoch"]
    seen = [float(loss) for _, loss in losses(context.workspace.checkpoints / name)]
    best = min(seen[second["after_epoch"] :])
    assert record["fitted"]["best_validation_loss"] == best
    assert forecast(context, run=name).metrics["run"] == name


def test_a_full_disk_before_the_first_record_asks_to_train_again(
    spark_session, tmp_path, monkeypatch
):
    context = published(small(tmp_path, *SETTINGS), points_of(random_walk(5)))
    replaced = durable_io.replace

    def full(path, content):
        if path.name == "run.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replaced(path, content)

    monkeypatch.setattr(durable_io, "replace", full)
    with pytest.raises(
        BrokenOff, match=r"No space left on device\): make room.*, then train again$"
    ):
        train(context)


class Deleting(io.StringIO):
    """Standard error; when a text comes by, files are removed."""

    def __init__(self, text: str, folder) -> None:
        super().__init__()
        self.text, self.folder = text, folder

    def write(self, line: str) -> int:
        if self.text in line:
            for path in self.folder.rglob("*.parquet"):
                path.unlink()
        return super().write(line)


@pytest.mark.faults
def test_a_cache_that_vanishes_ends_it_and_resume_goes_on(broken, monkeypatch):
    from petastorm.spark import spark_dataset_converter

    # It waits half a minute for a file to appear.
    monkeypatch.setattr(spark_dataset_converter, "_FILE_AVAILABILITY_WAIT_TIMEOUT_SECS", 2)
    # A short series is read once: this one is to count as long.
    monkeypatch.setattr(feed, "KEPT_BLOCKS", 0)
    context, _, _ = broken
    known = {path.name for path in context.workspace.checkpoints.iterdir()}
    stream = Deleting("epoch 3/8", context.workspace.cache / "blocks")
    with pytest.raises(BrokenOff, match=r"broke off \(.*(missing|files to appear).*--resume"):
        train(dataclasses.replace(context, console=Console(stream=stream)))
    (name,) = {path.name for path in context.workspace.checkpoints.iterdir()} - known
    folder = context.workspace.checkpoints / name
    before = losses(folder)
    assert 3 <= len(before) < 8
    assert train(context, resume=name).epochs == 8
    assert losses(folder)[: len(before)] == before


def test_a_snapshot_that_is_gone_is_named_with_the_way_on(broken):
    context, _, name = broken
    record = json.loads((context.workspace.checkpoints / name / "run.json").read_text())
    shutil.rmtree(context.workspace.indicators / "snapshots" / record["indicators"])
    shutil.rmtree(context.workspace.indicators / "manifests")
    with pytest.raises(ModelError, match=r"is missing .*--snapshot, and add --accept-snap"):
        train(impatient(context), resume=name)
    with pytest.raises(SnapshotMissing):
        train(dataclasses.replace(impatient(context), snapshot="x"), resume=name)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("training.learning_rate=0.5", r"training.learning_rate was 0\.02 and is now 0\.5"),
        ("training.batch_size=32", "training.batch_size was 16 and is now 32"),
        ("training.epochs=9", "training.epochs was 8 and is now 9"),
        ("training.features=[price]", r"training.features was \[\] and is now \['price'\]"),
    ],
)
def test_other_settings_are_refused_before_spark_starts(broken, setting, said):
    context, _, name = broken
    asked = small(context.workspace.root, *SETTINGS, setting)
    with pytest.raises(ModelError, match=f"{said}.*remove them"):
        train(impatient(asked), resume=name)


def test_a_missing_failed_or_running_run_is_not_resumed(broken):
    context, _, name = broken
    folder = context.workspace.checkpoints / name
    with pytest.raises(ModelError, match=r"there is no run nobody in .*`bitstorm runs`"):
        train(impatient(context), resume="nobody")
    with (
        runs.train_lock(folder),
        pytest.raises(ModelError, match="is being trained by another process"),
    ):
        train(impatient(context), resume=name)
    for state in folder.glob("state-*.json"):
        state.write_text("{")
    with pytest.raises(ModelError, match=r"no state of run .* can be read: .*: train again"):
        train(impatient(context), resume=name)
    record = json.loads((folder / "run.json").read_text())
    runs.write(folder, {**record, "reason": "the loss is not finite"}, state=runs.FAILED)
    with pytest.raises(ModelError, match=r"has failed \(the loss is not finite\): train again"):
        train(impatient(context), resume=name)


def test_a_run_broken_off_in_its_first_epoch_starts_anew(broken):
    context, whole, name = broken
    folder = context.workspace.checkpoints / name
    for path in [*folder.glob("state-*"), folder / "best.keras", folder / "history.csv"]:
        path.unlink()
    train(context, resume=name)
    assert weights(folder) == weights(context.workspace.checkpoints / whole)
    assert np.isfinite(np.array(losses(folder), float)).all()
