"""Where a training stands: its epochs so far, which is the best, and whether it goes on.

Early stopping and the keeping of the best are these few numbers, and not callbacks of Keras': they
serve every backend, and are saved with a checkpoint.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """A whole epoch; losses are mean squared errors of the scaled target over its windows."""

    epoch: int
    loss: float
    val_loss: float
    seconds: float
    # Of these seconds, what was spent waiting for the next batch.
    waited: float

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.val_loss)


@dataclass(frozen=True)
class Standing:
    """`best_epoch` counts from 1; it is 0, and its loss infinite, before the first epoch."""

    history: tuple[Epoch, ...] = ()
    best_epoch: int = 0
    best_loss: float = math.inf

    @property
    def epochs(self) -> int:
        return len(self.history)

    @property
    def wait(self) -> int:
        """Epochs since the best one."""
        return self.epochs - self.best_epoch

    @property
    def seconds(self) -> float:
        return sum(epoch.seconds for epoch in self.history)

    @property
    def waited(self) -> float:
        return sum(epoch.waited for epoch in self.history)

    def after(self, epoch: Epoch) -> Standing:
        history = (*self.history, epoch)
        if epoch.finite and epoch.val_loss < self.best_loss:
            return Standing(history, epoch.epoch, epoch.val_loss)
        return replace(self, history=history)

    def on_other_data(self) -> Standing:
        """As far, but no loss so far counts: the next epoch is the best one."""
        return replace(self, best_epoch=self.epochs, best_loss=math.inf)

    def goes_on(self, *, epochs: int, patience: int) -> bool:
        """Whether another epoch is due: none after one whose loss is not a finite number."""
        if self.history and not self.history[-1].finite:
            return False
        return self.epochs < epochs and (self.best_epoch == 0 or self.wait < patience)

    def to_json(self) -> dict[str, Any]:
        return {
            "epoch": self.epochs,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "wait": self.wait,
            "history": [asdict(epoch) for epoch in self.history],
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Standing:
        history = tuple(Epoch(**epoch) for epoch in record["history"])
        return cls(history, record["best_epoch"], record["best_loss"])

    def to_csv(self) -> str:
        """`history.csv`: one row an epoch."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([field.name for field in fields(Epoch)])
        writer.writerows(list(asdict(epoch).values()) for epoch in self.history)
        return text.getvalue()
