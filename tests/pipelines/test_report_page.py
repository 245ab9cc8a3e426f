"""The page's data from real workspaces, against the data sets read another way."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import prepared
from bitstorm.core.durable_io import file_hash
from bitstorm.core.errors import DataError
from bitstorm.core.time import iso
from bitstorm.model import runs
from bitstorm.pipelines.report_page import found_of
from bitstorm.report.page import TABLE_ROWS, page_data
from bitstorm.report.summary import read_metrics
from bitstorm.store import petastorm_io, snapshots
from landed import HOUR

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def context(prepared_workspace):
    # Another grid than the one of the indicators: the page is of the latter.
    given = prepared.context(prepared_workspace, "grid.frequency=2h")
    return replace(given, origins={"grid.frequency": "--set"})


@pytest.fixture(scope="module")
def page(context):
    found, levels = found_of(context)
    page = page_data(found)
    assert json.loads(json.dumps(page, allow_nan=False)) == page
    return page, levels


@pytest.fixture(scope="module")
def indicators(context):
    """The snapshot as a frame, read by petastorm."""
    return petastorm_io.read_frame(snapshots.required(context.workspace.indicators))


def test_the_level_is_the_indicators_on_the_grid(page, indicators):
    data, (blob,) = page
    (level,) = data["series"]["levels"]
    names = [column["name"] for column in data["series"]["columns"]]
    values = np.frombuffer(base64.b64decode(blob), "<f4").reshape(len(names), level["count"])
    times = level["first_ms"] + HOUR * np.arange(level["count"])
    grid = indicators.set_index("timestamp").reindex(times)
    assert len(grid) > len(indicators)
    for name, row in zip(names, values, strict=True):
        np.testing.assert_array_equal(row, grid[name].to_numpy(np.float32))


def test_the_state_counts_holes_and_refused_rows(page):
    now = page[0]["now"]
    hours = prepared.hours()
    # Each label of the grid is its price's own time here.
    assert (now["rows"], now["expected"]) == (len(hours), hours[-1] + 1)
    assert now["missing"] == hours[-1] + 1 - len(hours)
    first, last = prepared.LONG_HOLE
    assert now["gaps"][0] == {
        "from": iso(prepared.FIRST_MS + (first - 1) * HOUR),
        "until": iso(prepared.FIRST_MS + (last - 1) * HOUR),
        "slots": last - first,
        "state": "unreachable",
    }
    assert (now["refused_rows"], now["refused_batches"], now["waiting_batches"]) == (1, 0, 0)
    price = np.float32(prepared.prices()[-1])
    assert np.float32(now["price"]) == price
    day_before = np.float32(prepared.prices()[list(hours).index(hours[-1] - 24)])
    change = 100 * (float(price) / float(day_before) - 1)
    assert now["change_24h_percent"] == pytest.approx(change, rel=1e-7)


def test_the_lineage_leads_from_the_files_to_the_forecast(page, context):
    workspace, lineage = context.workspace, page[0]["lineage"]
    hashes = {path.name: file_hash(path) for path in workspace.landing.glob("*.csv")}
    assert {one["name"]: one["sha256"] for one in lineage["batches"]} == hashes
    assert lineage["batch_count"] == 2
    for name in ("prices", "indicators"):
        current = snapshots.required(workspace.root / name)
        assert lineage[name] == {
            "id": current.id,
            "digest": current.manifest.digest,
            "rows": current.manifest.rows,
            "committed": current.manifest.created_at,
        }
    run = runs.newest(workspace.checkpoints)
    assert lineage["run"]["name"] == run.name
    assert lineage["run"]["weights_sha256"] == file_hash(run.folder / "best.keras")


def test_the_fan_begins_at_the_newest_price(page, context, indicators):
    fan, metrics = page[0]["fan"], read_metrics(context.workspace.reports / "metrics.json")
    last = int(indicators["timestamp"].max())
    assert (fan["origin_ms"], len(fan["steps"])) == (last, 24)
    assert fan["past"]["timestamp"] == [last + HOUR * n for n in range(-72, 1)]
    # Nothing is imputed in the last three days.
    newest = indicators.set_index("timestamp")["price"].loc[fan["past"]["timestamp"]]
    assert fan["past"]["price"] == pytest.approx(newest.tolist(), rel=1e-6)
    # The series is too short for a forecast of its volatility.
    assert metrics["outlook"]["volatility"] == [None] * 24
    assert page[0]["volatility"]["ahead"] == []


def test_settings_name_their_origin_and_the_rest_is_absent(page):
    data = page[0]
    settings = {key: (value, origin) for key, value, origin in data["settings"]}
    assert settings["grid.frequency"] == ("2h", "--set")
    assert settings["indicators.windows"] == ("[2, 3, 24]", "default")
    assert data["backtest"] is None
    assert data["volatility"]["past"] is None
    assert (data["log"]["logged"], data["log"]["scored"]) == (24, 0)


def test_a_workspace_without_log_and_older_snapshots_has_a_page(
    prepared_workspace, workspace_copy, indicators
):
    context = prepared.context(workspace_copy(prepared_workspace))
    workspace = context.workspace
    shutil.rmtree(workspace.root / "forecasts")
    metrics = read_metrics(workspace.reports / "metrics.json")
    metrics["snapshot"] = {"prices": "00000009-000000000000", "indicators": "gone"}
    (workspace.reports / "metrics.json").write_text(json.dumps(metrics))
    data = page_data(found_of(context)[0])
    assert (data["log"], data["lineage"]["batches"]) == (None, [])
    assert data["lineage"]["batch_count"] is None
    none = {"digest": None, "rows": None, "committed": None}
    assert data["lineage"]["prices"] == {"id": "00000009-000000000000", **none}
    assert data["lineage"]["forecast"] == {"id": None, **none}
    frame = pd.DataFrame(data["table"]["rows"], columns=data["table"]["columns"])
    newest = indicators.sort_values("timestamp").tail(TABLE_ROWS).iloc[::-1]
    assert frame["time"].tolist() == [iso(int(time)) for time in newest["timestamp"]]
    for name in ("price", "ma_24", "drawdown"):
        np.testing.assert_allclose(frame[name], newest[name], rtol=1e-8)
    (workspace.reports / "metrics.json").unlink()
    with pytest.raises(DataError, match=r"there is no metrics\.json .* `bitstorm forecast` first"):
        found_of(context)
