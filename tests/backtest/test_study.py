"""A study on disk: a stopped one goes on as an unbroken one."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from bitstorm.backtest.space import default_values, search_space
from bitstorm.backtest.study import Study, Trial, open_study, require_optuna
from bitstorm.core.errors import ModelError
from bitstorm.core.settings import Training

TRAINING = Training()
FIRST = default_values(TRAINING)
# Ten trials are random; the others follow from what was told.
TRIALS, SLOTS = 13, 3


def loss_of(values) -> float:
    """The learning rate decides, with its best at 0.001; the dropout adds a little."""
    return math.log(values["learning_rate"] / 0.001) ** 2 + values["dropout"] / 10


def record_of(values) -> dict:
    loss = loss_of(values)
    if loss > 4:
        return {"losses": [loss + 1], "pruned": True}
    losses = [loss + 2, loss, loss + 1]
    return {"losses": losses, "pruned": False, "loss": loss, "validation_skill": -loss}


def proceed(folder: Path, trials: int, *, tells: int | None = None) -> list[Trial]:
    """Run the study to its end, or to a stop after so many tells, amid a batch."""
    space = search_space(TRAINING)
    with open_study(folder, space, FIRST, seed=5) as study:
        while batch := study.ask(trials, SLOTS):
            # As tasks end: in any order.
            for asked in reversed(batch):
                if tells == 0:
                    return study.trials
                told = study.tell(asked, record_of(asked.values))
                assert (told.place, told.values) == (asked.place, asked.values)
                tells = None if tells is None else tells - 1
        check_best(study)
        return study.trials


def check_best(study: Study) -> None:
    losses = [loss_of(trial.values) for trial in study.trials if trial.loss is not None]
    assert study.best.loss == min(losses) == loss_of(study.best.values)
    importance = study.importance()
    assert max(importance, key=lambda name: importance[name]) == "learning_rate"
    assert sum(importance.values()) == pytest.approx(1)


@pytest.mark.slow
def test_a_stopped_study_goes_on_as_an_unbroken_one(tmp_path):
    folders = [tmp_path / name for name in ("unbroken", "stopped and more")]
    for folder in folders:
        folder.mkdir()
    whole = proceed(folders[0], TRIALS)
    assert [trial.place for trial in whole] == list(range(TRIALS))
    assert whole[0].values == FIRST
    for trial in whole:
        record = record_of(trial.values)
        assert (trial.epochs, trial.loss, trial.skill) == (
            len(record["losses"]), record.get("loss"), record.get("validation_skill"),
        )  # fmt: skip
    assert any(trial.loss is None for trial in whole)
    assert len({str(trial.values) for trial in whole}) == TRIALS
    assert len(proceed(folders[1], TRIALS, tells=4)) == 4
    assert len(proceed(folders[1], TRIALS, tells=7)) == 11
    assert proceed(folders[1], TRIALS) == whole


@pytest.mark.slow
def test_no_finite_loss_is_an_error_and_skills_are_kept(tmp_path):
    for kept in ({}, {3: {"test_skill": -0.5}}):
        with open_study(tmp_path, search_space(TRAINING), FIRST, seed=5) as study:
            for asked in study.ask(1, SLOTS):
                study.tell(asked, {"losses": [], "pruned": True})
            assert study.judged == kept
            study.note_judged(3, {"test_skill": -0.5})
            with pytest.raises(ModelError, match="no trial with a finite loss among 1: lower"):
                _ = study.best
            assert study.importance() == {}


def test_a_missing_optuna_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ModelError, match=r"run pip install 'bitstorm\[tune\]'"):
        require_optuna()
