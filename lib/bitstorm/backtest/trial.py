"""One trial of a study in a Spark task: train, and score the validation part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bitstorm.backtest.fold import Work, train_network
from bitstorm.backtest.folds import Fold
from bitstorm.backtest.space import Values, with_values
from bitstorm.core.errors import DataError
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.evaluation import comparison
from bitstorm.model import backend, forecast, windowing
from bitstorm.model.scaling import Scaler
from bitstorm.model.training import Progress
from bitstorm.model.windowing import Windows

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


class Pruned(Exception):
    """Ends the training of a trial that does not keep up."""


@dataclass
class Pruner:
    """Optuna's median pruner for a task, which cannot ask the study: it knows the trials that were
    `complete` before the task began. It judges from the epoch `warm_up` on."""

    complete: list[FrozenTrial]
    warm_up: int
    losses: list[float] = field(default_factory=list)

    def follow(self, at: Progress) -> None:
        """Note the validation loss at the end of an epoch. Raises Pruned where it is not finite,
        and where, before the last epoch, the best loss so far is above the median of the complete
        trials at this epoch."""
        if at.val_loss is None:
            return
        if not math.isfinite(at.val_loss):
            raise Pruned
        self.losses.append(at.val_loss)
        if at.epoch < at.epochs and self._is_behind():
            raise Pruned

    def _is_behind(self) -> bool:
        if not self.complete:
            return False
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        pruner = optuna.pruners.MedianPruner(n_warmup_steps=self.warm_up)
        study = optuna.create_study(pruner=pruner)
        study.add_trials(self.complete)
        trial = study.ask()
        for epoch, loss in enumerate(self.losses, start=1):
            trial.report(loss, epoch)
        return bool(trial.should_prune())


def run_trial(
    work: Work, fold: Fold, values: Values, pruner: Pruner | None
) -> tuple[dict[str, Any], bytes]:
    """The record of a trial with these values, and no bytes; with one thread from now on.

    The record has `losses`, the validation loss of each epoch (mean squared error of the scaled
    target), and `pruned`. Of a trial that was not pruned it has `loss`, the best of them, and
    `validation_skill`. Without a `pruner` the trial is judged: it ends by `training.patience`
    alone, and the record also has `test_skill`. Only then is a test window read. Raises DataError
    and ModelError as `train_network`.
    """
    hush_loggers()
    backend.use_one_thread(work.training.backend)
    spec = replace(work.stored.spec, look_back=int(values["look_back"]))
    work = replace(
        work, stored=replace(work.stored, spec=spec), training=with_values(work.training, values)
    )
    follower = pruner or Pruner([], 0)
    with without_third_party_warnings():
        try:
            network, scaler, _ = train_network(work, fold, follower.follow)
        except Pruned:
            return {"losses": follower.losses, "pruned": True}, b""
        parts = {"validation": (fold.train_until, fold.validate_until)}
        if pruner is None:
            parts["test"] = (fold.validate_until, work.last)
        skills = {
            f"{part}_skill": _skill(work, network, scaler, after + 1, until)
            for part, (after, until) in parts.items()
        }
    losses = follower.losses
    return {"losses": losses, "pruned": False, "loss": min(losses), **skills}, b""


def _skill(work: Work, network: Any, scaler: Scaler, first: int, last: int) -> float:
    """1 - MSE / MSE of persistence, of log returns, over the windows whose targets have a grid
    index in [`first`, `last`]."""
    spec = work.stored.spec

    def groups() -> Iterator[Windows]:
        for columns in work.stored.columns():
            which = windowing.complete_windows(spec, columns, first=first, last=last)
            if which.any():
                yield windowing.to_windows(spec, columns, scaler, which)

    frame = forecast.predict(
        network, groups(), look_back=spec.look_back, scaler=scaler, target=spec.target
    )
    if frame.empty:
        raise DataError(
            f"found no window with a target in the grid indexes {first} to {last}, expected some: "
            "collect more, or lower training.look_back"
        )
    actual, origin = frame["actual"].to_numpy(), frame["origin"].to_numpy()
    ours, theirs = (
        comparison.errors(forecast=made, actual=actual, origin=origin).rmse_log_return
        for made in (frame["forecast"].to_numpy(), origin)
    )
    return comparison.skill_score(ours, theirs)
