"""`runs`: which training runs there are, what one of them is, and in what some differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitstorm.context import Context
from bitstorm.core.errors import ModelError
from bitstorm.core.results import Result
from bitstorm.model import runs
from bitstorm.model.runs import METRICS, Overview, Run, overview_of

# What tells a run from any other says nothing of why it came out as it did.
_ALWAYS_DIFFERENT = ("run", "created_at", "sessions", "files", "state", "reason")


@dataclass(frozen=True, repr=False)
class Shown(Result):
    """One run: its line, its record, and what is wrong with its files."""

    overview: Overview
    record: Mapping[str, Any]
    problems: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Compared(Result):
    """`differ`: by setting or metric, the value of each run in the order of `runs`; None where it
    has none."""

    runs: tuple[str, ...]
    differ: dict[str, tuple[Any, ...]]


def overviews(context: Context) -> list[Overview]:
    """All runs, newest first."""
    found = []
    for name, run in runs.listed(context.workspace.checkpoints):
        if isinstance(run, ModelError):
            found.append(Overview(name, "damaged", problem=str(run)))
        else:
            found.append(overview_of(run))
    return found


def show(context: Context, name: str) -> Shown:
    """Raises ModelError where there is no such run, or where its record cannot be read."""
    run = runs.named(context.workspace.checkpoints, name)
    problems = []
    for file in run.record.get("files", {}):
        try:
            runs.checked(run, file)
        except ModelError as error:
            problems.append(str(error))
    overview = overview_of(run)
    if overview.problem:
        problems.append(overview.problem)
    return Shown(overview, run.record, tuple(problems))


def compare(context: Context, names: Sequence[str]) -> Compared:
    """The settings and the metrics in which the runs differ. Raises ModelError as `show` does."""
    found = [runs.named(context.workspace.checkpoints, name) for name in names]
    flat = [dict(_flattened(_with_metrics(run))) for run in found]
    keys = list(dict.fromkeys(key for record in flat for key in record))
    differ = {}
    for key in keys:
        values = tuple(record.get(key) for record in flat)
        if any(value != values[0] for value in values):
            differ[key] = values
    return Compared(tuple(names), differ)


def _with_metrics(run: Run) -> dict[str, Any]:
    overview = vars(overview_of(run))
    fitted = {name: overview[name] for name in ("state", *METRICS)}
    own = {key: value for key, value in run.record.items() if key not in _ALWAYS_DIFFERENT}
    return {**own, "fitted": {**fitted, **run.record.get("fitted", {})}}


def _flattened(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
