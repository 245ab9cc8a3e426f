"""Two workers as Spark tasks, with either backend: the steps of one, and an end within seconds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitstorm.core.errors import BrokenOff
from bitstorm.model import backend, checkpoint, workers
from bitstorm.model.checkpoint import Checkpoint
from bitstorm.model.feed import Feed
from bitstorm.model.training import Progress, Task
from bitstorm.model.windowing import Batch
from model import blocked

pytestmark = pytest.mark.slow

POINTS, LOOK_BACK = 640, 6
SHAPE: dict[str, Any] = {
    "look_back": LOOK_BACK,
    "features": 1,
    "units": 4,
    "learning_rate": 0.01,
    "seed": 1,
}


# The one that loads sooner, where it is there, for what the backend does not decide.
SOONER = "torch" if find_spec("torch") else "tensorflow"


@pytest.fixture
def library(request: pytest.FixtureRequest) -> str:
    if request.param == "torch":
        pytest.importorskip(
            "torch",
            reason="PyTorch is not installed (scripts/setup --torch): its backend is not tested",
        )
    return str(request.param)


def libraries(*faults: str) -> pytest.MarkDecorator:
    """Both backends, some of them with the long faults alone."""
    both = [
        pytest.param(name, marks=[pytest.mark.faults] if name in faults else [])
        for name in ("tensorflow", "torch")
    ]
    return pytest.mark.parametrize("library", both, indirect=True)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    """506 windows for the training; 43 batches of 12, the last one of two windows."""
    frame = blocked.frame_of(
        look_back=LOOK_BACK, features=("log_return",), target="log_return", size=64
    )
    drawn = np.random.default_rng(3)
    returns = np.cos(2 * np.pi * np.arange(POINTS) / 7.3) + drawn.normal(0, 0.1, POINTS)
    # One file, so one row group: it limits nothing.
    blocks = blocked.write(
        tmp_path / "blocks", frame, 100 * np.exp(0.5 * np.cumsum(returns)), files=1
    )
    train = blocked.feed(blocks, frame, last=LOOK_BACK + 506)
    assert len(train) == 506
    validation = blocked.feed(blocks, frame, first=LOOK_BACK + 507)
    return Task(train, validation, 1, 9, batch_size=12, seed=5, folder=tmp_path, record={})


def in_folder(task: Task, name: str, **changes: Any) -> Task:
    folder = task.folder / name
    folder.mkdir(exist_ok=True)
    return replace(task, folder=folder, **changes)


def stored(task: Task) -> Checkpoint:
    found, problems = checkpoint.load(task.folder)
    assert found is not None and problems == []
    return found


@libraries()
def test_two_workers_reach_the_weights_of_one(spark_session, library, task):
    shape = {**SHAPE, "dropout": 0.0}
    told: list[Progress] = []
    alone, both = in_folder(task, "alone"), in_folder(task, "both", progress=told.append)
    expected = backend.fit(library, shape, alone)
    fitted = workers.fit(spark_session, library, shape, both, 2)
    ours, theirs = stored(alone), stored(both)
    assert ours.state.keys() == theirs.state.keys()
    for state in (ours.state, theirs.state):
        # Keras counts its steps first of all.
        steps = state["optimizer/steps" if library == "torch" else "optimizer/000"]
        assert int(steps) == 43
    for name, value in ours.state.items():
        if name.startswith("weights/"):
            assert theirs.state[name] == pytest.approx(value, abs=1e-5), name
            assert np.abs(value).max() > 0
    assert fitted.best_validation_loss == pytest.approx(expected.best_validation_loss, abs=1e-6)
    assert [at.epoch for at in told if at.val_loss is not None] == [1]
    assert (both.folder / backend.BEST[library]).exists()


def deadly(feed: Feed) -> Feed:
    """The feed that kills worker 2 in the middle of epoch 2."""

    class Deadly(Feed):
        def batches(self, library: str, **order: Any) -> Iterator[Batch]:  # type: ignore[override]
            from pyspark import TaskContext

            context = TaskContext.get()
            assert context is not None
            for number, batch in enumerate(Feed.batches(self, library, **order)):
                if number == 20 and order["epoch"] == 1 and context.partitionId() == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield batch

    return Deadly(feed.stored, feed.scaler, feed.first, feed.last, feed.windows, feed.files)


@libraries(*{"tensorflow", "torch"} - {SOONER})
def test_a_killed_worker_ends_it_and_a_resumed_run_is_equal(spark_session, library, task):
    shape, task = {**SHAPE, "dropout": 0.3}, replace(task, epochs=3)
    unbroken, broken = in_folder(task, "unbroken"), in_folder(task, "broken")
    whole = workers.fit(spark_session, library, shape, unbroken, 2)

    ends: list[float] = []
    dying = replace(
        broken, train=deadly(task.train), progress=lambda at: ends.append(time.monotonic())
    )
    said = (
        r"^the training broke off \(worker 2 of 2 was killed, or had too little memory\): "
        r"`bitstorm train --resume broken` goes on after epoch 1$"
    )
    with pytest.raises(BrokenOff, match=said):
        workers.fit(spark_session, library, shape, dying, 2)
    assert time.monotonic() - ends[-1] < 15

    resumed = workers.fit(spark_session, library, shape, replace(broken, since=stored(broken)), 2)
    assert resumed.best_epoch == whole.best_epoch
    ours, theirs = stored(unbroken), stored(broken)
    assert [(e.loss, e.val_loss) for e in ours.history] == [
        (e.loss, e.val_loss) for e in theirs.history
    ]
    for one, other in ((ours.state, theirs.state), (ours.best, theirs.best)):
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].tobytes() == other[name].tobytes(), name


def test_a_signal_ends_all_workers_with_the_way_on(spark_session, task):
    def stopping(at: Progress) -> None:
        if at.val_loss is not None and at.epoch == 2:
            signal.raise_signal(signal.SIGTERM)

    task = in_folder(replace(task, epochs=1_000, patience=1_000, progress=stopping), "stopped")
    said = r"\(stopped by SIGTERM\): `bitstorm train --resume stopped` goes on after epoch (\d+)$"
    with pytest.raises(BrokenOff, match=said) as raised:
        workers.fit(spark_session, SOONER, {**SHAPE, "dropout": 0.0}, task, 2)
    # Nothing is written after it.
    assert str(raised.value).endswith(f"after epoch {stored(task).epochs}")
    assert stored(task).epochs < 10
