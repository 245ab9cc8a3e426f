"""Tracking in MLflow: what a store holds afterwards, and that its failures are only warnings."""

from __future__ import annotations

import base64
import json
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis.strategies import sampled_from, text

from bitstorm.backtest import tracking
from bitstorm.backtest.tracking import DataSet, Part, track, track_parts, without_password

DIGEST = "0123456789abcdef" * 4


@dataclass
class Tracked:
    """Calls `track` on a data set in `folder`, and keeps its warnings."""

    folder: Path
    warnings: list[str] = field(default_factory=list)

    def __call__(self, kind: Any, name: str, **changes: Any) -> str | None:
        given: dict[str, Any] = {
            "params": {"units": 8, "features": "log_return"},
            "metrics": {"best_epoch": 2, "loss": [0.9, 0.5]},
            "dataset": DataSet("indicators", DIGEST, self.folder),
            "warn": self.warnings.append,
        }
        return track(kind, name, **{**given, **changes})


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracked:
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return Tracked(tmp_path)


@pytest.mark.parametrize("uri", [None, ""])
def test_without_the_variable_nothing_is_imported(tracked, monkeypatch, uri):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # an import would fail
    monkeypatch.delenv(tracking.URI, raising=False)
    if uri is not None:
        monkeypatch.setenv(tracking.URI, uri)
    assert tracked("run", "a") is None
    assert tracked.warnings == []


def test_a_missing_mlflow_is_one_warning(tracked, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setenv(tracking.URI, "http://127.0.0.1:9")
    assert tracked("run", "a") is None
    assert tracked.warnings == [
        "run a is not tracked, or not completely: MLFLOW_TRACKING_URI is set, but MLflow is not "
        "installed: run pip install 'bitstorm[mlflow]', or unset the variable"
    ]


@pytest.mark.parametrize(
    ("text", "uri", "expected"),
    [
        ("POST http://me:pass@host:5000/api failed", "x", "POST http://***@host:5000/api failed"),
        (
            "https://token@host, https://b:p@ss/w@host/x",
            "x",
            "https://***@host, https://***@host/x",
        ),
        ("http://host/a failed for me@here", "http://host/a", "http://host/a failed for me@here"),
        ("no scheme in 'me:pass@host'", "me:pass@host", "no scheme in '***@host'"),
        ("user me:pass refused", "http://me:pass@host", "user *** refused"),
    ],
)
def test_no_password_is_left_in_a_text(text, uri, expected):
    assert without_password(text, uri) == expected


@given(secret=text("abcXYZ019:@/%.", min_size=4), scheme=sampled_from(["http://", "s+x://", ""]))
def test_no_part_of_any_secret_is_left(secret, scheme):
    uri = f"{scheme}{secret}@host"
    for said in (uri, f"POST {uri}/api refused", f"no user {secret}!"):
        assert secret not in without_password(said, uri)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["{}", "file://{}", "sqlite:///{}.db"])
def test_a_local_store_holds_what_was_tracked(tracked, tmp_path, monkeypatch, form):
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    uri = form.format(tmp_path / "store")
    monkeypatch.setenv(tracking.URI, uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    file = tmp_path / "history.csv"
    file.write_text("epoch,loss\n0,0.9\n")
    many = {f"p{n}": n for n in range(250)}
    parent = tracked("run", "whole", artifacts=[file])
    fold = tracked("fold", "first", parent=parent, params=many, metrics={"x": [0.5] * 130})
    assert tracked.warnings == []

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri=uri)
    assert client.get_experiment_by_name("mine") is not None
    run = client.get_run(parent)
    assert (run.info.run_name, run.info.status) == ("whole", "FINISHED")
    assert run.data.params == {"units": "8", "features": "log_return"}
    assert run.data.metrics == {"best_epoch": 2, "loss": 0.5}
    losses = client.get_metric_history(parent, "loss")
    assert [(metric.step, metric.value) for metric in losses] == [(1, 0.9), (2, 0.5)]
    assert run.data.tags["bitstorm.kind"] == "run"
    assert run.data.tags["bitstorm.indicators_digest"] == DIGEST
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("indicators", DIGEST[:36])
    assert json.loads(used.dataset.source) == {"uri": tmp_path.as_uri()}
    assert json.loads(used.dataset.profile) == {"sha256": DIGEST}
    assert [found.path for found in client.list_artifacts(parent)] == ["history.csv"]
    child = client.get_run(fold)
    assert child.data.tags["mlflow.parentRunId"] == parent
    assert child.data.params == {name: str(n) for name, n in many.items()}
    assert len(client.get_metric_history(fold, "x")) == 130


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "of"), [("backtest", "fold"), ("study", "trial")])
def test_parts_belong_to_their_whole(tmp_path, monkeypatch, kind, of):
    from mlflow import MlflowClient

    monkeypatch.setenv(tracking.URI, str(tmp_path / "store"))
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    snapshot = SimpleNamespace(manifest=SimpleNamespace(digest=DIGEST), folder=tmp_path)
    parts = [
        Part("first", {"units": 8}, {"skill": 0.25, "loss": None}),
        Part("second", {"units": 9}, {"skill": -0.5, "loss": 1.5}),
    ]
    warnings: list[str] = []
    track_parts(
        kind, "whole", parts, params={"seed": 1}, metrics={"skill": 0.125},
        snapshot=cast(Any, snapshot), warn=warnings.append,
    )  # fmt: skip
    assert warnings == []
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(tracking_uri=str(tmp_path / "store"))
    found = {
        run.info.run_name: run
        for run in client.search_runs([client.get_experiment_by_name("bitstorm").experiment_id])
    }
    whole = found.pop("whole")
    assert (whole.data.tags["bitstorm.kind"], whole.data.metrics) == (kind, {"skill": 0.125})
    assert {name: run.data.metrics for name, run in found.items()} == {
        "first": {"skill": 0.25},
        "second": {"skill": -0.5, "loss": 1.5},
    }
    for run in found.values():
        assert run.data.tags["mlflow.parentRunId"] == whole.info.run_id
        assert run.data.tags["bitstorm.kind"] == of


# MLflow's own server is not in mlflow-skinny: this one answers as its REST API does.
REPLIES = {
    "experiments/get-by-name": {"experiment": {"experiment_id": "7", "name": "bitstorm"}},
    "runs/create": {"run": {"info": {"run_id": "r1", "run_uuid": "r1"}, "data": {}}},
}


@dataclass
class Server:
    """A double of the API on loopback; `status` is that of its answers."""

    status: int = 200
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(None)

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        do_PATCH = do_POST

        def answer(self, body: Any) -> None:
            path = self.path.partition("?")[0].removeprefix("/api/2.0/mlflow/")
            found.requests.append((path, self.headers.get("Authorization", ""), body))
            content = json.dumps(REPLIES.get(path, {})).encode()
            self.send_response(found.status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *values: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        found.url = f"http://me:s3cret@127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, args=(0.02,))
        thread.start()
        yield found
        http.shutdown()
        thread.join()


@pytest.mark.slow
def test_a_server_gets_the_run_and_its_data_set(tracked, monkeypatch, server):
    monkeypatch.setenv(tracking.URI, server.url)
    assert tracked("trial", "t1", parent="p") == "r1"
    assert tracked.warnings == []
    sent = {path: body for path, _, body in server.requests}
    assert sent["runs/create"]["experiment_id"] == "7"
    tags = {tag["key"]: tag["value"] for tag in sent["runs/create"]["tags"]}
    assert (tags["bitstorm.kind"], tags["mlflow.parentRunId"]) == ("trial", "p")
    assert {m["key"] for m in sent["runs/log-batch"]["metrics"]} == {"best_epoch", "loss"}
    (used,) = sent["runs/log-inputs"]["datasets"]
    assert used["dataset"]["digest"] == DIGEST[:36]
    assert sent["runs/update"]["status"] == "FINISHED"
    basic = "Basic " + base64.b64encode(b"me:s3cret").decode()
    assert {authorization for _, authorization, _ in server.requests} == {basic}


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_refusal_is_a_warning_without_the_password(tracked, monkeypatch, server, capfd, status):
    monkeypatch.setenv(tracking.URI, server.url)
    server.status = status
    assert tracked("run", "a") is None
    (warning,) = tracked.warnings
    assert warning.startswith("run a is not tracked, or not completely: MLflow failed (")
    assert warning.endswith("): check MLFLOW_TRACKING_URI")
    shown = "".join(capfd.readouterr())
    assert "s3cret" not in warning + shown


@pytest.mark.slow
@pytest.mark.parametrize("uri", ["http://me:s3cret@127.0.0.1:9", "what://me:s3cret@x", "/proc/no"])
def test_an_unusable_place_is_a_warning(tracked, monkeypatch, capfd, uri):
    monkeypatch.setenv(tracking.URI, uri)
    assert tracked("run", "a") is None
    (warning,) = tracked.warnings
    assert "s3cret" not in warning + "".join(capfd.readouterr())
