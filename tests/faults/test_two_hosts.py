"""Two drivers of two hosts, with the same process number, at one workspace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bitstorm.store import maintenance, snapshots
from faults.publishing import HOUR, JANUARY, prices_digest
from landed import drop
from packaged import finish, kill

pytestmark = pytest.mark.slow

ROWS = [(JANUARY + n * HOUR, 100.0 + n) for n in range(50)]
# Each has its own name and numbers; the shell is its first process, so that Python isn't.
HOST = 'hostname "$0" && "$@"; exit $?'
INGEST = "import sys; from bitstorm.cli import main; main(['ingest', *sys.argv[1:]])"
# As a mount that many clients share without locks.
NO_LOCKS = """
import errno, fcntl
def flock(*_): raise OSError(errno.ENOLCK, 'No locks available')
fcntl.flock = flock
"""


@contextmanager
def driver(host: str, program: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """`ingest` on another host; it ends with the block."""
    apart = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
    settings = ("spark.master=local[1]", "spark.driver_memory=1g")
    options = [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(
        [*apart, "sh", "-c", HOST, host, sys.executable, "-c", program, *options, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield process
    finally:
        kill(process)


def until_there(folder: Path, pattern: str) -> Path:
    end = time.monotonic() + 120
    while not (found := list(folder.glob(pattern))):
        assert time.monotonic() < end
        time.sleep(0.005)
    return found[0]


def test_two_drivers_with_one_number_leave_each_other_alone(tmp_path: Path) -> None:
    tried = subprocess.run(["unshare", "--uts", "--pid", "--fork", "--mount-proc", "true"])
    if tried.returncode != 0:
        pytest.skip("no process may have a host name of its own here")
    drop(tmp_path / "landing", "a.csv", "\n".join(["timestamp,price", *map("%d,%s".__mod__, ROWS)]))
    where = ("--workspace", str(tmp_path), "--json")
    with ExitStack() as hosts:
        first = hosts.enter_context(driver("host-a", INGEST, *where))
        staged = until_there(tmp_path / ".cache" / "staging", "*/*.csv")
        os.killpg(first.pid, signal.SIGSTOP)
        holder = (tmp_path / "prices" / ".lock").read_text()
        impatient = ("--set", "ingest.lock_seconds=0")
        refused = finish(hosts.enter_context(driver("host-b", INGEST, *where, *impatient)))
        second = finish(hosts.enter_context(driver("host-b", NO_LOCKS + INGEST, *where)))
        assert staged.exists()
        os.killpg(first.pid, signal.SIGCONT)
        overtaken = finish(first)
    assert refused.code == 1
    assert f"another run ({holder.strip()}) is writing {tmp_path / 'prices'}" in refused.stderr
    assert (second.code, second.result["accepted"]) == (0, len(ROWS))
    # The same number, on another host.
    number = holder.split()[1]
    assert holder == f"process {number} on host-a\n"
    assert (tmp_path / "prices" / ".lock").read_text() == f"process {number} on host-b\n"
    assert overtaken.code == 0, overtaken
    assert "another run has published first: merging again" in overtaken.stderr
    assert (overtaken.result["batches"], overtaken.result["known_batches"]) == (0, 1)
    found = snapshots.required(tmp_path / "prices")
    assert found.manifest.sequence == 1
    assert found.manifest.digest == prices_digest((t, p, None, None, None) for t, p in ROWS)
    assert maintenance.verify(tmp_path / "prices").problems == ()
    assert list((tmp_path / ".cache" / "staging").iterdir()) == []
