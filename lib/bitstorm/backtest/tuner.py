"""The trials of a study as Spark tasks, and the judgement of the best one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bitstorm.backtest.fold import Work
from bitstorm.backtest.search import Search
from bitstorm.backtest.space import Values
from bitstorm.backtest.study import Study, Trial
from bitstorm.backtest.tasks import Job, run_jobs
from bitstorm.backtest.tracking import Part, track_parts
from bitstorm.backtest.trial import Pruner, run_trial
from bitstorm.spark.context import slots

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The median pruner judges after this share of the epochs.
WARM_UP = 1 / 3


@dataclass(frozen=True)
class Judged:
    """A trial, counted from 1, with its skills against persistence on the validation part and on
    the test part. `flattery` is the first less the second: how far the validation flatters."""

    trial: int
    values: Values
    validation_skill: float
    test_skill: float
    flattery: float


def run_trials(
    spark: SparkSession, work: Work, search: Search, study: Study, trials: int
) -> Iterator[Trial]:
    """Run the missing trials of so many, in batches of one for each core; each trial as soon as it
    has ended. A batch is asked for after the one before it has ended, so the values depend on the
    number of cores, never on which task is faster. Raises errors as `run_jobs`."""
    cores = slots(spark)
    while batch := study.ask(trials, cores):
        complete = study.complete(before=batch[0].place // cores * cores)
        pruner = Pruner(complete, warm_up=round(search.training.epochs * WARM_UP))
        jobs = [
            Job(
                f"trial {one.place + 1}", partial(run_trial, work, search.parts, one.values, pruner)
            )
            for one in batch
        ]
        for number, record, _ in run_jobs(spark, jobs):
            yield study.tell(batch[number], record)


def to_judge(study: Study) -> list[Trial]:
    """The best trial and the first, which has the settings, where they are not judged yet."""
    wanted = {trial.place: trial for trial in (study.best, *study.trials[:1])}
    return [
        trial
        for place, trial in wanted.items()
        if trial.loss is not None and place not in study.judged
    ]


def judge(spark: SparkSession, work: Work, search: Search, study: Study) -> None:
    """Train the trials of `to_judge` again, to the same bits, and note their skills."""
    trials = to_judge(study)
    jobs = [
        Job(
            f"trial {trial.place + 1}, judged",
            partial(run_trial, work, search.parts, trial.values, None),
        )
        for trial in trials
    ]
    for number, record, _ in run_jobs(spark, jobs):
        skills = {name: record[name] for name in ("validation_skill", "test_skill")}
        study.note_judged(trials[number].place, skills)


def judged(study: Study, trial: Trial) -> Judged | None:
    """The judgement of a trial, None where there is none."""
    skills = study.judged.get(trial.place)
    if skills is None:
        return None
    flattery = skills["validation_skill"] - skills["test_skill"]
    return Judged(trial.place + 1, trial.values, **skills, flattery=flattery)


def track(
    search: Search, trials: Sequence[Trial], best: Judged, *, warn: Callable[[str], None]
) -> None:
    """Send the study and its trials to MLflow, where a place is named."""
    parts = [
        Part(
            f"{search.folder.name} trial {trial.place + 1}",
            trial.values,
            {"epochs": trial.epochs, "loss": trial.loss, "skill": trial.skill},
        )
        for trial in trials
    ]
    skills = {"validation_skill": best.validation_skill, "test_skill": best.test_skill}
    params = {**search.training.model_dump(), **best.values}
    track_parts(
        "study", search.folder.name, parts,
        params=params, metrics=skills, snapshot=search.snapshot, warn=warn,
    )  # fmt: skip
