"""The commands in a session of a real Spark Connect server, and how a broken one reads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.cluster import connect_server

import prepared
from bitstorm.core.errors import EnvironmentProblem
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.spark import connect
from bitstorm.testing import shared_session

pytest.importorskip("grpc_status", reason="the extra `connect` is not installed")

TESTS = Path(__file__).resolve().parents[1]
TOKEN = "token=hunter2"


@pytest.mark.parametrize(
    "url",
    [
        f"http://there/;{TOKEN}",
        f"sc://there:port/;{TOKEN}",
        f"sc://there/;{TOKEN};user",
        f"sc://there/path;{TOKEN}",
        f"sc:///;{TOKEN}",
        "local[2]",
    ],
)
def test_a_wrong_address_is_one_sentence_without_its_token(url: str) -> None:
    with pytest.raises(EnvironmentProblem) as raised, connect.opened(url):
        pass
    assert str(raised.value) == (
        "SPARK_REMOTE is no address of a Spark Connect server; expected sc://HOST:PORT, and "
        "options as /;NAME=VALUE;NAME=VALUE: correct or unset it"
    )


def test_missing_packages_are_one_sentence_with_the_extra() -> None:
    program = """
import sys
from bitstorm.core.errors import EnvironmentProblem
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.spark import connect
sys.modules["grpc_status"] = None
try:
    with connect.opened("sc://there"):
        pass
except EnvironmentProblem as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == (
        "SPARK_REMOTE is set, but Spark Connect's packages are not installed: run pip install "
        "'bitstorm[connect]', or unset it\n"
    )


@pytest.mark.slow
def test_no_server_ends_the_command_in_a_sentence(tmp_path: Path) -> None:
    prepared.drop_batches(tmp_path / "landing")
    # Nothing listens on port 1.
    environ = {**os.environ, connect.VARIABLE: f"sc://127.0.0.1:1/;use_ssl=true;{TOKEN}"}
    words = ["-m", "bitstorm.cli", "ingest", "--workspace", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *words], env=environ, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("bitstorm")]
    assert "no Spark Connect server answers at sc://127.0.0.1:1 within 10 s: start it" in line
    files = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in files if "hunter2" in text]
    assert "hunter2" not in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `connect_session.py` writes."""
    base = tmp_path_factory.mktemp("connect")
    with connect_server(base / "server", memory="1g", cores=2) as server:
        words = [TESTS / "connect_session.py", base / "found.json", base, server.url, server.pid]
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=400,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads((base / "found.json").read_text()))


@pytest.fixture(scope="module")
def classic(
    prepared_workspace: Path, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> dict[str, Any]:
    from connect_session import results

    copy = tmp_path_factory.mktemp("classic") / "copy"
    shutil.copytree(prepared_workspace, copy)
    shared_session(pytestconfig)
    with without_third_party_warnings():
        return dict(json.loads(json.dumps(results(prepared.context(copy)))))


@pytest.mark.slow
def test_each_command_gives_a_classic_sessions_digest(found, classic) -> None:
    remote = dict(found["session"])
    assert {name: remote[name] for name in classic} == classic


@pytest.mark.slow
def test_folds_and_trials_run_on_the_servers_cores(found) -> None:
    assert found["session"]["slots"] == 2
    assert found["session"]["jobs"] == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.slow
def test_where_caching_is_refused_parquet_files_serve(found, classic) -> None:
    assert found["cacheless"] == {
        "merged": classic["prices"],
        "passed": True,
        "rows": 600,
        "left": [],
        # Of the checked lines twice, of the merge, the look-ahead and the retraction.
        "refused": 7,
    }


@pytest.mark.slow
def test_a_broken_session_is_one_sentence(found) -> None:
    broken = found["broken"]
    ignored = "ignored: spark.executor.cores, spark.driver_memory; set where the Spark Connect "
    other, url = broken.pop("other")
    assert other == [
        f"EnvironmentProblem: found Spark 3.5.1 at {url}, expected 4.0.x: use a server of that "
        "version"
    ]
    assert {lines[0] for lines in broken.values()} == {f"{ignored}server starts"}
    # An error of our own stays one, with its traceback.
    assert broken.pop("query")[1].startswith("AnalysisException: [UNRESOLVED_COLUMN.")
    after = "Completed work is kept:"
    unwritable = broken.pop("unwritable")[1]
    assert unwritable.startswith("SparkFailure: Spark failed: java.io.IOException: Mkdirs failed")
    assert f"{after} choose a --workspace that the server sees" in unwritable
    assert {name: lines[1:] for name, lines in broken.items()} == {
        "unseen": [
            "SparkFailure: Spark failed: [PATH_NOT_FOUND] Path does not exist: file:/nowhere. "
            f"SQLSTATE: 42K03. {after} choose a --workspace that the server sees under the same "
            "path, and run the command again"
        ],
        "task": [
            "SparkFailure: a Python task of Spark failed: ZeroDivisionError: division by zero. "
            f"{after} fix the cause, and run the command again"
        ],
        "killed": [
            "SparkFailure: Spark failed: the Spark Connect server gives no answer. "
            f"{after} start it again, and run the command again"
        ],
    }
