"""`runs`: the list of the training runs, one run in full, and the differences of some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitstorm.context import Context
from bitstorm.core.errors import ModelError
from bitstorm.core.results import Result
from bitstorm.model import runs
from bitstorm.model.runs import METRICS, Overview, Run, overview_of

# These differ between any two runs, and explain nothing.
_ALWAYS_DIFFERENT = ("run", "created_at", "sessions", "files", "state", "reason")


@dataclass(frozen=True, repr=False)
class Shown(Result):
    """One run: its line, its record, and the problems of its files."""

    overview: Overview
    record: Mapping[str, Any]
    problems: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Compared(Result):
    """`differ` has, by setting or metric, the values of the runs in the order of `runs`; None where
    a run has no value."""

    runs: tuple[str, ...]
    differ: dict[str, tuple[Any, ...]]


def overviews(context: Context) -> list[Overview]:
    """All runs, newest first; one whose record cannot be read is `damaged`."""
    return [
        Overview(name, "damaged", problem=str(run))
        if isinstance(run, ModelError)
        else overview_of(run)
        for name, run in runs.all_runs(context.workspace.checkpoints)
    ]


def show(context: Context, name: str) -> Shown:
    """One run. Raises ModelError where there is none of this name, or its record cannot be read."""
    run = runs.find(context.workspace.checkpoints, name)
    problems = []
    for file in run.record.get("files", {}):
        try:
            runs.read_file(run, file)
        except ModelError as error:
            problems.append(str(error))
    overview = overview_of(run)
    if overview.problem:
        problems.append(overview.problem)
    return Shown(overview, run.record, tuple(problems))


def compare(context: Context, names: Sequence[str]) -> Compared:
    """The settings and metrics in which the runs differ. Raises ModelError as `show` does."""
    found = [runs.find(context.workspace.checkpoints, name) for name in names]
    flat = [dict(runs.flattened(_with_metrics(run))) for run in found]
    keys = dict.fromkeys(key for record in flat for key in record)
    values = {key: tuple(record.get(key) for record in flat) for key in keys}
    differ = {key: v for key, v in values.items() if any(value != v[0] for value in v)}
    return Compared(tuple(names), differ)


def _with_metrics(run: Run) -> dict[str, Any]:
    overview = vars(overview_of(run))
    fitted = {name: overview[name] for name in ("state", *METRICS)}
    own = {key: value for key, value in run.record.items() if key not in _ALWAYS_DIFFERENT}
    return {**own, "fitted": {**fitted, **run.record.get("fitted", {})}}
