"""The whole line on the simulated market: what a newcomer's first command leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bitstorm.core.workspace import open_workspace
from bitstorm.store import snapshots

pytestmark = pytest.mark.slow

BITSTORM = Path(sys.executable).with_name("bitstorm")
# Warnings that nobody filters would be among the lines of standard error.
LOUD = (sys.executable, "-W", "default")
FOREIGN = ("BITSTORM__", "SPARK_", "PYSPARK_")
PICTURES = (
    "autocorrelation", "candles", "drawdown", "forecast", "hours", "price", "returns", "test",
    "training", "volatility",
)  # fmt: skip
SMALL = ["--set", "backfill.days=40", "--set", "training.epochs=2", "--set", "training.units=8"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One run of the command in its own process, and where it ran."""
    folder = tmp_path_factory.mktemp("newcomer")
    process = subprocess.run(
        [*LOUD, BITSTORM, "run", "--json", "--workspace", "my space", "--stage-log", "log", *SMALL],
        cwd=folder,
        # Sessions of other tests in this process leave variables of Spark.
        env={k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    return process, open_workspace(str(folder / "my space"))


def test_it_ends_well_and_says_nothing_but_its_own_progress(done):
    process, _ = done
    assert process.returncode == 0, process.stderr
    stages = ["backfill", "collect", "spark", "ingest", "indicators", "train", "backtest"]
    lines = process.stderr.splitlines()
    assert lines[0].startswith("bitstorm ")
    epochs = [line for line in lines if line.startswith("    epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/2", "2/2"]
    assert [line.split()[0] for line in lines[1:] if line not in epochs] == [
        *stages, "forecast", "report",
    ]  # fmt: skip
    (line,) = [line for line in lines if line.startswith("  backtest ")]
    assert " s  2 small folds, skill " in line and "`bitstorm backtest`" in line


def test_each_stage_has_a_line_in_the_stage_log(done):
    workspace = done[1]
    prices, indicators = (
        (one.manifest.rows, one.id)
        for one in map(snapshots.required, (workspace.prices, workspace.indicators))
    )
    nothing, models = (None, None), ("train", "fold 1", "fold 2", "backtest", "forecast")
    found = [json.loads(line) for line in (workspace.root.parent / "log").open()]
    assert [(line["stage"], line["rows"], line["snapshot"]) for line in found[1:]] == [
        ("collect", 1, None), ("ingest", *prices), ("indicators", *indicators),
        *((name, *indicators) for name in models), ("report", *nothing), ("run", *nothing),
    ]  # fmt: skip
    assert found[0]["stage"] == "backfill" and found[0]["rows"] > 900
    assert {line["command"] for line in found} == {"run"}
    assert [line["exit"] for line in found] == [*[None] * (len(found) - 1), 0]
    *stages, whole = [line["seconds"] for line in found if "fold" not in line["stage"]]
    assert sum(stages) < whole


def test_standard_output_is_one_json_object_whose_rows_add_up(done):
    result = json.loads(done[0].stdout)["ingested"]
    outcomes = ("accepted", "duplicate", "superseded", "refused")
    assert result["read"] == sum(result[name] for name in outcomes) > 900
    assert result["rows"] == result["accepted"]


def test_it_leaves_data_sets_a_run_and_a_report_marked_simulated(done):
    workspace = done[1]
    for root in (workspace.prices, workspace.indicators):
        assert (snapshots.required(root).folder / "_metadata").exists()
    (record,) = workspace.checkpoints.glob("*/run.json")
    kept = {"best.keras", "history.csv", "run.json", "gate.json"}
    assert {p.name for p in record.parent.iterdir()} == kept
    reports = {path.name: path for path in workspace.reports.iterdir()}
    assert set(reports) == {
        *(f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")),
        "metrics.json",
        "forecast.csv",
        "summary.txt",
        "dashboard.html",
    }
    for name in ("summary.txt", "dashboard.html"):
        assert "SIMULATED" in reports[name].read_text()
        assert "Data provided by CoinGecko" not in reports[name].read_text()
    for name in ("price.png", "forecast.png"):
        assert reports[name].read_bytes().startswith(b"\x89PNG")


def test_the_metrics_name_the_snapshots_that_they_came_from(done):
    workspace = done[1]
    metrics = json.loads((workspace.reports / "metrics.json").read_text())
    assert metrics["snapshot"] == {
        "prices": snapshots.required(workspace.prices).id,
        "indicators": snapshots.required(workspace.indicators).id,
    }
    frame = pd.read_csv(workspace.reports / "forecast.csv")
    saved = (
        1
        - ((frame.forecast_log_return - frame.actual_log_return) ** 2).mean()
        / (frame.actual_log_return**2).mean()
    )
    assert metrics["model"]["skill"] == pytest.approx(saved, rel=1e-6, abs=1e-9)
    assert metrics["test"]["windows"] == len(frame)


def test_status_then_tells_what_is_there(done, tmp_path):
    workspace, text = done[1], tmp_path / "bitstorm.prom"
    process = subprocess.run(
        [BITSTORM, "status", "--json", "--workspace", workspace.root, "--metrics", text],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    status = json.loads(process.stdout)
    assert status["origin"] == "simulated:7, bitcoin, usd"
    assert status["prices"]["rows"] == snapshots.required(workspace.prices).manifest.rows
    assert status["waiting_batches"] == 0 and status["age_ms"] < 3_600_000
    assert status["missing"] == sum_of_missing_hours(workspace)
    assert f'bitstorm_rows{{data_set="prices"}} {status["prices"]["rows"]}.0' in text.read_text()
    assert 'bitstorm_grade{grade="informative"} ' in text.read_text()


def sum_of_missing_hours(workspace) -> int:
    frame = pd.read_parquet(snapshots.required(workspace.prices).folder, columns=["timestamp"])
    labels = pd.to_datetime(frame["timestamp"], unit="ms", utc=True).dt.ceil("h").drop_duplicates()
    return len(pd.date_range(labels.min(), labels.max(), freq="h")) - len(labels)


def test_no_private_file_is_left_over_but_the_log(done):
    cache = done[1].cache
    names = ["blocks", "landing.json", "spark.log", "staging"]
    assert sorted(p.name for p in cache.iterdir()) == names
    assert [p for name in ("blocks", "staging") for p in (cache / name).iterdir()] == []
