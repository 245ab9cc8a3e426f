"""What a user is told when Spark, its JVM or the disk break under a command."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys

import pytest

from bitstorm.core.errors import SparkFailure
from bitstorm.spark import failures

# Sessions of a process of its own, whose JVM or disk breaks: what is said of each.
SCRIPT = """
import json, os, resource, signal
from pathlib import Path
from bitstorm.core.errors import BrokenOff, SparkFailure
from bitstorm.core.third_party_noise import hush_loggers
from bitstorm.spark.session import spark_session
from bitstorm.testing import SETTINGS

hush_loggers()

def kill(jvm):
    os.kill(jvm.pid, signal.SIGKILL)

def limit(jvm):
    # The JVM may not write a file beyond 200 kB, as if the disk were full.
    resource.prlimit(jvm.pid, resource.RLIMIT_FSIZE, (200_000, 200_000))

def session():
    return spark_session(app_name="broken", spark=SETTINGS, log=Path("spark.log"))

def write(spark, breaks):
    # What Spark unpacks when it first writes a file is not what breaks.
    spark.range(10).write.parquet(f"first-{breaks.__name__}")
    breaks(spark.sparkContext._gateway.proc)
    spark.range(20_000).selectExpr("id", "uuid() AS text").write.parquet(breaks.__name__)

def end(spark):
    kill(spark.sparkContext._gateway.proc)
    spark.sparkContext._gateway.proc.wait()

said = {}
with session() as spark:
    try:
        with session() as same:
            write(same, limit)
    except SparkFailure as error:
        said["full"] = str(error)
    end(spark)
said["finished"] = "done"
try:
    with session() as spark:
        write(spark, kill)
except SparkFailure as error:
    said["killed"] = str(error)
try:
    with session() as spark:
        end(spark)
        raise BrokenOff("go on with --resume")
except BrokenOff as error:
    said["failed"] = str(error)
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, str]:
    """What comes of each session; nothing but that is printed."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path_factory.mktemp("broken"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_killed_jvm_is_one_sentence_that_names_its_log(said):
    assert "ended during its work" in said["killed"] and "spark.log" in said["killed"]
    assert "\n" not in said["killed"]


@pytest.mark.slow
def test_a_jvm_that_ends_hides_neither_a_result_nor_an_error(said):
    assert (said["finished"], said["failed"]) == ("done", "go on with --resume")


@pytest.mark.slow
def test_a_file_that_spark_cannot_write_is_named_by_its_cause(said):
    assert "java.io.IOException: File too large" in said["full"]
    assert "run the command again" in said["full"]
    assert "\n" not in said["full"]


@pytest.mark.slow
def test_a_session_that_was_there_tells_it_and_stays(spark_session, tmp_path):
    from bitstorm.core.settings import Spark
    from bitstorm.spark.session import spark_session as opened

    with (
        pytest.raises(SparkFailure, match=r"Spark failed: java\.io\.IOException: Mkdirs failed"),
        opened(app_name="another", spark=Spark()) as spark,
    ):
        spark.range(10).write.parquet("file:///proc/here")
    assert spark_session.range(3).count() == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("raise OSError(28, 'No space left on device')", "failed: OSError: .* No space left"),
        ("os._exit(9)", "Spark failed: a Python process of Spark was killed"),
    ],
)
def test_a_python_task_that_fails_is_one_sentence(spark_session, broken, said):
    from bitstorm.core.settings import Spark
    from bitstorm.spark.session import spark_session as opened

    def task(batches):
        exec(broken, {"os": os})
        yield from batches

    with pytest.raises(SparkFailure, match=said) as failure, opened(app_name="x", spark=Spark()):
        spark_session.range(0, 1, 1, 1).mapInArrow(task, "id long").collect()
    assert "\n" not in str(failure.value)


@pytest.mark.slow
def test_what_is_wrong_with_a_query_of_ours_is_not_hidden(spark_session):
    from pyspark.errors import AnalysisException

    from bitstorm.core.settings import Spark
    from bitstorm.spark.session import spark_session as opened

    with pytest.raises(AnalysisException), opened(app_name="another", spark=Spark()) as spark:
        spark.range(3).select("nothing")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EROFS, "--workspace"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "disk"),
    ],
)
def test_what_the_system_refuses_has_its_place_and_the_way_on(code, said):
    told = failures.system_refusal(OSError(code, os.strerror(code), "/data/prices"))
    assert told is not None
    assert os.strerror(code) in told and "(/data/prices)" in told and said in told


def test_an_error_of_our_own_is_not_taken_for_the_systems():
    assert failures.system_refusal(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None
    assert failures.system_refusal(OSError("no number at all")) is None


@pytest.mark.slow
@pytest.mark.parametrize("command", ["collect", "backfill", "config"])
def test_no_room_for_a_command_is_one_sentence(tmp_path, command):
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
