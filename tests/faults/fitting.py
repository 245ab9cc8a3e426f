"""Strikes a training at its first, second, … file-system call, then goes on with it.

`python fitting.py LIBRARY KIND FOLDER` prints one JSON object: how many runs, how they ended, and
which did not come out, bit for bit, as a training that nothing happened to. LIBRARY is keras, or
numpy for the loop that trains PyTorch's networks. KIND is one of `striking.KINDS`, or `fsize`: no
file may grow beyond a number of bytes, which grows by half with each run.

Each run is a fork of this process, which may have loaded TensorFlow but computed nothing with it.
"""

from __future__ import annotations

import functools
import io
import json
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from bitstorm.context import Context
from bitstorm.core import third_party_noise
from bitstorm.core.errors import BrokenOff, NothingToDo
from bitstorm.model import backend, checkpoint, network, runs, training_run
from bitstorm.model.scaling import Scale, Scaler
from bitstorm.model.windowing import Batch, Split
from faults import linear, sweeping
from faults.striking import Strike
from faults.sweeping import forked
from model.small_run import InMemory, losses
from pipelines.priced import TRAIN_UNTIL, VALIDATE_UNTIL, points_of, published, random_walk, small

SETTINGS = ("training.epochs=3", "training.patience=9", "training.seed=5", "training.look_back=6")


BACKENDS = {"keras": "tensorflow", "numpy": "torch"}


@dataclass(frozen=True)
class Looped:
    """Windows of an array as `loop.fit` takes them."""

    served: InMemory

    def __len__(self) -> int:
        return len(self.served)

    def batches(
        self, _: str, *, batch_size: int, seed: int | None = None, epoch: int = 0
    ) -> Iterator[Batch]:
        for window, target in self.served.batches(batch_size, seed, epoch):
            yield Batch(window, target, target, target, target)


def made(root: Path, library: str) -> Context:
    """A workspace with indicators to be trained on, and no run."""
    settings = (*SETTINGS, f"training.backend={BACKENDS[library]}")
    return published(small(root, *settings), points_of(random_walk(5)))


def fresh(context: Context) -> Context:
    shutil.rmtree(context.workspace.checkpoints, ignore_errors=True)
    context.workspace.checkpoints.mkdir()
    return context


def recorded(context: Context) -> list[runs.Run]:
    found = []
    for _, run in runs.all_runs(context.workspace.checkpoints):
        assert isinstance(run, runs.Run)
        found.append(run)
    return found


def patched(library: str) -> AbstractContextManager[object]:
    """In the place of the library's network the small one."""
    if library == "keras":
        return mock.patch.multiple(network, seeded=linear.seeded)
    stack = ExitStack()
    stack.enter_context(
        mock.patch.object(backend, "seeded", lambda _, shape: linear.Linear(**shape))
    )
    # PyTorch need not be there.
    stack.enter_context(mock.patch.object(backend, "threads", lambda _: {}))
    stack.enter_context(mock.patch.dict(training_run.LIBRARIES, torch=()))
    return stack


def library_of(context: Context) -> str:
    return next(name for name, one in BACKENDS.items() if one == context.settings.training.backend)


def act(context: Context) -> None:
    """`train`, or `train --resume` of the run that is there, from the data on."""
    found, library = recorded(context), library_of(context)
    with patched(library):
        name = found[0].name if found else None
        try:
            with training_run.open_attempt(context, resume=name, accept_snapshot=False) as attempt:
                parts: dict[str, Any] = feeds()
                if library == "numpy":
                    parts = {name: Looped(part) for name, part in parts.items()}
                data = training_run.Prepared(
                    features=["log_return"],
                    split=Split(TRAIN_UNTIL, VALIDATE_UNTIL),
                    scaler=Scaler({"log_return": Scale(0.0, 1.0)}, Scale(0.0, 1.0)),
                    warm_up={"needed": 7, "had": 601},
                    feeds=parts,
                    counts={part: len(feed) for part, feed in parts.items()},
                )
                training_run.fit(context, attempt, data)
        except NothingToDo:
            assert found[0].state == runs.FINISHED


def feeds() -> dict[str, InMemory]:
    random = np.random.default_rng(1)
    window = random.normal(size=(96, 6, 1)).astype(np.float32)
    target = (window[:, -1, 0] - window[:, 0, 0]).astype(np.float32)
    return {
        "training": InMemory(window[:64], target[:64]),
        "validation": InMemory(window[64:], target[64:]),
    }


def result(context: Context) -> tuple[object, ...]:
    """What has to be the same, bit for bit."""
    (run,) = recorded(context)
    assert run.state == runs.FINISHED
    files = sorted(path.name for path in run.folder.iterdir())
    best = backend.BEST[context.settings.training.backend]
    assert files == [best, "history.csv", "run.json"], files
    assert run.record["fitted"]["epochs"] == 3
    content = runs.read_file(run, best)
    if library_of(context) == "numpy":
        with np.load(io.BytesIO(content)) as arrays:
            return losses(run.folder), [arrays[name].tolist() for name in arrays]
    built = linear.seeded(seed=0, look_back=6)
    network.load_weights(built, content)
    return losses(run.folder), [weight.tolist() for weight in built.get_weights()]


def struck(kind: str, context: Context, number: int, told: Path) -> None:
    told.unlink(missing_ok=True)
    if kind == "fsize":
        limit = int(128 * 1.5**number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        act(context)
        return
    with Strike(context.workspace.checkpoints, kind, number) as strike:
        try:
            act(context)
        finally:
            Strike._armed = None
            if strike.fell:
                told.write_text(strike.calls[-1])


def afterwards(context: Context, expected: Path) -> None:
    """No state was lost to the fault but the one being written; then it goes on to the end."""
    for run in recorded(context):
        if run.state != runs.FINISHED:
            since, problems = checkpoint.load(run.folder)
            known = len(list(run.folder.glob("state-*.json")))
            assert problems == [] and (since is not None) == (known > 0)
            assert known <= 3
    act(context)
    assert json.dumps(result(context)) == expected.read_text()


def unbroken(context: Context, expected: Path) -> None:
    act(context)
    expected.write_text(json.dumps(result(context)))


def main(library: str, kind: str, folder: Path) -> None:
    third_party_noise.install_filters()
    third_party_noise.hush_loggers()
    # Each fork traces TensorFlow's graphs anew.
    sweeping.DEADLINE = 120.0
    if library == "keras":
        import tensorflow  # noqa: F401

    context = made(folder / "workspace", library)
    expected, told = folder / "expected", folder / "told"
    fresh(context)
    problem = forked(lambda: unbroken(context, expected))
    assert not problem, problem
    ended: dict[str, int] = {}
    problems = []
    number = 0
    while True:
        number += 1
        assert number < 500, f"it never gets through: {ended}"
        fresh(context)
        outcome = forked(functools.partial(struck, kind, context, number, told))
        line = outcome.strip().splitlines()[-1] if outcome else "through"
        name = line.partition(":")[0].rpartition(".")[2]
        ended[name] = ended.get(name, 0) + 1
        if name == BrokenOff.__name__:
            known = [run.name for run in recorded(context)]
            ways = [f"bitstorm train --resume {known[0]}"] if known else []
            if not list(context.workspace.checkpoints.glob("*/state-*.json")):
                # A fault that fell once may have let the record be written after it was said.
                ways.append("train again")
            if not any(way in line for way in ways):
                problems.append(f"{kind} {number}: {line}")
        problem = forked(lambda: afterwards(context, expected))
        if problem:
            problems.append(f"{kind} {number}: {problem}")
        if not outcome and not told.exists():
            print(json.dumps({"runs": number, "ended": ended, "problems": problems}))
            return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
