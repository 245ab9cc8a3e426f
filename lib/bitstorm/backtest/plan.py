"""A back-test before it begins: its folds, its models and its folder; refusals without Spark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitstorm.backtest import files
from bitstorm.backtest.fold import Work, default_baselines, known_baselines
from bitstorm.backtest.folds import Fold, embargo_of, make_folds
from bitstorm.backtest.scores import PERSISTENCE
from bitstorm.context import Context
from bitstorm.core.errors import UsageError
from bitstorm.core.settings import Settings
from bitstorm.core.time import iso, now_ms
from bitstorm.evaluation import baselines_extra
from bitstorm.evaluation.baselines_extra import EXTRA_BASELINES
from bitstorm.model import backend, blocks, runs, training_data
from bitstorm.model.dataset import StoredBlocks
from bitstorm.model.training_run import LIBRARIES
from bitstorm.model.windowing import WindowSpec
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot

# Raise it when the same settings and data give other numbers than before.
METHOD = 1


@dataclass(frozen=True)
class Plan:
    """The series has the grid indexes `first` to `last`. All numbers follow from the `recipe`."""

    snapshot: Snapshot
    spec: WindowSpec
    first: int
    last: int
    folds: list[Fold]
    baselines: tuple[str, ...]
    recipe: Mapping[str, Any]
    folder: Path

    def work(self, stored: StoredBlocks, settings: Settings) -> Work:
        """What all its folds share."""
        backtest, steps = settings.backtest, settings.forecast.steps
        return Work(
            stored, self.first, self.last, settings.training, self.baselines, steps,
            backtest.volatility, backtest.in_process,
        )  # fmt: skip

    @property
    def loads_tensorflow(self) -> bool:
        """Whether folds in this process need it; a task loads what it needs by itself."""
        training, backtest = self.recipe["training"], self.recipe["backtest"]
        needed: bool = backtest["volatility"] or training["backend"] == "tensorflow"
        return needed and bool(backtest["in_process"])

    def record(self, *, state: str, fits: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """What `backtest.json` holds; `fits` are the records of the folds' fits, where all are
        done. The times of the folds' parts are in ms UTC."""
        folds = [
            {"number": fold.number, **fold.times_ms(self.spec.step_ms), **fit}
            for fold, fit in zip(self.folds, fits or [{}] * len(self.folds), strict=True)
        ]
        return {
            "written_at": iso(now_ms()),
            "state": state,
            "indicators": self.snapshot.id,
            "prices": self.snapshot.manifest.details["prices"],
            **self.recipe,
            "folds": folds,
            "code": runs.code(),
        }


def make_plan(context: Context) -> Plan:
    """Raises SnapshotMissing, UsageError where settings contradict each other, DataError where the
    indicators cannot serve them, and ModelError where the backend is not installed."""
    settings, training = context.settings, context.settings.training
    steps = settings.forecast.steps
    if training.horizon > steps:
        raise UsageError(
            f"training.horizon is {training.horizon} and forecast.steps {steps}, so the network "
            f"forecasts none of the steps: set forecast.steps to at least {training.horizon}"
        )
    backend.require(training.backend, reason=f"training.backend is {training.backend}")
    snapshot = snapshots.required(context.workspace.indicators, snapshot=context.snapshot)
    snapshots.check_content(snapshot)
    features = training.features or training_data.DEFAULT_FEATURES[training.target]
    training_data.check_features(features, snapshot)
    spec = blocks.spec_of(snapshot, training, features)
    names = _baselines(settings, spec)
    first_ms, last_ms = blocks.span_of(snapshot)
    first, last = first_ms // spec.step_ms, last_ms // spec.step_ms
    # A fold's first window has all its returns inside the fold.
    warm_up = max(
        training_data.points_needed(snapshot, features, training),
        training.look_back + training.horizon,
    )
    folds = make_folds(first, last, settings.backtest, training, steps=steps, warm_up=warm_up)
    blocks.check_points(snapshot, features, _parts(folds[0], spec))
    recipe = {
        "method": METHOD,
        "indicators_digest": snapshot.manifest.digest,
        "frequency": snapshot.manifest.details["frequency"],
        "features": list(features),
        "baselines": list(names),
        "steps": steps,
        "training": training.model_dump(exclude={"workers"}),
        "backtest": settings.backtest.model_dump(exclude={"baselines"})
        | {"embargo": embargo_of(settings.backtest, training, steps=steps)},
        "folds": [asdict(fold) for fold in folds],
        "versions": runs.versions(*LIBRARIES[training.backend], "numpy"),
    }
    folder = files.folder_of(context.workspace.backtests, recipe, last_ms=last_ms)
    return Plan(snapshot, spec, first, last, folds, names, recipe, folder)


def _baselines(settings: Settings, spec: WindowSpec) -> tuple[str, ...]:
    """The names, persistence first: the skill of all others is measured against it."""
    known = known_baselines(spec.step_ms)
    unknown = [name for name in settings.backtest.baselines if name not in known]
    if unknown:
        raise UsageError(
            f"backtest.baselines names {', '.join(unknown)}, expected some of {', '.join(known)}"
        )
    wanted = settings.backtest.baselines or list(default_baselines(spec.step_ms))
    for name in EXTRA_BASELINES.keys() & {*wanted}:
        baselines_extra.require(name)
    return (PERSISTENCE, *dict.fromkeys(name for name in wanted if name != PERSISTENCE))


def _parts(fold: Fold, spec: WindowSpec) -> blocks.Spans:
    """(after, until] of the fold's parts, ms UTC; its test part and all later ones are one."""
    return {
        "training": (None, fold.train_until * spec.step_ms),
        "validation": (fold.train_until * spec.step_ms, fold.validate_until * spec.step_ms),
        "test": ((fold.test_from - 1) * spec.step_ms, None),
    }
