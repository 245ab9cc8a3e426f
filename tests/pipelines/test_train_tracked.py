"""Trainings with MLFLOW_TRACKING_URI: what the store holds, and that its failure harms nothing."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import prepared
from bitstorm.backtest import tracking
from bitstorm.core.console import Console
from bitstorm.model import runs
from bitstorm.pipelines.train import train

pytestmark = pytest.mark.slow


def test_a_training_is_tracked_with_its_data_set(
    spark_session, indicators_workspace: Path, workspace_copy: Callable[[Path], Path], monkeypatch
):
    from mlflow import MlflowClient

    root = workspace_copy(indicators_workspace)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv(tracking.URI, str(root / "mlflow"))
    name = train(prepared.context(root)).run

    client = MlflowClient(tracking_uri=str(root / "mlflow"))
    (run,) = client.search_runs([client.get_experiment_by_name("bitstorm").experiment_id])
    record = runs.newest(root / "checkpoints").record
    assert run.info.run_name == record["run"] == name
    assert {key: run.data.params[key] for key in ("units", "batch_size", "features")} == {
        "units": "8",
        "batch_size": "64",
        "features": "log_return",
    }
    assert run.data.metrics["best_validation_loss"] == record["fitted"]["best_validation_loss"]
    with (root / "checkpoints" / name / "history.csv").open() as stream:
        losses = [float(row["val_loss"]) for row in csv.DictReader(stream)]
    history = sorted(client.get_metric_history(run.info.run_id, "val_loss"), key=lambda m: m.step)
    assert [metric.value for metric in history] == losses
    (used,) = run.inputs.dataset_inputs
    assert json.loads(used.dataset.profile) == {"sha256": record["indicators_digest"]}
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {"run.json", "history.csv", "best.keras"}


def test_a_broken_server_does_not_fail_the_training(
    spark_session,
    indicators_workspace: Path,
    workspace_copy: Callable[[Path], Path],
    monkeypatch,
    capfd,
):
    root = workspace_copy(indicators_workspace)
    monkeypatch.setenv(tracking.URI, "http://me:s3cret@127.0.0.1:9")
    log = root / "log.txt"
    context = replace(prepared.context(root), console=Console(quiet=True, log_file=log))
    assert runs.newest(root / "checkpoints", name=train(context).run).state == runs.FINISHED
    assert "not tracked, or not completely: MLflow failed" in log.read_text()
    assert "s3cret" not in log.read_text() + "".join(capfd.readouterr())
