"""`tune`: a search for better settings of the training → `tuning/NAME/`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from bitstorm.backtest import files, space, tuner
from bitstorm.backtest.search import Search, make_search
from bitstorm.backtest.study import STUDY, Study, Trial, open_study
from bitstorm.backtest.tuner import Judged
from bitstorm.context import Context
from bitstorm.model import runs, training_data
from bitstorm.report.results import TunePicture
from bitstorm.report.summary import write_metrics, write_text

PICTURE, OVERLAY = "importance", "best.yaml"


@dataclass(frozen=True, repr=False)
class Tuned(TunePicture):
    """`computed` trials of `trials` ran now. `pruned` trials ended early, which left out at most
    `epochs_saved` of `epochs`. `default` has the settings, None where its loss was not finite;
    `best` has the smallest validation loss. `overlay` is the file for `--config`, if written."""

    study: str
    folder: str
    indicators: str
    trials: int
    computed: int
    pruned: int
    epochs: int
    epochs_saved: int
    default: Judged | None
    best: Judged
    importance: Mapping[str, float]
    overlay: str | None
    seconds: float

    @property
    def idle(self) -> bool:
        return self.computed == 0


def tune(context: Context, *, apply: bool = False) -> Tuned:
    """Run the missing trials, a Spark task each, and judge the best one and the settings themselves
    on the test part, which no trial reads.

    The same settings on the same snapshot continue a study that was stopped, or with more
    `tune.trials` a finished one. With `apply` write the best values as an overlay. Raises errors as
    `make_search` and `run_trial`, and StoreError where another process runs the same study.
    """
    began, settings = time.monotonic(), context.settings.tune
    search = make_search(context)
    first = space.default_values(search.training)
    with (
        files.writing(search.folder),
        open_study(search.folder, search.space, first, seed=settings.seed) as study,
    ):
        before = len(study.trials)
        if before < settings.trials or tuner.to_judge(study):
            _run(context, search, study, max(before, settings.trials))
        trials, best = study.trials, tuner.judged(study, study.best)
        assert best is not None
        pruned = [trial.epochs for trial in trials if trial.loss is None]
        epochs = search.training.epochs
        overlay = context.workspace.tuning / OVERLAY
        result = Tuned(
            study=search.folder.name,
            folder=str(search.folder),
            indicators=search.snapshot.id,
            trials=len(trials),
            computed=len(trials) - before,
            pruned=len(pruned),
            epochs=epochs * len(trials),
            epochs_saved=epochs * len(pruned) - sum(pruned),
            default=tuner.judged(study, trials[0]),
            best=best,
            importance=study.importance(),
            overlay=str(overlay) if apply else None,
            seconds=round(time.monotonic() - began, 3),
        )
        _write(context, search, trials, result)
    if apply:
        note = f"Trial {best.trial} of the study {result.study}, by `bitstorm tune --apply`."
        write_text(overlay, space.overlay(best.values, note))
    return result


def _run(context: Context, search: Search, study: Study, trials: int) -> None:
    """Run and judge; a line for each trial."""
    with (
        context.spark("tune") as spark,
        training_data.write_blocks(context, spark, search.snapshot, search.spec) as stored,
        context.console.bar() as bar,
    ):
        work = search.work(stored)
        bar(0.0, f"{trials} trials", False)
        for trial in tuner.run_trials(spark, work, search, study, trials):
            share = len(study.trials) / trials
            bar(share, f"trial {trial.place + 1} of {trials}  {trial.text()}", True)
        tuner.judge(spark, work, search, study)


def _write(context: Context, search: Search, trials: list[Trial], result: Tuned) -> None:
    """`study.json`, and the picture where the importance is known."""
    from bitstorm.report import canvas

    bound = context.workspace.bound_to() or context.origin()
    record = {**vars(bound), **search.recipe, **asdict(result), "code": runs.code()}
    record["trials"] = [asdict(trial) for trial in trials]
    write_metrics(search.folder / STUDY, record)
    tuner.track(search, trials, result.best, warn=context.console.warn)
    if result.importance:
        canvas.save({PICTURE: result.plot()}, search.folder)
