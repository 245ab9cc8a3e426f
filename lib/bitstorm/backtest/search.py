"""A search before it begins: its parts in time, space and folder; refusals without Spark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bitstorm.backtest import files, study
from bitstorm.backtest.fold import Work
from bitstorm.backtest.folds import Fold
from bitstorm.backtest.space import Range, search_space
from bitstorm.context import Context
from bitstorm.core.settings import Training
from bitstorm.model import backend, blocks, runs, training_data
from bitstorm.model.dataset import StoredBlocks
from bitstorm.model.training_run import LIBRARIES
from bitstorm.model.windowing import WindowSpec
from bitstorm.store import snapshots
from bitstorm.store.snapshots import Snapshot


@dataclass(frozen=True)
class Search:
    """`parts` has the training and the validation part, and the test part after them, as `train`
    has them. `training` is the section of a trial before its values. Every trial has the same
    targets: `spec` has the longest look-back of the `space`. All follows from the `recipe`."""

    snapshot: Snapshot
    spec: WindowSpec
    parts: Fold
    training: Training
    space: Mapping[str, Range]
    recipe: Mapping[str, Any]
    folder: Path

    def work(self, stored: StoredBlocks) -> Work:
        """What all trials share."""
        first, last = (ms // self.spec.step_ms for ms in blocks.span_of(self.snapshot))
        return Work(stored, first, last, self.training, (), self.training.horizon)


def make_search(context: Context) -> Search:
    """Raises SnapshotMissing, DataError where the indicators cannot serve the longest look-back of
    the space, and ModelError where the backend or Optuna is not installed."""
    settings, tune = context.settings, context.settings.tune
    study.require_optuna()
    training = settings.training.model_copy(update={"epochs": tune.epochs})
    backend.require(training.backend, reason=f"training.backend is {training.backend}")
    snapshot = snapshots.required(context.workspace.indicators, snapshot=context.snapshot)
    snapshots.check_content(snapshot)
    features = training.features or training_data.DEFAULT_FEATURES[training.target]
    training_data.check_features(features, snapshot)
    space = search_space(training)
    longest = int(space["look_back"].high)
    training_data.check_length(
        snapshot, features, training.model_copy(update={"look_back": longest})
    )
    split = training_data.split_of(snapshot, training)
    blocks.check_points(snapshot, features, training_data.spans(split))
    spec = replace(blocks.spec_of(snapshot, training, features), longest=longest)
    first, last, train_until, validate_until = (
        ms // spec.step_ms for ms in (*blocks.span_of(snapshot), *vars(split).values())
    )
    # The windows of the test part are those with a target in it.
    test = validate_until + 1 - spec.horizon, last - spec.horizon
    recipe = {
        "indicators_digest": snapshot.manifest.digest,
        "frequency": snapshot.manifest.details["frequency"],
        "features": list(features),
        "training": training.model_dump(exclude={"workers"}),
        "seed": tune.seed,
        "space": {name: asdict(one) for name, one in space.items()},
        "split": vars(split),
        "versions": runs.versions(*LIBRARIES[training.backend], "numpy", "optuna"),
    }
    folder = files.folder_of(context.workspace.tuning, recipe, last_ms=last * spec.step_ms)
    parts = Fold(0, first, train_until, validate_until, *test)
    return Search(snapshot, spec, parts, training, space, recipe, folder)
