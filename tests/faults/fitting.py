"""Strikes a training at its first, second, … file-system call, then goes on with it.

`python fitting.py KIND FOLDER` prints one JSON object: how many runs, how they ended, and which did
not come out, bit for bit, as a training that nothing happened to. KIND is one of `striking.KINDS`,
or `fsize`: no file may grow beyond 128 bytes, 256 bytes, and so on.
"""

from __future__ import annotations

import json
import resource
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from bitstorm.errors import BrokenOff
from bitstorm.model import checkpoint, runs
from faults.linear import Linear
from faults.striking import Strike
from faults.sweeping import forked
from model.small_run import fitted, losses

EPOCHS = 3


def act(run: Path) -> None:
    """The training, from the start or from where it stands, as `train --resume` does it."""
    run.mkdir(exist_ok=True)
    with runs.holding(run):
        if (run / "run.json").exists() and runs.named(run.parent, run.name).state == runs.FINISHED:
            runs.tidy(run)
            return
        since, _ = checkpoint.load(run)
        runs.write(run, {"run": run.name}, state=runs.RUNNING)
        learner = Linear(look_back=6, seed=3)
        outcome = fitted(run, *feeds(), learner, seed=5, epochs=EPOCHS, since=since)
        runs.finish(run, {"run": run.name}, files=(outcome.best_file, "history.csv"))


def feeds() -> tuple[object, object]:
    from model.small_run import InMemory

    random = np.random.default_rng(1)
    window = random.normal(size=(96, 6, 1)).astype(np.float32)
    target = (window[:, -1, 0] - window[:, 0, 0]).astype(np.float32)
    return InMemory(window[:64], target[:64]), InMemory(window[64:], target[64:])


def result(run: Path) -> tuple[object, ...]:
    """What has to be the same, bit for bit."""
    record = runs.named(run.parent, run.name)
    assert record.state == runs.FINISHED
    with np.load(run / "best.npz") as arrays:
        best = arrays["dense/kernel"].tobytes()
    assert runs.checked(record, "best.npz")
    assert sorted(path.name for path in run.iterdir()) == ["best.npz", "history.csv", "run.json"]
    return losses(run), best


def struck(kind: str, run: Path, number: int, told: Path) -> None:
    told.unlink(missing_ok=True)
    if kind == "fsize":
        resource.setrlimit(resource.RLIMIT_FSIZE, (number * 128, resource.RLIM_INFINITY))
        act(run)
        return
    with Strike(run, kind, number) as strike:
        try:
            act(run)
        finally:
            Strike._armed = None
            if strike.fell:
                told.write_text(strike.calls[-1])


def afterwards(run: Path, expected: tuple[object, ...]) -> None:
    """No state was lost to the fault but the one being written; then it goes on to the end."""
    finished = (run / "run.json").exists() and runs.named(run.parent, run.name).state == "finished"
    if run.exists() and not finished:
        since, problems = checkpoint.load(run)
        known = len(list(run.glob("state-*.json")))
        assert problems == [] and (since is not None) == (known > 0)
        assert known <= 3
    act(run)
    assert result(run) == expected


def main(kind: str, folder: Path) -> None:
    whole = folder / "whole" / "20240101T000000Z-abcdef"
    whole.parent.mkdir()
    act(whole)
    expected = result(whole)
    ended: dict[str, int] = {}
    problems = []
    number = 0
    while True:
        number += 1
        assert number < 500, f"it never gets through: {ended}"
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        run, told = work / whole.name, folder / "told"
        outcome = forked(lambda n=number, r=run, t=told: struck(kind, r, n, t))
        line = outcome.strip().splitlines()[-1] if outcome else "through"
        name = line.partition(":")[0].rpartition(".")[2]
        ended[name] = ended.get(name, 0) + 1
        if name == BrokenOff.__name__ and "bitstorm train --resume 2024" not in line:
            problems.append(f"{kind} {number}: {line}")
        problem = forked(lambda r=run: afterwards(r, expected))
        if problem:
            problems.append(f"{kind} {number}: {problem}")
        if not outcome and not told.exists():
            print(json.dumps({"runs": number, "ended": ended, "problems": problems}))
            return


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
