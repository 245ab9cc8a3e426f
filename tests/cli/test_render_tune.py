"""The lines of a study say where the best trial is no gain."""

from __future__ import annotations

from dataclasses import replace

from bitstorm.backtest.tuner import Judged
from bitstorm.cli.render_tune import tune_lines
from bitstorm.pipelines.tune import Tuned

VALUES = {"look_back": 60, "learning_rate": 0.0028284}
FIRST = Judged(1, VALUES, 0.01, 0.004, 0.006)
BEST = Judged(3, {**VALUES, "look_back": 32}, 0.02, 0.005, 0.015)
STUDY = Tuned(
    study="20190101T000000Z-4bcb6cc9",
    folder="tuning/20190101T000000Z-4bcb6cc9",
    indicators="00000001-fb02f76fefcf",
    trials=4,
    computed=2,
    pruned=1,
    epochs=40,
    epochs_saved=7,
    default=FIRST,
    best=BEST,
    importance={"look_back": 0.75, "learning_rate": 0.25},
    overlay="tuning/best.yaml",
    seconds=9.5,
)


def words(result: Tuned) -> list[str]:
    return [" ".join(line.split()) for line in tune_lines(result) if "──" not in line]


def test_a_study_shows_the_flattery_of_best_and_settings():
    assert words(STUDY) == [
        "4 trials (2 computed now), 1 pruned, which left out at most 7 of 40 epochs",
        "validation skill test skill validation flatters by",
        "settings +0.0100 +0.0040 +0.0060",
        "best (trial 3) +0.0200 +0.0050 +0.0150",
        "best: look_back 32, learning_rate 0.002828",
        "weight in whether a trial is in the better half: look_back 75 %, learning_rate 25 %",
        "tuning/20190101T000000Z-4bcb6cc9/study.json has every trial",
        "use it: bitstorm train --config tuning/best.yaml",
    ]


def test_a_best_trial_without_a_gain_is_named():
    worse = replace(STUDY, best=replace(BEST, test_skill=0.004))
    sentence = "On the test part the best trial is not better than the settings."
    assert sentence in words(worse) and sentence not in words(STUDY)
    same = words(replace(STUDY, best=FIRST))
    assert "No trial is better than the settings." in same and sentence not in same
    assert not any("best (" in line for line in same)
    assert "settings +0.0100" not in " ".join(words(replace(STUDY, default=None)))
