"""One writer at a time: the second waits, or stops with a clear sentence."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import StoreError

HOLD = """
import sys, time
from pathlib import Path
from bitstorm.core.durable_io import writer_lock
with writer_lock(Path(sys.argv[1]), wait_seconds=0):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_writer_stops_with_who_holds_it_and_what_to_do(tmp_path, holder):
    began = time.monotonic()
    who = rf"process {holder.pid} on {re.escape(socket.gethostname())}\)"
    with (
        pytest.raises(StoreError, match=rf"{who} is writing .*waited 0\.3 s.*try again"),
        writer_lock(tmp_path, wait_seconds=0.3),
    ):
        pytest.fail("two writers hold the lock")
    assert 0.3 <= time.monotonic() - began < 5


def test_a_second_writer_waits_for_the_first(tmp_path):
    order = []
    free, held = threading.Event(), threading.Event()

    def first():
        with writer_lock(tmp_path, wait_seconds=0):
            held.set()
            free.wait(10)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert held.wait(10)
    timer = threading.Timer(0.3, free.set)
    timer.start()
    with writer_lock(tmp_path, wait_seconds=30):
        order.append("second")
    thread.join()
    timer.join()
    assert order == ["first", "second"]


def test_a_killed_holder_frees_it(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with writer_lock(tmp_path, wait_seconds=0):
        pass


def test_it_is_free_again_after_a_failure(tmp_path):
    with pytest.raises(RuntimeError), writer_lock(tmp_path, wait_seconds=0):
        raise RuntimeError
    with writer_lock(tmp_path, wait_seconds=0):
        pass


def test_a_program_that_the_holder_starts_does_not_keep_it(tmp_path):
    with writer_lock(tmp_path, wait_seconds=0):
        child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        with writer_lock(tmp_path, wait_seconds=0):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_mount_without_locks_runs_without_one(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with writer_lock(tmp_path, wait_seconds=0), writer_lock(tmp_path, wait_seconds=0):
        pass


def test_another_failure_is_not_taken_for_a_missing_feature(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"), writer_lock(tmp_path, wait_seconds=0):
        pass
