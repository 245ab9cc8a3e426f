"""`doctor`: each fault of a machine is in its line, with what to do, and decides the exit code."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import bitstorm
from bitstorm.core.workspace import open_workspace
from command import Done, command

NAMES = [
    "python", "java", "spark", "host", "locale", "temporary", "disk", "ports", "network",
    "workspace",
]  # fmt: skip
LIVE = ("--set", "source.mode=coingecko")


def variables(folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Few but the given ones."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(folder), **environ}


def looked(folder: Path, *arguments: str, **environ: str) -> Done:
    """The command in this process."""
    with chdir(folder), mock.patch.dict(os.environ, variables(folder, environ), clear=True):
        return command("doctor", *arguments)


def started(folder: Path, *arguments: str, **environ: str) -> Done:
    """The command in a process of its own, for what Python reads at its start."""
    done = subprocess.run(
        [sys.executable, "-W", "default", "-m", "bitstorm.cli", "doctor", *arguments],
        cwd=folder,
        env=variables(folder, environ),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def found(done: Done) -> dict[str, tuple[str, str]]:
    """State and text of each check, from the JSON; the exit code and stderr fit to them."""
    result: dict[str, Any] = json.loads(done.stdout)
    checks = result["checks"]
    stops = [check["name"] for check in checks if check["state"] == "stop"]
    assert [check["name"] for check in checks] == NAMES
    assert result["healthy"] == (not stops) == (done.code == 0)
    assert done.stderr == (f"bitstorm: {', '.join(stops)} would stop a command\n" if stops else "")
    assert "secret" not in done.stdout
    return {
        check["name"]: (check["state"], f"{check['found']}: {check['advice']}") for check in checks
    }


def test_a_good_machine_has_a_line_for_each_check(tmp_path):
    done = started(tmp_path)
    assert (done.code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in NAMES]
    assert list(tmp_path.iterdir()) == []


CASES = [
    ("java", "stop", {"JAVA_TOOL_OPTIONS": "-XX:+Nonsense"}, (), "'Nonsense'"),
    ("java", "stop", {"_JAVA_OPTIONS": "-javaagent:/gone.jar"}, (), "_JAVA_OPTIONS"),
    ("spark", "note", {"SPARK_HOME": "/gone"}, (), "ignores SPARK_HOME"),
    ("spark", "note", {"PYSPARK_SUBMIT_ARGS": "x"}, (), "ignores PYSPARK_SUBMIT_ARGS"),
    ("spark", "note", {"SPARK_CONF_DIR": "/gone"}, (), "before you use a launcher"),
    ("spark", "stop", {"SPARK_LOCAL_DIRS": "/dev/null"}, (), "SPARK_LOCAL_DIRS=/dev/null"),
    ("spark", "stop", {"SPARK_HOME": "/gone"}, ("--set", "spark.master=yarn"), "bin/spark-submit"),
    ("locale", "ok", {"LC_ALL": "C"}, (), "utf-8 (LC_ALL=C"),
    ("locale", "note", {"LC_ALL": "C", "PYTHONUTF8": "0"}, (), "set LC_ALL=C.UTF-8"),
    ("temporary", "note", {"TMPDIR": "/gone"}, (), "TMPDIR=/gone cannot be used"),
    ("temporary", "note", {"TMPDIR": "/dev/null"}, (), "TMPDIR=/dev/null cannot be used"),
    ("network", "ok", {}, (), "not needed"),
    ("network", "note", {"HTTPS_PROXY": "socks5://u:secret@h:1"}, (), "PySocks"),
    ("network", "stop", {"HTTPS_PROXY": "socks5://u:secret@h:1"}, LIVE, "HTTPS_PROXY=socks5://u:***@h"),
    ("network", "stop", {"ALL_PROXY": "http://u:secret@127.0.0.1:9"}, LIVE, "unset ALL_PROXY"),
    ("network", "stop", {"HTTPS_PROXY": "http://proxy.invalid:1"}, LIVE, "proxy.invalid:1"),
    ("network", "stop", {"REQUESTS_CA_BUNDLE": "/gone.pem"}, LIVE, "REQUESTS_CA_BUNDLE=/gone.pem"),
    ("network", "stop", {"CURL_CA_BUNDLE": "/dev/null"}, LIVE, "CURL_CA_BUNDLE=/dev/null"),
    ("network", "stop", {}, (*LIVE, "--set", "source.plan=demo"), "COINGECKO_API_KEY"),
    ("network", "stop", {}, (*LIVE, "--set", "source.base_url=http://127.0.0.1:9/x"), "refused"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "state", "environ", "arguments", "said"), CASES)
def test_a_fault_is_in_its_line(name, state, environ, arguments, said, tmp_path):
    look = started if name in ("locale", "temporary") else looked
    checks = found(look(tmp_path, "--json", *arguments, **environ))
    assert checks[name][0] == state and said in checks[name][1]
    others = {other for other, (mark, _) in checks.items() if mark != "ok"} - {name}
    assert others <= {"network"} if arguments else not others


def test_a_pyspark_in_pythonpath_is_named(tmp_path):
    (tmp_path / "pyspark").mkdir()
    (tmp_path / "pyspark" / "__init__.py").write_text("__version__ = '3.5.1'\n")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    state, text = found(started(tmp_path, "--json", PYTHONPATH=path))["spark"]
    assert state == "note" and "pyspark in PYTHONPATH" in text


def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        state, text = found(looked(tmp_path, "--json", "--set", f"simulator.port={port}"))["ports"]
    assert state == "note" and f"127.0.0.1:{port}" in text and "simulator.port" in text


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    checks = found(looked(tmp_path, "--json", "--workspace", "file/w"))
    assert checks["disk"][0] == "stop" and str(tmp_path / "file") in checks["disk"][1]


def test_the_workspace_of_another_source_is_named(tmp_path):
    from bitstorm.core.sidecar import Origin

    open_workspace(str(tmp_path / "w")).bind(Origin("csv", "bitcoin", "usd"))
    state, text = found(looked(tmp_path, "--json", "--workspace", "w"))["workspace"]
    assert state == "stop" and "csv, bitcoin, usd" in text


def test_a_damaged_binding_and_manifest_are_named(tmp_path):
    root = tmp_path / "w"
    (root / "prices" / "manifests").mkdir(parents=True)
    (root / "prices" / "manifests" / "00000001.json").write_text("{")
    assert found(looked(tmp_path, "--json", "--workspace", "w"))["workspace"][0] == "stop"
    (root / "workspace.json").write_text("{")
    state, text = found(looked(tmp_path, "--json", "--workspace", "w"))["workspace"]
    assert state == "stop" and "workspace.json" in text


def test_the_method_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARK_HOME", "/gone")
    made = bitstorm.open_workspace(tmp_path / "w").doctor()
    assert [check.name for check in made.checks] == NAMES
    assert "ignores SPARK_HOME" in repr(made) and "<td" in made._repr_html_()
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_with_cluster_the_executors_and_commands_follow(spark_session, tmp_path):
    result = bitstorm.open_workspace(tmp_path, quiet=True).doctor(cluster=True)
    assert [check.name for check in result.checks] == [*NAMES, "executor", "commands"]
    executor, commands = result.checks[-2:]
    assert executor.state == "ok"
    assert executor.found.startswith(f"1 on {socket.gethostname()}: Python 3.")
    assert commands.found.startswith("on local[2,3] run ingest, ")
