"""What a user is told when Spark, its JVM or the disk break under a command."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from bitstorm import breakdown
from bitstorm.errors import SparkFailure

# A session of its own, whose JVM or disk the test breaks.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from bitstorm.config import Spark
from bitstorm.errors import SparkFailure
from bitstorm.quiet import hush_loggers
from bitstorm.session import spark_session

hush_loggers()
try:
    with spark_session(app_name="broken", spark=Spark(), log=Path("spark.log")) as spark:
        # What Spark unpacks when it first writes a file is not what breaks.
        spark.range(10).write.parquet("first")
        {breaks}
        spark.range(200_000).selectExpr("id", "uuid() AS text").write.parquet("rows")
except SparkFailure as error:
    print(error)
"""


def broken(folder: Path, breaks: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("{breaks}", breaks)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_jvm_that_is_killed_is_one_sentence_without_a_traceback(tmp_path):
    kill = "os.kill(spark.sparkContext._gateway.proc.pid, signal.SIGKILL)"
    done = broken(tmp_path, kill)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert "ended in the middle of its work" in done.stdout and "spark.log" in done.stdout


@pytest.mark.slow
def test_a_jvm_that_ends_beside_finished_work_hides_neither_its_result_nor_its_error(tmp_path):
    script = """
import os, signal
from bitstorm.config import Spark
from bitstorm.errors import BrokenOff
from bitstorm.session import spark_session

for failure in (None, BrokenOff("go on with --resume")):
    try:
        with spark_session(app_name="idle", spark=Spark()) as spark:
            assert spark.range(3).count() == 3
            os.kill(spark.sparkContext._gateway.proc.pid, signal.SIGKILL)
            spark.sparkContext._gateway.proc.wait()
            if failure:
                raise failure
        print("done")
    except BrokenOff as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "done\ngo on with --resume\n"
    assert done.returncode == 0


@pytest.mark.slow
def test_a_file_that_spark_cannot_write_is_named_by_its_first_cause(tmp_path):
    # The JVM may not write a file beyond 200 kB, as if the disk were full.
    limit = (
        "import resource; resource.prlimit(spark.sparkContext._gateway.proc.pid, "
        "resource.RLIMIT_FSIZE, (200_000, 200_000))"
    )
    done = broken(tmp_path, limit)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert "java.io.IOException: File too large" in done.stdout
    assert "run the command again" in done.stdout


@pytest.mark.slow
def test_a_session_that_was_already_there_tells_it_as_well_and_stays(spark_session, tmp_path):
    from bitstorm.config import Spark
    from bitstorm.session import spark_session as opened

    with (
        pytest.raises(SparkFailure, match=r"Spark gave up: java\.io\.IOException: Mkdirs failed"),
        opened(app_name="another", spark=Spark()) as spark,
    ):
        spark.range(10).write.parquet("file:///proc/here")
    assert spark_session.range(3).count() == 3


@pytest.mark.slow
def test_what_is_wrong_with_a_query_of_ours_is_not_hidden(spark_session):
    from pyspark.errors import AnalysisException

    from bitstorm.config import Spark
    from bitstorm.session import spark_session as opened

    with pytest.raises(AnalysisException), opened(app_name="another", spark=Spark()) as spark:
        spark.range(3).select("nothing")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "--workspace"),
        (errno.EACCES, "rights"),
        (errno.EIO, "disk"),
    ],
)
def test_what_the_system_refuses_is_said_with_its_place_and_the_way_on(code, said):
    told = breakdown.refused(OSError(code, os.strerror(code), "/data/prices"))
    assert told is not None
    assert os.strerror(code) in told and "(/data/prices)" in told and said in told


def test_an_error_of_our_own_is_not_taken_for_the_systems():
    assert breakdown.refused(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    assert breakdown.refused(OSError("no number at all")) is None


@pytest.mark.slow
@pytest.mark.parametrize("command", ["collect", "backfill", "config"])
def test_no_room_for_a_command_is_one_sentence_without_a_traceback(tmp_path, command):
    arguments = {
        "collect": ["collect"],
        "backfill": ["backfill", "--days", "3"],
        "config": ["collect", "--log-file", "log.txt"],
    }[command]
    done = subprocess.run(
        [sys.executable, "-m", "bitstorm.cli", *arguments, "--workspace", "w"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10)),
    )
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert lines[-1].startswith("bitstorm: ") and "File too large" in lines[-1]
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
