"""What a session's executors say of themselves; a local session has one, the driver."""

from __future__ import annotations

import platform
import socket
import time

import numpy
import pandas
import pytest

from bitstorm.core.errors import SparkFailure
from bitstorm.spark import doctor
from bitstorm.spark.executors import Executor, ask_executors

pytestmark = pytest.mark.slow


def test_the_driver_of_a_local_session_answers(spark_session, tmp_path):
    names = ("numpy", "no_such_package", "pandas")
    found, silent = ask_executors(spark_session, names, tmp_path)
    expected = Executor(
        socket.gethostname(),
        platform.python_version(),
        (("numpy", numpy.__version__), ("pandas", pandas.__version__)),
        sees=True,
    )
    assert (found, silent) == ({expected: 1}, 0)
    assert expected.lacks(names) == ["no_such_package"]


def test_a_folder_that_is_not_there_stops_a_command(spark_session, tmp_path):
    missing = tmp_path / "missing"
    first, last = doctor.cluster(spark_session, missing, backend="torch", volatility=False)
    assert (first.name, first.state, last.name) == ("executor", "stop", "commands")
    assert f"{missing} cannot be written there" in first.found
    assert "--workspace that the driver and all workers see" in first.advice


def test_executors_that_do_not_answer_are_not_waited_for(spark_session, tmp_path):
    began = time.monotonic()
    with pytest.raises(SparkFailure, match=r"no executor has answered in 0 s: .*spark\.cores\.max"):
        ask_executors(spark_session, ("numpy",), tmp_path, wait_seconds=0)
    assert time.monotonic() - began < 30
    assert spark_session.range(3).count() == 3


def test_a_package_that_folds_need_is_missed_by_name(spark_session, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_FOLDS", (*doctor._FOLDS, "no_such_package"))
    *_, commands = doctor.cluster(spark_session, tmp_path, backend="torch", volatility=False)
    assert commands.state == "note"
    assert f"on local[2,3] run {', '.join(doctor._JVM_ONLY)}, indicators" in commands.found
    assert commands.found.endswith("run, backtest, tune lack no_such_package")
