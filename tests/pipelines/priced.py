"""Workspaces with prices that a network can learn, and prices that nobody can."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bitstorm.context import Context
from bitstorm.core.schema import indicator_table
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.store import snapshots
from bitstorm.store.petastorm_io import unischema
from bitstorm.store.publish import Change, Draft, publish
from bitstorm.store.seal import arrow_schema
from landed import HOUR, context_of, drop

START = 1_609_459_200_000  # 2021-01-01T00:00:00Z
POINTS = 601  # 600 steps: the parts end at the steps 420 and 510
TRAIN_UNTIL, VALIDATE_UNTIL = START + 420 * HOUR, START + 510 * HOUR
SMALL = (
    "source.mode=csv",
    "indicators.windows=[2, 3]",
    "training.look_back=8",
    "training.units=8",
    "training.epochs=6",
    "training.batch_size=16",
    "training.learning_rate=0.02",
    "training.dropout=0",
)


def wave() -> np.ndarray:
    """r[t] = 2 cos(w) r[t-1] - r[t-2]: each return follows from the two before it."""
    returns = 0.01 * np.cos(2 * np.pi * np.arange(1, POINTS) / 7.3)
    return _prices(returns)


def random_walk(seed: int) -> np.ndarray:
    returns = np.random.default_rng(seed).normal(0, 0.01, POINTS - 1)
    return _prices(returns)


def _prices(returns: np.ndarray) -> np.ndarray:
    # Whole cents: what a CSV's text gives back.
    return np.round(20_000 * np.exp(np.concatenate([[0.0], np.cumsum(returns)])), 2)


def small(root: Path, *overrides: str) -> Context:
    return context_of(root, *SMALL, *overrides)


def with_prices(
    context: Context, prices: np.ndarray, *, steps: np.ndarray | None = None
) -> Context:
    """Hourly prices through a CSV batch, `ingest` and `indicators`; `steps` as in `points_of`."""
    steps = np.arange(len(prices)) if steps is None else steps
    lines = [f"{START + n * HOUR},{price:.2f}" for n, price in zip(steps, prices, strict=True)]
    name = f"from_{steps[0]}.csv"
    drop(context.workspace.landing, name, "\n".join(["timestamp,price", *lines]))
    ingest(context)
    indicators(context)
    return context


def published(context: Context, points: pd.DataFrame, *, frequency: str = "1h") -> Context:
    """An indicators snapshot of the points as they are, without Spark; other columns are null."""
    table = indicator_table([2, 3])
    columns = arrow_schema(table)
    details = {"prices": "none", "frequency": frequency, "max_gap": 6, "windows": [2, 3]}
    parent = snapshots.current(context.workspace.indicators)
    before = set() if parent is None else {file.month for file in parent.manifest.files}

    def write(draft: Draft) -> Change:
        months = pd.to_datetime(points["timestamp"], unit="ms").dt.strftime("%Y-%m")
        for month, rows in points.groupby(months):
            target = draft.folder / f"month={month}"
            target.mkdir(parents=True)
            whole = rows.reindex(columns=columns.names)
            pq.write_table(
                pa.Table.from_pandas(whole, schema=columns, preserve_index=False),
                target / "part-0.parquet",
            )
        return Change(frozenset(before | set(months)), may_lose_keys=True, details=details)

    publish(
        context.workspace.indicators,
        table=table,
        schema=unischema(table),
        parent=parent,
        operation="indicators",
        write=write,
    )
    return context


def points_of(prices: np.ndarray, *, steps: np.ndarray | None = None) -> pd.DataFrame:
    """Points of the grid at the given steps, or at each one from the start."""
    steps = np.arange(len(prices)) if steps is None else steps
    returns = np.diff(np.log(prices), prepend=np.nan)
    returns[1:][np.diff(steps) != 1] = np.nan
    return pd.DataFrame(
        {
            "timestamp": START + steps * HOUR,
            "price": prices.astype(np.float32),
            "imputed": np.zeros(len(prices), bool),
            # A null, as the indicators have it, not a NaN.
            "log_return": pd.array([None if np.isnan(r) else r for r in returns], "Float64"),
        }
    )


@dataclass(frozen=True)
class Impatient(Context):
    """Without Spark or TensorFlow, unless allowed: to show what is done or refused without them."""

    allowed: tuple[str, ...] = ()

    def spark(self, name, *, tensorflow=False):
        assert "spark" in self.allowed, "Spark was started"
        return super().spark(name)

    def load_tensorflow(self):
        assert "tensorflow" in self.allowed, "TensorFlow was loaded"
        super().load_tensorflow()


def impatient(context: Context, *allowed: str) -> Impatient:
    return Impatient(context.workspace, context.settings, context.console, None, allowed)
