"""The command `tune` on real snapshots: continued, nested in time, applied."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bitstorm.core.config import load
from bitstorm.core.errors import DataError, ModelError
from bitstorm.pipelines.tune import tune
from landed import HOUR
from pipelines.priced import START, VALIDATE_UNTIL, impatient, points_of, published, small, wave

# The one that loads sooner, where it is there; `test_jobs.py` tunes Keras' network.
BACKEND = "torch" if find_spec("torch") else "tensorflow"
FEW = ("tune.epochs=2", "training.units=4", "training.batch_size=64", f"training.backend={BACKEND}")


def trials_in(folder: str) -> list[dict]:
    return json.loads((Path(folder) / "study.json").read_text())["trials"]


@pytest.mark.slow
def test_a_study_goes_on_and_never_sees_the_test_part(spark_session, tmp_path):
    prices = wave()
    context = published(small(tmp_path / "first", *FEW, "tune.trials=1"), points_of(prices))
    begun = tune(context)
    assert (begun.trials, begun.computed, begun.pruned, begun.idle) == (1, 1, 0, False)
    more = small(tmp_path / "first", *FEW, "tune.trials=2")
    whole = tune(more, apply=True)
    assert (whole.study, whole.trials, whole.computed) == (begun.study, 2, 1)

    shuffled = prices.copy()
    after = (VALIDATE_UNTIL - START) // HOUR + 1
    shuffled[after:] = np.random.default_rng(3).permutation(shuffled[after:])
    other = published(small(tmp_path / "other", *FEW, "tune.trials=2"), points_of(shuffled))
    unbroken = tune(other)
    assert trials_in(unbroken.folder) == trials_in(whole.folder)
    assert unbroken.study != whole.study
    assert unbroken.best.values == whole.best.values
    assert unbroken.best.test_skill != whole.best.test_skill

    trials = trials_in(whole.folder)
    best = min(trials, key=lambda trial: trial["loss"])
    # Trained again to the same bits.
    assert whole.best.validation_skill == best["skill"]
    assert whole.best.trial == best["place"] + 1 and whole.best.values == best["values"]
    assert whole.default is not None and whole.overlay is not None
    assert whole.default.validation_skill == trials[0]["skill"]
    assert whole.best.flattery == whole.best.validation_skill - whole.best.test_skill
    assert whole.overlay == str(more.workspace.tuning / "best.yaml")
    applied = load(files=[Path(whole.overlay)]).settings.training
    assert {name: getattr(applied, name) for name in best["values"]} == best["values"]
    again = tune(impatient(more))
    assert again.idle and (again.best, again.overlay) == (whole.best, None)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ("training.look_back=60", DataError, "found 150 points .* for look_back 120"),
        ("training.features=[ma_9]", DataError, "names ma_9, which the indicators"),
    ],
)
def test_what_cannot_work_is_refused_before_spark(tmp_path, settings, error, said):
    context = published(small(tmp_path, settings), points_of(wave()[:150]))
    with pytest.raises(error, match=said):
        tune(impatient(context))
    assert not context.workspace.tuning.exists()


def test_without_optuna_nothing_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    context = published(small(tmp_path), points_of(wave()))
    with pytest.raises(ModelError, match="needs Optuna"):
        tune(impatient(context))
    assert not context.workspace.tuning.exists()
