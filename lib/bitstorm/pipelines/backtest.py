"""`backtest`: the network and the baselines on folds of the past → `backtests/NAME/`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bitstorm.backtest import files
from bitstorm.backtest.fold import Work
from bitstorm.backtest.folds import Fold
from bitstorm.backtest.plan import Plan, make_plan
from bitstorm.backtest.scores import PERSISTENCE, Standing, scores, standing, summary
from bitstorm.backtest.tasks import run_folds
from bitstorm.context import Context
from bitstorm.core.results import Result
from bitstorm.model import training_data
from bitstorm.report import style
from bitstorm.report.summary import write_metrics


@dataclass(frozen=True, repr=False)
class Backtested(Result):
    """`computed` folds of `folds` were run now, the others were there. `rows` are the pairs of
    origin and step that the models are compared on, `origins` all origins."""

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

    @property
    def idle(self) -> bool:
        return self.computed == 0

    def facts(self) -> Mapping[str, Any]:
        facts = {k: v for k, v in super().facts().items() if k != "models"}
        return {**facts, **{f"skill of {n}": f"{m.skill:+.4f}" for n, m in self.models.items()}}


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
        return _score(context, plan, computed=len(missing), seconds=time.monotonic() - began)


def _run(context: Context, plan: Plan, missing: list[Fold]) -> None:
    """Run these folds; each file is written as soon as its task has ended."""
    training, steps = context.settings.training, context.settings.forecast.steps
    with (
        context.spark("backtest") as spark,
        training_data.write_blocks(context, spark, plan.snapshot, plan.spec) as stored,
        context.console.bar() as bar,
    ):
        work = Work(stored, plan.first, plan.last, training, plan.baselines, steps)
        bar(0.0, f"{len(missing)} folds", False)
        for count, done in enumerate(run_folds(spark, work, missing), start=1):
            files.write_fold(plan.folder, done)
            record = done.record
            text = (
                f"fold {done.fold.number} of {len(plan.folds)}  {record['epochs']} epochs, best "
                f"{record['best_epoch']}  {record['seconds']:.1f} s"
            )
            bar(count / len(missing), text, True)


def _score(context: Context, plan: Plan, *, computed: int, seconds: float) -> Backtested:
    """Score the folds; write picture, metrics and record where they are not there."""
    from bitstorm.report import backtest_plots, canvas

    found, fits, origins = [], [], 0
    for fold in plan.folds:
        stored = files.required_fold(plan.folder, fold.number)
        found.append(scores(stored.frame))
        fits.append(stored.record)
        origins += stored.record["windows"]["test"]
    models = summary(found)
    mark = style.Mark(**asdict(context.workspace.bound_to() or context.origin()))
    if computed or not files.is_finished(plan.folder):
        record = plan.record(state=files.FINISHED, fits=fits)
        facts = {"source": mark.source, **{name: record[name] for name in ("indicators", "prices")}}
        figure = backtest_plots.skill_figure(models, mark=mark)
        canvas.save_png(figure, plan.folder / files.PICTURE)
        write_metrics(plan.folder / files.METRICS, {**facts, "models": models})
        write_metrics(plan.folder / files.RECORD, record)
    return Backtested(
        source=mark.source,
        backtest=plan.folder.name,
        folder=str(plan.folder),
        indicators=plan.snapshot.id,
        folds=len(plan.folds),
        computed=computed,
        steps=context.settings.forecast.steps,
        origins=origins,
        rows=models[PERSISTENCE]["all"]["pooled"]["rows"],
        seconds=round(seconds, 3),
        models={name: standing(parts) for name, parts in models.items()},
    )
