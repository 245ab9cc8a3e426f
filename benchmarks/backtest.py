"""A whole back-test with its default settings, and two folds at once beside one after the other.

`--rows` hours of the walk of the benchmark `train`. `at_once_speedup` is the time of two folds of
one length in one Spark task after the other over their time in two tasks at once; both run in
workers that have loaded TensorFlow already, on `local[2]`. Greater is better. `default` has the
five folds, eight baselines and 24 steps of the default settings, from the command's call to its
result, with the start of Spark and of the workers.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import train
from benchmarks.harness import Outcome, interleaved, medians
from benchmarks.landing import context as context_of
from bitstorm.backtest.fold import Work
from bitstorm.backtest.folds import Fold
from bitstorm.backtest.plan import make_plan
from bitstorm.backtest.tasks import run_folds
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.model.training_data import write_blocks
from bitstorm.pipelines.backtest import backtest
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest

ROWS = train.ROWS
RUNS = 3
TWO = ("spark.master=local[2,4]", "backtest.folds=2", "backtest.scheme=sliding")


def run(rows: int = ROWS) -> Outcome:
    """Both measurements on one series."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        return _run(Path(scratch) / "workspace", rows)


def _run(root: Path, rows: int) -> Outcome:
    context, default = context_of(root, *TWO), context_of(root)
    train.write_walk(context.workspace.landing, rows)
    with context.spark("benchmark") as spark:
        ingest(context)
        indicators(context)
        plan = make_plan(context)
        steps = context.settings.forecast.steps
        with write_blocks(context, spark, plan.snapshot, plan.spec) as stored:
            settings = context.settings.training
            work = Work(stored, plan.first, plan.last, settings, plan.baselines, steps)

            def in_turn(groups: Sequence[Sequence[Fold]]) -> None:
                for folds in groups:
                    assert len(list(run_folds(spark, work, folds))) == len(folds)

            seconds = interleaved(
                {
                    "two_at_once": lambda _: in_turn([plan.folds]),
                    "one_after_the_other": lambda _: in_turn([[fold] for fold in plan.folds]),
                },
                runs=RUNS,
            )
    began = time.perf_counter()
    made = backtest(default)
    results = {**medians(seconds), "default": time.perf_counter() - began}
    speedup = results["one_after_the_other"] / results["two_at_once"]
    notes = {"folds": made.folds, "origins": made.origins, "steps": made.steps}
    return Outcome("backtest", rows, results, {"at_once_speedup": speedup}, notes)
