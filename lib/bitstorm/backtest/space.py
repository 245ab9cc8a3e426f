"""The search space of a study: a range around each setting that a trial may change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from bitstorm.core.settings import Training
from bitstorm.model.training_run import batch_size_and_rate

Values = Mapping[str, int | float]


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both inclusive; `log`: every ratio is equally likely."""

    low: int | float
    high: int | float
    log: bool


def search_space(training: Training) -> dict[str, Range]:
    """The ranges by name in the section `training`; whole numbers where the setting is one.

    Each range holds the setting itself, so the user moves the whole space with `--set`. Twice the
    look-back takes twice the time, so the upper ends are closer than the lower ones.
    """
    batch_size, learning_rate = batch_size_and_rate(training)
    whole = {"look_back": training.look_back, "units": training.units, "batch_size": batch_size}
    return {
        **{name: Range(max(1, value // 4), 2 * value, log=True) for name, value in whole.items()},
        "dropout": Range(0.0, max(0.5, training.dropout), log=False),
        "learning_rate": Range(learning_rate / 10, learning_rate * 10, log=True),
    }


def default_values(training: Training) -> dict[str, int | float]:
    """The values of the settings themselves, with `auto` resolved."""
    batch_size, learning_rate = batch_size_and_rate(training)
    found = {name: getattr(training, name) for name in search_space(training)}
    return {**found, "batch_size": batch_size, "learning_rate": learning_rate}


def with_values(training: Training, values: Values) -> Training:
    """The settings of a trial."""
    return Training.model_validate({**training.model_dump(), **values})


def overlay(values: Values, note: str) -> str:
    """The values as YAML for `--config`, with the note as a comment."""
    return f"# {note}\n{yaml.safe_dump({'training': dict(values)}, sort_keys=False)}"
