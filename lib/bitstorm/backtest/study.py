"""A study on disk: Optuna's ask and tell, in `tuning/NAME/study.db`.

SQLite, since a write is whole or absent however the process ends; Optuna's journal file can end in
half a line. Only the driver opens it: the tasks need no database.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.backtest.space import Range, Values
from bitstorm.core.errors import ModelError

if TYPE_CHECKING:
    import optuna

DATABASE = "study.db"
# With fewer complete trials an importance is noise.
LEAST_FOR_IMPORTANCE = 4
_PLACE, _EPOCHS, _SKILL, _JUDGED = "place", "epochs", "validation_skill", "judged"


def require_optuna() -> None:
    """Raise ModelError where Optuna is not installed. Loads nothing."""
    if importlib.util.find_spec("optuna") is None:
        raise ModelError(
            "`bitstorm tune` needs Optuna, which is not installed: run pip install 'bitstorm[tune]'"
        )


@dataclass(frozen=True)
class Trial:
    """A trial that has ended; places count from 0, and failed tries have none. `loss` and `skill`
    are of the validation part, None where it was pruned after `epochs`."""

    place: int
    values: Values
    epochs: int
    loss: float | None
    skill: float | None

    def text(self) -> str:
        """Its line in the progress."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        if self.loss is None:
            return f"pruned after {self.epochs} epochs  {values}"
        return f"loss {self.loss:.4f}, skill {self.skill:+.4f}, {self.epochs} epochs  {values}"


@dataclass(frozen=True)
class Asked:
    """A trial to train, with Optuna's own handle."""

    place: int
    values: Values
    handle: optuna.Trial


class Study:
    """The trials of a search space. A trial's place and the seed decide its random numbers, so a
    study that was stopped goes on as an unbroken one does, with as many trials at once."""

    def __init__(
        self, study: optuna.Study, space: Mapping[str, Range], first: Values, seed: int
    ) -> None:
        self._study, self._space, self._first, self._seed = study, space, first, seed

    @property
    def trials(self) -> list[Trial]:
        """The trials that have ended, by place."""
        from optuna.trial import TrialState

        found = [
            Trial(
                trial.user_attrs[_PLACE],
                self._values(trial.params),
                trial.user_attrs[_EPOCHS],
                None if trial.state == TrialState.PRUNED else trial.value,
                trial.user_attrs.get(_SKILL),
            )
            for trial in self._in_state("COMPLETE", "PRUNED")
        ]
        return sorted(found, key=lambda trial: trial.place)

    @property
    def best(self) -> Trial:
        """The complete trial with the smallest loss. Raises ModelError where there is none."""
        complete = [trial for trial in self.trials if trial.loss is not None]
        if not complete:
            raise ModelError(
                f"found no trial with a finite loss among {len(self.trials)}: lower "
                "training.learning_rate or look at the data with `bitstorm report`"
            )
        return min(complete, key=lambda trial: trial.loss or 0.0)

    def complete(self, before: int) -> list[optuna.trial.FrozenTrial]:
        """Optuna's records of the trials that were not pruned, with places below `before`."""
        return [t for t in self._in_state("COMPLETE") if t.user_attrs[_PLACE] < before]

    def ask(self, trials: int, slots: int) -> list[Asked]:
        """The next trials of `trials` in all, for so many tasks at once; empty at the end.

        A study that was stopped first completes the batch that it was in.
        """
        import optuna

        ended = {trial.place for trial in self.trials}
        missing = [place for place in range(trials) if place not in ended][:slots]
        batch = [place for place in missing if place // slots == missing[0] // slots]
        failed = {
            trial.user_attrs[_PLACE]: trial.params
            for trial in self._in_state("FAIL")
            if _PLACE in trial.user_attrs
        }
        kinds = {name: _distribution(one) for name, one in self._space.items()}
        found = []
        for place in batch:
            known = failed.get(place) or (self._first if place == 0 else None)
            if known is not None:
                self._study.enqueue_trial(dict(known))
            # A sampler's state is in memory alone, so each trial has its own sampler.
            self._study.sampler = optuna.samplers.TPESampler(seed=self._seed + place)
            trial = self._study.ask(kinds)
            trial.set_user_attr(_PLACE, place)
            found.append(Asked(place, self._values(trial.params), trial))
        return found

    def tell(self, asked: Asked, record: Mapping[str, Any]) -> Trial:
        """End the trial with its record of `trial.run_trial`."""
        from optuna.trial import TrialState

        losses = record["losses"]
        for epoch, loss in enumerate(losses, start=1):
            asked.handle.report(loss, epoch)
        asked.handle.set_user_attr(_EPOCHS, len(losses))
        if record["pruned"]:
            self._study.tell(asked.handle, state=TrialState.PRUNED)
        else:
            asked.handle.set_user_attr(_SKILL, record[_SKILL])
            self._study.tell(asked.handle, record["loss"])
        return next(trial for trial in self.trials if trial.place == asked.place)

    @property
    def judged(self) -> dict[int, dict[str, float]]:
        """By place: `validation_skill` and `test_skill` of the trials that were judged."""
        found = self._study.user_attrs.get(_JUDGED, {})
        return {int(place): skills for place, skills in found.items()}

    def note_judged(self, place: int, skills: Mapping[str, float]) -> None:
        """Keep the skills of a trial on the test part."""
        known = {str(old): values for old, values in self.judged.items()}
        self._study.set_user_attr(_JUDGED, {**known, str(place): dict(skills)})

    def importance(self) -> dict[str, float]:
        """The share of each setting in the variance of the loss among the complete trials, by
        Optuna's PED-ANOVA (Watanabe, Bansal and Hutter, 2023), greatest first; empty where there
        are fewer than LEAST_FOR_IMPORTANCE."""
        import optuna

        if len(self._in_state("COMPLETE")) < LEAST_FOR_IMPORTANCE:
            return {}
        with _quiet():
            return dict(optuna.importance.get_param_importances(self._study))

    def _in_state(self, *names: str) -> list[optuna.trial.FrozenTrial]:
        from optuna.trial import TrialState

        states = tuple(TrialState[name] for name in names)
        return self._study.get_trials(deepcopy=False, states=states)

    def _values(self, params: Mapping[str, Any]) -> dict[str, int | float]:
        """The values in the order of the space: a database has no order."""
        return {name: params[name] for name in self._space}


@contextmanager
def open_study(
    folder: Path, space: Mapping[str, Range], first: Values, *, seed: int
) -> Iterator[Study]:
    """The study in this folder, new or continued; the first trial has the values `first`. Trials
    that a killed process left are marked as failed, and asked again. Raises ModelError as
    `require_optuna`. The caller holds the folder's lock."""
    require_optuna()
    import optuna
    from optuna.trial import TrialState
    from sqlalchemy import URL

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = URL.create("sqlite", database=str(folder / DATABASE))
    storage = optuna.storages.RDBStorage(url.render_as_string())
    try:
        study = optuna.create_study(
            storage=storage, study_name=folder.name, direction="minimize", load_if_exists=True
        )
        while study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.ask()
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
        yield Study(study, space, first, seed)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _distribution(one: Range) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution

    kind = IntDistribution if isinstance(one.low, int) else FloatDistribution
    return kind(one.low, one.high, log=one.log)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's notes on new parts of its interface."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield
