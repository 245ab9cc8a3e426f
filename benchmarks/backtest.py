"""A whole back-test with its default settings.

`--rows` hours of the walk of the benchmark `train`; five folds, eight baselines and 24 steps, from
the command's call to its result, with the start of Spark and of the workers. One run. Folds at
once are in `cluster --part folds`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks import train
from benchmarks.harness import Outcome
from benchmarks.landing import context as context_of
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.pipelines.backtest import backtest
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest

ROWS = train.ROWS


def run(rows: int = ROWS) -> Outcome:
    """Seconds of the command."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        context = context_of(Path(scratch) / "workspace")
        train.write_walk(context.workspace.landing, rows)
        with context.spark("benchmark"):
            ingest(context)
            indicators(context)
        began = time.perf_counter()
        made = backtest(context)
        results = {"default": time.perf_counter() - began}
    notes = {"folds": made.folds, "origins": made.origins, "steps": made.steps}
    return Outcome("backtest", rows, results, {}, notes)
