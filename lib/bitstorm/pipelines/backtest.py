"""`backtest`: the network and the baselines on folds of the past → `backtests/NAME/`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bitstorm.backtest import files
from bitstorm.backtest.fold import NETWORK
from bitstorm.backtest.folds import Fold
from bitstorm.backtest.plan import Plan, make_plan
from bitstorm.backtest.scores import PERSISTENCE, Standing, scores, standing, summary
from bitstorm.backtest.tasks import run_folds
from bitstorm.context import Context
from bitstorm.model import training_data
from bitstorm.pipelines.backtest_judgement import judge_folds
from bitstorm.report.results import BacktestPictures
from bitstorm.report.summary import write_metrics

# Parts of `metrics.json`.
_JUDGED = ("grades", "intervals", "volatility")


@dataclass(frozen=True, repr=False)
class Backtested(BacktestPictures):
    """`computed` folds of `folds` were run now, the others were there. `rows` are the pairs of
    origin and step that the models are compared on, `origins` all origins. The last three are parts
    of `metrics.json`."""

    source: str
    backtest: str
    folder: str
    indicators: str
    folds: int
    computed: int
    steps: int
    origins: int
    rows: int
    seconds: float
    models: Mapping[str, Standing]
    grades: Mapping[str, Any]
    intervals: Mapping[str, Any]
    volatility: Mapping[str, Any] | None

    @property
    def idle(self) -> bool:
        return self.computed == 0

    @property
    def headline(self) -> str:
        """The verdict on the network's forecasts of step 1."""
        nothing = {"headline": "No forecast can be judged: no outcome is known."}
        return str(self.grades.get(NETWORK, nothing)["headline"])

    def facts(self) -> Mapping[str, Any]:
        facts = {k: v for k, v in super().facts().items() if k not in ("models", *_JUDGED)}
        skills = {f"skill of {n}": f"{m.skill:+.4f}" for n, m in self.models.items()}
        return {"verdict": self.headline, **facts, **skills}


def backtest(context: Context) -> Backtested:
    """Fit and forecast every fold that is not there yet, one Spark task each, and score all.

    The same settings on the same snapshot continue a back-test that was stopped; a finished one is
    only read. Raises SnapshotMissing, UsageError, DataError and ModelError as `make_plan` and
    `run_fold`, and StoreError where another process computes the same back-test.
    """
    began = time.monotonic()
    plan = make_plan(context)
    with files.writing(plan.folder):
        numbers = [fold.number for fold in plan.folds if files.read_fold(plan.folder, fold.number)]
        missing = [fold for fold in plan.folds if fold.number not in numbers]
        if missing:
            there = f", {len(numbers)} folds are there" if numbers else ""
            write_metrics(plan.folder / files.RECORD, plan.record(state=files.RUNNING))
            context.console.say(f"  back-test {plan.folder.name}{there}")
            _run(context, plan, missing)
        return _result(context, plan, computed=len(missing), seconds=time.monotonic() - began)


def _run(context: Context, plan: Plan, missing: list[Fold]) -> None:
    """Run these folds; each file is written as soon as its task has ended."""
    with (
        context.spark("backtest", tensorflow=plan.loads_tensorflow) as spark,
        training_data.write_blocks(context, spark, plan.snapshot, plan.spec) as stored,
        context.console.bar() as bar,
    ):
        work = plan.work(stored, context.settings)
        bar(0.0, f"{len(missing)} folds", False)
        for count, done in enumerate(run_folds(spark, work, missing), start=1):
            files.write_fold(plan.folder, done)
            record, name = done.record, f"fold {done.fold.number}"
            context.stages.write(name, seconds=record["seconds"], of=plan.snapshot)
            text = (
                f"{name} of {len(plan.folds)}  {record['epochs']} epochs, best "
                f"{record['best_epoch']}  {record['seconds']:.1f} s"
            )
            bar(count / len(missing), text, True)


def _result(context: Context, plan: Plan, *, computed: int, seconds: float) -> Backtested:
    """The result of a back-test whose folds are all there, `computed` of them new."""
    found = [files.required_fold(plan.folder, fold.number) for fold in plan.folds]
    models = summary([scores(stored.frame) for stored in found])
    metrics = judge_folds(context, plan, found, models, new=computed > 0)
    return Backtested(
        backtest=plan.folder.name,
        folder=str(plan.folder),
        indicators=plan.snapshot.id,
        folds=len(plan.folds),
        computed=computed,
        steps=context.settings.forecast.steps,
        origins=sum(stored.record["windows"]["test"] for stored in found),
        rows=models[PERSISTENCE]["all"]["pooled"]["rows"],
        seconds=round(seconds, 3),
        models={name: standing(parts) for name, parts in models.items()},
        **{part: metrics[part] for part in ("source", *_JUDGED)},
    )
