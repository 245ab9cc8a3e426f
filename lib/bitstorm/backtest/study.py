"""A study: Optuna's ask and tell in batches, over `tuning/NAME/study.db`.

SQLite, since a trial is there whole or not at all, however the process ends; Optuna's journal file
can end in half a line. It holds only trials that have ended: a trial of a killed process is asked
for again, with the same values. Only the driver opens it: the tasks need no database.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.backtest.space import Range, Values
from bitstorm.core.errors import ModelError

if TYPE_CHECKING:
    import optuna

DATABASE, STUDY = "study.db", "study.json"
# With fewer complete trials an importance is noise.
LEAST_FOR_IMPORTANCE = 8
_PLACE, _EPOCHS, _SKILL, _JUDGED = "place", "epochs", "validation_skill", "judged"


def require_optuna() -> None:
    """Raise ModelError where Optuna is not installed. Loads nothing."""
    if importlib.util.find_spec("optuna") is None:
        raise ModelError(
            "`bitstorm tune` needs Optuna, which is not installed: run pip install 'bitstorm[tune]'"
        )


@dataclass(frozen=True)
class Trial:
    """A trial that has ended; places count from 0. `loss` and `skill` are of the validation part,
    None where it was pruned after `epochs`."""

    place: int
    values: Values
    epochs: int
    loss: float | None
    skill: float | None

    def text(self) -> str:
        """Its line in the progress."""
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.values.items())
        if self.loss is None:
            return f"pruned after epoch {self.epochs}  {values}"
        return f"loss {self.loss:.4f}, skill {self.skill:+.4f}, {self.epochs} epochs  {values}"


@dataclass(frozen=True)
class Asked:
    """A trial to train."""

    place: int
    values: Values


class Study:
    """The trials of a search space."""

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
                trial.user_attrs[_SKILL],
            )
            for trial in self._study.get_trials(deepcopy=False)
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
        return [trial for trial in self._before(before) if trial.state.name == "COMPLETE"]

    def ask(self, trials: int, slots: int) -> list[Asked]:
        """The next trials of `trials` in all, for so many tasks at once; empty at the end.

        The places are cut into batches of `slots`. The values of a batch follow from the seed and
        from the batches before it, so a study that was stopped goes on as an unbroken one.
        """
        import optuna

        ended = {trial.place for trial in self.trials}
        missing = [place for place in range(trials) if place not in ended]
        if not missing:
            return []
        start = missing[0] // slots * slots
        # In memory: the study on disk has the trials in the order of their ends.
        sampler = optuna.samplers.TPESampler(seed=self._seed + start)
        memory = optuna.create_study(sampler=sampler)
        memory.add_trials(self._before(start))
        if start == 0:
            memory.enqueue_trial(dict(self._first))
        kinds = {name: _distribution(one) for name, one in self._space.items()}
        batch = [
            Asked(place, self._values(memory.ask(kinds).params))
            for place in range(start, min(start + slots, trials))
        ]
        return [asked for asked in batch if asked.place not in ended]

    def tell(self, asked: Asked, record: Mapping[str, Any]) -> Trial:
        """Store the trial with its record of `trial.run_trial`."""
        from optuna.trial import TrialState, create_trial

        losses, skill = record["losses"], record.get(_SKILL)
        trial = create_trial(
            state=TrialState.PRUNED if record["pruned"] else TrialState.COMPLETE,
            value=record.get("loss"),
            params=dict(asked.values),
            distributions={name: _distribution(one) for name, one in self._space.items()},
            user_attrs={_PLACE: asked.place, _EPOCHS: len(losses), _SKILL: skill},
            intermediate_values=dict(enumerate(losses, start=1)),
        )
        self._study.add_trial(trial)
        return Trial(asked.place, asked.values, len(losses), record.get("loss"), skill)

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
        """The weight of each setting in whether a complete trial is in the better half of them, by
        PED-ANOVA (Watanabe, Bansal and Hutter, 2023), greatest first; the sum is 1. Empty where
        there are fewer than LEAST_FOR_IMPORTANCE."""
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        if sum(trial.loss is not None for trial in self.trials) < LEAST_FOR_IMPORTANCE:
            return {}
        # Optuna's default, the best tenth, would be two trials of twenty.
        half = PedAnovaImportanceEvaluator(target_quantile=0.5)
        return dict(get_param_importances(self._study, evaluator=half))

    def _before(self, place: int) -> list[optuna.trial.FrozenTrial]:
        """Optuna's records of the trials with places below this one, by place."""
        found = self._study.get_trials(deepcopy=False)
        earlier = [trial for trial in found if trial.user_attrs[_PLACE] < place]
        return sorted(earlier, key=lambda trial: trial.user_attrs[_PLACE])

    def _values(self, params: Mapping[str, Any]) -> dict[str, int | float]:
        """The values in the order of the space: a database has no order."""
        return {name: params[name] for name in self._space}


@contextmanager
def open_study(
    folder: Path, space: Mapping[str, Range], first: Values, *, seed: int
) -> Iterator[Study]:
    """The study in this folder, new or continued; the first trial has the values `first`. The
    caller holds the folder's lock, and has called `require_optuna`."""
    import optuna
    from sqlalchemy import URL

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = URL.create("sqlite", database=str(folder / DATABASE))
    storage = optuna.storages.RDBStorage(url.render_as_string())
    try:
        study = optuna.create_study(
            storage=storage, study_name=folder.name, direction="minimize", load_if_exists=True
        )
        yield Study(study, space, first, seed)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _distribution(one: Range) -> Any:
    from optuna.distributions import FloatDistribution, IntDistribution

    kind = IntDistribution if isinstance(one.low, int) else FloatDistribution
    return kind(one.low, one.high, log=one.log)
