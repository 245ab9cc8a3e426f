"""The prices and settings of the workspaces that tests share; the fixtures are in conftest.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bitstorm.context import Context
from landed import HOUR, context_of, drop

FIRST_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
HOURS = 900
# What the workspaces are made with. A test may pass others, as a user may.
SETTINGS = (
    "source.mode=csv",
    "indicators.windows=[2, 3, 24]",
    "training.look_back=8",
    "training.units=8",
    "training.epochs=2",
    "training.batch_size=64",
)
# Missing hours, by their place: two that are filled, and a cut of nine.
SHORT_HOLE = (300, 302)
LONG_HOLE = (500, 509)


def hours() -> np.ndarray:
    """The places (0 is FIRST_MS) of the hours that have a price."""
    missing = np.r_[slice(*SHORT_HOLE), slice(*LONG_HOLE)]
    return np.setdiff1d(np.arange(HOURS), missing)


def prices() -> np.ndarray:
    """A price for each of `hours()`, in whole cents."""
    returns = np.random.default_rng(15).normal(0, 0.006, HOURS)
    return np.round(42_000 * np.exp(np.cumsum(returns)), 2)[hours()]


def drop_batches(landing: Path) -> None:
    """Two batches: the second repeats the first's last row and has one without a price."""
    rows = [f"{FIRST_MS + n * HOUR},{p:.2f}" for n, p in zip(hours(), prices(), strict=True)]
    header = "timestamp,price"
    drop(landing, "first.csv", "\n".join([header, *rows[:600]]))
    no_price = f"{FIRST_MS + HOURS * HOUR},0"
    drop(landing, "second.csv", "\n".join([header, *rows[599:], no_price]))


def context(root: Path, *overrides: str) -> Context:
    """A command's context on a prepared workspace (or a new one), silent."""
    return context_of(root, *SETTINGS, *overrides)
