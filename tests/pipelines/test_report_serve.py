"""`report --serve` as a process: it follows the workspace, and ends without a traceback."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import prepared
from bitstorm.core.schema import FORECASTS
from bitstorm.pipelines.report_serve import fingerprint
from bitstorm.report.summary import read_metrics, write_metrics
from bitstorm.store import snapshots
from bitstorm.store.append import append, stored_rows
from bitstorm.store.manifest import name_of
from command import command

pytestmark = pytest.mark.slow

SECONDS = 60


@contextmanager
def served(root: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "bitstorm.cli", "report", "--serve", "--workspace", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        _, url, hint = process.stdout.readline().split(maxsplit=2)
        assert hint == "(Ctrl-C ends it)\n"
        yield process, url
    finally:
        process.kill()
        process.communicate()


def asked(url: str, tag: str = "") -> tuple[int, str, bytes]:
    """Status, tag and body of the page, for a browser that knows the page `tag`."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    connection.request("GET", "/", headers={"If-None-Match": tag})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers["ETag"], content


def next_page(url: str, tag: str) -> tuple[str, bytes]:
    """Tag and body of the page after the page `tag`."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        status, new, content = asked(url, tag)
        if status == 200:
            return new, content
        time.sleep(0.1)
    raise AssertionError(f"the page is the same after {SECONDS} s")


def test_a_new_snapshot_or_forecast_makes_the_page_anew(prepared_workspace, workspace_copy):
    root = workspace_copy(prepared_workspace)
    workspace = prepared.context(root).workspace
    (workspace.reports / "dashboard.html").unlink()
    with served(root) as (process, url):
        status, tag, content = asked(url)
        assert (status, content[-8:].strip()) == (200, b"</html>")
        assert asked(url, tag) == (304, tag, b"")
        log = snapshots.required(workspace.forecasts)
        rows = stored_rows(log, FORECASTS)
        step = rows.schema.get_field_index("step")
        later = rows.set_column(step, "step", [[100 + n for n in range(rows.num_rows)]])
        later = later.cast(rows.schema)
        assert append(workspace.forecasts, FORECASTS, later, lock_seconds=5) == rows.num_rows
        tag, _ = next_page(url, tag)
        metrics = read_metrics(workspace.reports / "metrics.json")
        write_metrics(workspace.reports / "metrics.json", {**metrics, "verdict": "Quite another."})
        tag, content = next_page(url, tag)
        assert b"Quite another." in content
        # A page that cannot be made is said once, and the one before stays.
        (workspace.reports / "metrics.json").write_text("{")
        time.sleep(3)
        assert asked(url, tag) == (304, tag, b"")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (0, "")
    assert err.startswith("bitstorm: the page stays as it was: ")
    assert err.count("\n") == 1
    assert not (workspace.reports / "dashboard.html").exists()


def test_ctrl_c_ends_it_also_with_a_client_that_reads_nothing(prepared_workspace):
    with served(prepared_workspace) as (process, url):
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
        connection.request("GET", "/")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
        connection.close()
    assert (process.returncode, out, err) == (0, "", "")


def test_without_a_forecast_or_with_port_alone_it_does_not_serve(tmp_path):
    done = command("report", "--serve", "--workspace", tmp_path / "none")
    assert (done.code, done.stdout) == (1, "")
    assert "run `bitstorm forecast` first" in done.stderr
    done = command("report", "--port", "8050", "--workspace", tmp_path / "none")
    assert (done.code, done.stderr) == (2, "bitstorm: --port belongs to --serve: add it\n")


def test_the_fingerprint_changes_with_every_commit(prepared_workspace, workspace_copy):
    workspace = prepared.context(workspace_copy(prepared_workspace)).workspace
    seen = {fingerprint(workspace)}
    assert fingerprint(workspace) in seen
    (run,) = workspace.checkpoints.glob("*/run.json")
    backtest = workspace.backtests / "name" / "backtest.json"
    backtest.parent.mkdir(parents=True)
    for path in (
        *(workspace.root / name / name_of(99) for name in ("prices", "indicators")),
        workspace.reports / "forecast.csv",
        run,
        backtest,
        workspace.checkpoints / "new" / "run.json",
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(path.read_bytes() if path.exists() else b"{}")
        assert fingerprint(workspace) not in seen
        seen.add(fingerprint(workspace))
