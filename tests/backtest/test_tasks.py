"""Folds as Spark tasks: the same bits as in a process alone; a failure is a plain sentence."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitstorm.backtest.fold import Work
from bitstorm.backtest.folds import Fold, make_folds
from bitstorm.backtest.tasks import run_folds
from bitstorm.core.errors import DataError
from bitstorm.core.settings import Backtest, Training
from model import blocked

pytestmark = pytest.mark.slow

POINTS, STEPS = 400, 3
TRAINING = Training(look_back=4, units=3, epochs=2, batch_size=32)
# Runs folds without Spark, and writes their files to standard output.
ALONE = """
import pickle, sys
from bitstorm.backtest import tasks
work, folds = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps([tasks.run(work, fold).content for fold in folds]))
"""


def work_of(folder: Path, price: np.ndarray) -> tuple[Work, list[Fold]]:
    spec = blocked.frame_of(look_back=4, features=("log_return",), target="log_return", size=64)
    stored = blocked.stored(blocked.write(folder, spec, price), spec)
    warm_up = TRAINING.look_back + 1
    folds = make_folds(0, len(price) - 1, Backtest(folds=3), TRAINING, steps=STEPS, warm_up=warm_up)
    return Work(stored, 0, len(price) - 1, TRAINING, ("persistence", "ridge"), STEPS, True), folds


def frame_in(content: bytes):
    import pyarrow.parquet as pq

    return pq.read_table(io.BytesIO(content)).to_pandas()


def test_a_task_has_the_bits_of_a_process_alone(spark_session, tmp_path):
    returns = np.random.default_rng(3).normal(0, 0.01, POINTS)
    work, (*folds, _) = work_of(tmp_path / "blocks", 20_000 * np.exp(np.cumsum(returns)))
    in_tasks = {done.fold: done for done in run_folds(spark_session, work, folds)}
    assert sorted(in_tasks, key=lambda fold: fold.number) == folds
    alone = subprocess.run(
        [sys.executable, "-c", ALONE],
        input=pickle.dumps((work, folds)),
        capture_output=True,
        timeout=300,
        check=True,
    )
    for fold, content in zip(folds, pickle.loads(alone.stdout), strict=True):
        frame = frame_in(in_tasks[fold].content)
        # Equal to the last bit, also the NaN.
        assert frame.equals(frame_in(content))
        # The variance needs more points.
        assert np.isnan(frame["variance"]).all()
        assert np.isfinite(frame["network"]).all() and frame["network"].nunique() > len(frame) / 2


def test_a_fold_that_fails_says_why_and_the_others_are_kept(spark_session, tmp_path):
    price = 20_000 * np.exp(np.cumsum(np.random.default_rng(4).normal(0, 0.01, POINTS)))
    work, folds = work_of(tmp_path / "blocks", price)
    # One return alone has no spread.
    broken = replace(folds[1], train_from=folds[1].train_until - 1)
    found = run_folds(spark_session, work, [folds[0], broken])
    kept: list[Fold] = []
    with pytest.raises(DataError, match=r"^fold 2: log_return is .* at all 1 points"):
        kept.extend(done.fold for done in found)
    assert kept == [folds[0]]
