"""Workspaces and batches for benchmarks, as the collector leaves them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.context import Context
from bitstorm.core.config import load
from bitstorm.core.console import Console
from bitstorm.core.workspace import open_workspace

if TYPE_CHECKING:
    import pandas as pd

MEMORY = "4g"
MINUTE_MS = 60_000
START_MS = 1_356_998_400_000  # 2013-01-01
DAY = 1_440


def context(root: Path, *overrides: str) -> Context:
    """A command's context on the workspace `root`, silent."""
    settings = load(overrides=[f"spark.driver_memory={MEMORY}", *overrides]).settings
    return Context(open_workspace(str(root)), settings, Console(quiet=True))


def land(folder: Path, frame: pd.DataFrame, name: str, step_ms: int = MINUTE_MS) -> None:
    """A batch of rows at this distance with its sidecar."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bitcoin_prices_{name}.csv"
    frame.to_csv(path, index=False)
    sidecar = {
        "rows": len(frame),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": "simulated:7",
        "coin": "bitcoin",
        "vs_currency": "usd",
        "granularity_ms": step_ms,
        "first_ms": int(frame["timestamp"].iloc[0]),
        "last_ms": int(frame["timestamp"].iloc[-1]),
        "fetched_at": int(frame["timestamp"].iloc[-1]),
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(sidecar))
