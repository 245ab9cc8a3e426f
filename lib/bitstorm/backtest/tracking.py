"""Sends finished runs, folds and trials to MLflow, where `MLFLOW_TRACKING_URI` names a place.

Without that variable MLflow is not even imported. A failure of MLflow is a warning: the result is
on disk already.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bitstorm.core.errors import first_line
from bitstorm.model import runs
from bitstorm.model.runs import Run
from bitstorm.store.snapshots import Snapshot

URI = "MLFLOW_TRACKING_URI"
EXPERIMENT = "bitstorm"
# MLflow's limits: of a data set's digest, and of the values in a request.
_DIGEST_LENGTH = 36
_PER_REQUEST = 100
_DEFAULTS = {
    # Without it MLflow refuses folders, which it keeps in maintenance only.
    "MLFLOW_ALLOW_FILE_STORE": "true",
    # MLflow's own defaults wait for minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@dataclass(frozen=True)
class DataSet:
    """The data behind the metrics: its name, the SHA-256 of its content, and its folder."""

    name: str
    digest: str
    source: Path


def track_run(run: Run, snapshot: Snapshot, *, warn: Callable[[str], None]) -> None:
    """Track a finished training run on this snapshot, with its files; see `track`."""
    if not os.environ.get(URI):
        return
    record = run.record
    resolved = {key: record[key] for key in ("batch_size", "learning_rate", "frequency")}
    with (run.folder / runs.HISTORY).open(newline="") as stream:
        epochs = list(csv.DictReader(stream))
    track(
        "run",
        run.name,
        params={**record["settings"], **resolved, "features": ", ".join(record["features"])},
        metrics={
            **record["fitted"],
            **{name: [float(row[name]) for row in epochs] for name in ("loss", "val_loss")},
        },
        dataset=DataSet("indicators", record["indicators_digest"], snapshot.folder),
        warn=warn,
        artifacts=[run.folder / name for name in (runs.RECORD, *record["files"])],
    )


@dataclass(frozen=True)
class Part:
    """A fold of a back-test, or a trial of a study; a metric that is None is left out."""

    name: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float | None]


def track_parts(
    kind: Literal["backtest", "study"],
    name: str,
    parts: Sequence[Part],
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | None],
    snapshot: Snapshot,
    warn: Callable[[str], None],
) -> None:
    """Track a back-test with its folds, or a study with its trials; see `track`. After a failure of
    the whole its parts are not tried."""
    if not os.environ.get(URI):
        return
    dataset = DataSet("indicators", snapshot.manifest.digest, snapshot.folder)
    parent = track(kind, name, params=params, metrics=_known(metrics), dataset=dataset, warn=warn)
    if parent is None:
        return
    of: Literal["fold", "trial"] = "fold" if kind == "backtest" else "trial"
    for part in parts:
        values = _known(part.metrics)
        track(
            of, part.name, params=part.params, metrics=values, dataset=dataset, warn=warn,
            parent=parent,
        )  # fmt: skip


def _known(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if value is not None}


def track(
    kind: Literal["run", "backtest", "fold", "study", "trial"],
    name: str,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | Sequence[float]],
    dataset: DataSet,
    warn: Callable[[str], None],
    parent: str | None = None,
    artifacts: Sequence[Path] = (),
) -> str | None:
    """Write a finished piece of work to MLflow; MLflow's ID of it, None where it is not there.

    A sequence in `metrics` is one value a step, from step 1. `parent` is the ID of the run or study
    that this is a part of. `warn` gets a sentence, without passwords, where MLflow fails or is not
    installed. The experiment is `MLFLOW_EXPERIMENT_NAME`, by default `bitstorm`."""
    uri = os.environ.get(URI)
    if not uri:
        return None
    with _quiet_mlflow():
        try:
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=uri)
            tags = {"bitstorm.kind": kind, f"bitstorm.{dataset.name}_digest": dataset.digest}
            tags |= {} if parent is None else {"mlflow.parentRunId": parent}
            run: str = client.create_run(_experiment(client), run_name=name, tags=tags).info.run_id
            _write(client, run, params, metrics, dataset)
            client.set_terminated(run)
            for path in artifacts:
                client.log_artifact(run, str(path))
            return run
        except Exception as error:  # noqa: BLE001 - a store can raise its library's own errors
            warn(f"{kind} {name} is not tracked, or not completely: {_problem(error, uri)}")
            return None


def _problem(error: Exception, uri: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "mlflow":
        return (
            f"{URI} is set, but MLflow is not installed: run pip install 'bitstorm[mlflow]', or "
            "unset the variable"
        )
    reason = without_password(first_line(error), uri)
    return f"MLflow failed ({type(error).__name__}: {reason}): check {URI}"


def without_password(text: str, uri: str) -> str:
    """The text without user and password, those of this URI and of all URLs."""
    before = uri.rpartition("@")[0]
    secret = before.partition("//")[2] or before
    return re.sub(r"//\S*@", "//***@", text.replace(secret, "***") if secret else text)


def _experiment(client: Any) -> str:
    """The ID of the experiment, which is made where it is missing."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _write(
    client: Any,
    run: str,
    params: Mapping[str, Any],
    metrics: Mapping[str, float | Sequence[float]],
    dataset: DataSet,
) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

    now = int(time.time() * 1000)
    series = {k: v if isinstance(v, Sequence) else [v] for k, v in metrics.items()}
    values = [
        Metric(key, value, now, step)
        for key, found in series.items()
        for step, value in enumerate(found, start=1)
    ]
    texts = [Param(key, str(value)) for key, value in params.items()]
    for start in range(0, max(len(values), len(texts)), _PER_REQUEST):
        part = slice(start, start + _PER_REQUEST)
        client.log_batch(run, metrics=values[part], params=texts[part])
    entity = Dataset(
        name=dataset.name,
        digest=dataset.digest[:_DIGEST_LENGTH],
        source_type="local",
        source=json.dumps({"uri": dataset.source.as_uri()}),
        profile=json.dumps({"sha256": dataset.digest}),
    )
    tag = InputTag("mlflow.data.context", "training")
    client.log_inputs(run, [DatasetInput(entity, [tag])])


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Sets our defaults for MLflow, and silences its log and its warnings, for the block."""
    added = {name: value for name, value in _DEFAULTS.items() if name not in os.environ}
    loggers = {name: logging.getLogger(name) for name in ("mlflow", "urllib3", "alembic")}
    levels = {name: logger.level for name, logger in loggers.items()}
    os.environ |= added
    try:
        for logger in loggers.values():
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for name, logger in loggers.items():
            logger.setLevel(levels[name])
        for name in added:
            os.environ.pop(name, None)
