"""`train`: the `indicators` data set → a training run under `checkpoints/`."""

from __future__ import annotations

from dataclasses import dataclass

from bitstorm.backtest import tracking
from bitstorm.context import Context
from bitstorm.model import training_run
from bitstorm.model.training_data import prepare


@dataclass(frozen=True)
class Trained:
    """The finished run; losses are mean squared errors of the scaled target."""

    run: str
    indicators: str
    windows: int
    validation_windows: int
    epochs: int
    best_epoch: int
    best_validation_loss: float
    seconds: float


def train(context: Context, *, resume: str | None = None, accept_snapshot: bool = False) -> Trained:
    """Fit the network on the oldest part of the indicators; the part after it ends the training.

    With `resume` continue that run after its last complete epoch, on its own snapshot, or with
    `accept_snapshot` on the context's. Raises ModelError, DataError and NothingToDo.
    """
    with (
        training_run.open_attempt(
            context, resume=resume, accept_snapshot=accept_snapshot
        ) as attempt,
        prepare(context, attempt) as ready,
    ):
        run = training_run.fit(context, attempt, ready)
    tracking.track_run(run, attempt.snapshot, warn=context.console.warn)
    record = run.record
    return Trained(
        run=run.name,
        indicators=record["indicators"],
        windows=record["windows"]["training"],
        validation_windows=record["windows"]["validation"],
        **{k: record["fitted"][k] for k in ("epochs", "best_epoch", "best_validation_loss")},
        seconds=record["fitted"]["seconds"],
    )
