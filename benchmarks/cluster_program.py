"""The jobs of the benchmark `cluster` in a process of its own, with one session.

`python -m benchmarks.cluster_program MASTER CORES [EVENTS]` keeps one session with so many cores;
EVENTS is a folder for Spark's event log. Each request names a `job`, a function below, and its
arguments. The settings of the session are those of Bitstorm, but for the page.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import event_log, our_indicators
from benchmarks.landing import MEMORY, MINUTE_MS
from benchmarks.landing import context as context_of
from benchmarks.process import serve
from bitstorm.backtest.fold import Work
from bitstorm.backtest.plan import make_plan
from bitstorm.backtest.tasks import run_folds
from bitstorm.core.settings import Spark
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.model import backend, workers
from bitstorm.model.training import Progress, Task
from bitstorm.model.training_data import prepare, write_blocks
from bitstorm.model.training_run import open_attempt
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.spark.session import spark_session

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from bitstorm.context import Context

EXECUTOR = "1500m"
MINUTES = ("grid.frequency=1m",)
FOLDS = ("backtest.folds=4", "backtest.scheme=sliding")


class Program:
    """The session, and what a first request has prepared for the next ones."""

    def __init__(self, spark: SparkSession, stack: contextlib.ExitStack) -> None:
        self._spark, self._stack = spark, stack
        self._prepared: dict[str, Any] = {}

    def indicators(self, files: list[str]) -> None:
        """All columns of minutes in Parquet, to a sink."""
        found = our_indicators.table(self._spark, [Path(file) for file in files], MINUTE_MS)
        found.write.format("noop").mode("overwrite").save()

    def commands(self, workspace: str) -> None:
        """`ingest` and `indicators` of a workspace of minutes."""
        context = context_of(Path(workspace), *MINUTES)
        assert ingest(context).accepted
        assert not indicators(context).idle

    def ingest(self, workspace: str) -> None:
        ingest(context_of(Path(workspace)))

    def folds(self, workspace: str, epochs: int) -> None:
        """Four folds of one length and as many epochs; the first request writes their blocks."""
        if "folds" not in self._prepared:
            same = (f"training.epochs={epochs}", f"training.patience={epochs}")
            context = context_of(Path(workspace), *FOLDS, *same)
            plan = make_plan(context)
            blocks = write_blocks(context, self._spark, plan.snapshot, plan.spec)
            stored = self._stack.enter_context(blocks)
            steps, settings = context.settings.forecast.steps, context.settings.training
            work = Work(stored, plan.first, plan.last, settings, plan.baselines, steps)
            self._prepared["folds"] = work, plan.folds
        work, folds = self._prepared["folds"]
        assert len(list(run_folds(self._spark, work, folds))) == len(folds) == 4

    def train(
        self, workspace: str, library: str, count: int, batch: int, epochs: int, folder: str
    ) -> None:
        """So many workers train in Spark tasks, or one in this process; the median seconds of a
        step after the first epoch go to `step.json`, the weights to the checkpoint beside it."""
        if "train" not in self._prepared:
            context: Context = context_of(Path(workspace))
            attempt = open_attempt(context, resume=None, accept_snapshot=False)
            ready = prepare(context, self._stack.enter_context(attempt))
            self._prepared["train"] = context, self._stack.enter_context(ready)
        context, ready = self._prepared["train"]
        rates: list[float] = []

        def note(at: Progress) -> None:
            if at.val_loss is not None:
                rates.append(at.windows_per_second)

        target = Path(folder)
        training, validation = ready.feeds["training"], ready.feeds["validation"]
        task = Task(training, validation, epochs, epochs, batch, 5, target, {}, None, note)
        shape = {
            "look_back": context.settings.training.look_back,
            "features": len(ready.features),
            "units": context.settings.training.units,
            "dropout": 0.0,
            "learning_rate": 0.001,
            "seed": 1,
        }
        if count == 1:
            backend.fit(library, shape, task)
        else:
            workers.fit(self._spark, library, shape, task, count)
        # The first epoch traces and loads.
        found = {"step": batch / statistics.median(rates[1:] or rates), "windows": len(training)}
        (target / "step.json").write_text(json.dumps(found))


def main(master: str, cores: str, events: str = "") -> None:
    hush_loggers()
    conf: dict[str, str | int | float | bool] = {"spark.ui.enabled": False}
    if not master.startswith("local"):
        conf |= {"spark.executor.memory": EXECUTOR, "spark.cores.max": int(cores)}
    if events:
        conf |= event_log.settings(Path(events))
    settings = Spark(master=master, driver_memory=MEMORY, conf=conf)
    with (
        without_third_party_warnings(),
        spark_session(app_name="benchmark", spark=settings) as spark,
        contextlib.ExitStack() as stack,
    ):
        program = Program(spark, stack)
        serve(lambda request: getattr(program, request.pop("job"))(**request))


if __name__ == "__main__":
    main(*sys.argv[1:])
