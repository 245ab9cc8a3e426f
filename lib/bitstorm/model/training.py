"""Fitting the network, epoch by epoch, with the best weights kept."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitstorm.errors import ModelError
from bitstorm.model.windows import Feed
from bitstorm.quiet import third_party_warnings_hushed

AUTO_BATCH_SIZE = 256
HISTORY = ("epoch", "loss", "val_loss", "seconds")


@dataclass(frozen=True)
class Fitted:
    """`best_epoch` counts from 1; losses are mean squared errors of the scaled target."""

    epochs: int
    best_epoch: int
    best_validation_loss: float
    seconds: float


def fit(
    network: Any,
    *,
    train: Feed,
    validation: Feed,
    epochs: int,
    patience: int,
    batch_size: int,
    seed: int,
    folder: Path,
    progress: Callable[[str], None],
) -> Fitted:
    """Train with early stopping; write `best.keras` and `history.csv` into the folder.

    An epoch whose loss is not a finite number is the last one; the best before it counts. Raises
    ModelError when there is none before it.
    """
    import keras
    import tensorflow as tf

    history: list[tuple[int, float, float, float]] = []

    class Epochs(keras.callbacks.Callback):
        """One row of history and one line of progress an epoch."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seconds = time.monotonic() - self.began
            row = (epoch + 1, float(logs["loss"]), float(logs["val_loss"]), round(seconds, 3))
            history.append(row)
            _write_history(folder / "history.csv", history)
            if not (math.isfinite(row[1]) and math.isfinite(row[2])):
                self.model.stop_training = True
            rate = len(train) / seconds
            progress(
                f"epoch {row[0]}/{epochs}  loss {row[1]:.4f}  validation {row[2]:.4f}  "
                f"{rate:,.0f} windows/s"
            )

    began = time.monotonic()
    try:
        with third_party_warnings_hushed():
            network.fit(
                train.dataset(batch_size=batch_size, shuffle_seed=seed),
                validation_data=validation.dataset(batch_size=batch_size),
                epochs=epochs,
                verbose=0,
                callbacks=[
                    keras.callbacks.ModelCheckpoint(
                        folder / "best.keras", monitor="val_loss", save_best_only=True
                    ),
                    keras.callbacks.EarlyStopping(monitor="val_loss", patience=patience),
                    Epochs(),
                ],
            )
    except tf.errors.OpError as error:
        # What fails in the feed comes out of TensorFlow as a line of a long text.
        lines = error.message.strip().splitlines()
        reason = next((line for line in reversed(lines) if "Error: " in line), lines[0])
        raise ModelError(
            f"the training broke off ({reason.split('Error: ')[-1].strip()}): train again"
        ) from error
    finite = [row for row in history if math.isfinite(row[2])]
    if not finite or not (folder / "best.keras").exists():
        raise ModelError(
            "the training loss is not a finite number; expected it to fall: "
            "lower training.learning_rate or look at the data with `bitstorm report`"
        )
    best = min(finite, key=lambda row: row[2])
    return Fitted(len(history), best[0], best[2], time.monotonic() - began)


def _write_history(path: Path, rows: list[tuple[int, float, float, float]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(HISTORY)
        writer.writerows(rows)
