"""The workspaces that tests share hold what prepared.py says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import prepared
from bitstorm.pipelines.forecast import forecast
from bitstorm.pipelines.history import verify
from bitstorm.store import snapshots
from landed import HOUR

pytestmark = pytest.mark.slow


def test_the_prices_are_those_of_the_batches(ingested_workspace: Path) -> None:
    found = pd.read_parquet(snapshots.required(ingested_workspace / "prices").folder)
    assert found["timestamp"].tolist() == (prepared.FIRST_MS + prepared.hours() * HOUR).tolist()
    assert found["price"].tolist() == prepared.prices().astype(np.float32).tolist()


def test_a_copy_verifies_and_forecasts_the_same(
    prepared_workspace: Path, workspace_copy: Callable[[Path], Path]
) -> None:
    context = prepared.context(workspace_copy(prepared_workspace))
    assert set(verify(context)) == {"prices", "indicators", "forecasts"}
    points = pd.read_parquet(snapshots.required(context.workspace.indicators).folder)
    assert len(points) == prepared.HOURS - 9  # the cut
    assert points["imputed"].sum() == 2  # the short hole
    before = (context.workspace.reports / "forecast.csv").read_bytes()
    forecast(context)
    assert (context.workspace.reports / "forecast.csv").read_bytes() == before
    metrics = json.loads((context.workspace.reports / "metrics.json").read_text())
    assert (metrics["span"]["rows"], metrics["span"]["cuts"]) == (len(prepared.hours()), 1)


def test_no_file_of_the_shared_workspace_names_its_place(prepared_workspace: Path) -> None:
    place = str(prepared_workspace).encode()
    files = [path for path in prepared_workspace.rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix != ".log" and place in path.read_bytes()] == []
