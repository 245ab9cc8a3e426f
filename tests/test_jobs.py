"""The jobs under `spark-submit`, on a Spark standalone cluster of one worker on loopback."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bitstorm.cli import bitstorm
from bitstorm.spark import java
from bitstorm.utils import load_petastorm_batches_to_df

CHECKOUT = Path(__file__).resolve().parent.parent
JOBS = sorted((CHECKOUT / "jobs").glob("*.py"))

# Short-lived JVMs: what the optimising compiler would cost they never earn back.
BRIEF = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData"
SECONDS_TO_START = 60
SECONDS_FOR_A_JOB = 200

SILENT = """\
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %p %c{1}: %m%n
"""


def test_there_is_a_job_for_each_command_that_needs_spark() -> None:
    assert {job.stem for job in JOBS} >= {
        "backtest",
        "forecast",
        "indicators",
        "ingest",
        "report",
        "reproduce",
        "run",
        "stats",
        "train",
        "tune",
    }
    assert {job.stem for job in JOBS} <= bitstorm.commands.keys()


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stem)
def test_a_job_only_hands_its_arguments_to_its_command(job: Path) -> None:
    text = job.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 12
    docstring, *body = ast.parse(text).body
    assert f"jobs/{job.name}" in ast.unparse(docstring)
    assert [ast.unparse(statement) for statement in body] == [
        "import sys",
        "from bitstorm.cli import main",
        f"if __name__ == '__main__':\n    main(['{job.stem}', *sys.argv[1:]])",
    ]


@dataclass(frozen=True)
class Finished:
    """A submitted job at its end; `result` is what it printed with `--json`."""

    code: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        return dict(json.loads(self.stdout))


@dataclass(frozen=True)
class Spark:
    """Spark's programs as a user with an activated `.venv` has them, all files under `base`."""

    base: Path

    @property
    def environ(self) -> dict[str, str]:
        home = java.find_java_home(os.environ, project=CHECKOUT)
        assert home is not None
        return {
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.base),
            "JAVA_HOME": str(home),
            "SPARK_CONF_DIR": str(self.base / "conf"),
            "SPARK_DAEMON_JAVA_OPTS": BRIEF,
            "SPARK_LOCAL_DIRS": str(self.base / "scratch"),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "TMPDIR": str(self.base / "scratch"),
        }

    @property
    def events(self) -> Path:
        return self.base / "events"

    def prepare(self) -> None:
        for name in ("conf", "scratch", "events", "work"):
            (self.base / name).mkdir()
        options = f"{BRIEF} -Djava.io.tmpdir={self.base}/scratch"
        defaults = {
            "spark.driver.extraJavaOptions": options,
            "spark.executor.extraJavaOptions": options,
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": f"file://{self.events}",
            "spark.eventLog.compress": "false",
            "spark.eventLog.rolling.enabled": "false",
            "spark.sql.session.timeZone": "Asia/Tokyo",
            "spark.sql.shuffle.partitions": "2",
        }
        (self.base / "conf" / "spark-defaults.conf").write_text(
            "".join(f"{key} {value}\n" for key, value in defaults.items())
        )
        (self.base / "conf" / "log4j2.properties").write_text(SILENT)

    def submit(self, master: str, job: str, *arguments: str) -> Finished:
        command = ["spark-submit", "--master", master, f"jobs/{job}.py", *arguments]
        process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=SECONDS_FOR_A_JOB)
        finally:
            kill_group(process)
        return Finished(process.returncode, stdout, stderr)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Spark:
    found = Spark(tmp_path_factory.mktemp("jobs"))
    found.prepare()
    return found


@dataclass(frozen=True)
class Cluster:
    """A running master; `state` is its own word on workers and applications."""

    spark: Spark
    url: str
    state_url: str

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.state_url, timeout=10) as answer:
            return dict(json.loads(answer.read()))

    def submit(self, job: str, *arguments: str) -> Finished:
        return self.spark.submit(self.url, job, *arguments)


@pytest.fixture(scope="module")
def cluster(spark: Spark) -> Iterator[Cluster]:
    # Each takes a free port itself and says in its log which.
    daemons = [start(spark, "master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")]
    try:
        port, ui = (said(spark, "master", service) for service in ("sparkMaster", "MasterUI"))
        found = Cluster(spark, f"spark://127.0.0.1:{port}", f"http://127.0.0.1:{ui}/json/")
        options = ["--host", "127.0.0.1", "--webui-port", "0", "--cores", "1", "--memory", "1g"]
        options += ["--work-dir", str(spark.base / "work"), found.url]
        daemons.append(start(spark, "worker", *options))
        until(lambda: found.state()["aliveworkers"] == 1, "the worker is registered")
        yield found
    finally:
        for daemon in daemons:
            kill_group(daemon)


def start(spark: Spark, role: str, *options: str) -> "subprocess.Popen[bytes]":
    program = f"org.apache.spark.deploy.{role}.{role.capitalize()}"
    find_home = [sys.executable, "-c", "import pyspark; print(pyspark.__path__[0])"]
    home = subprocess.run(find_home, capture_output=True, text=True, check=True).stdout.strip()
    # The daemons tell their ports at the level INFO, which is that of Spark's own settings.
    environ = {**spark.environ, "SPARK_CONF_DIR": str(spark.base / "none")}
    with (spark.base / f"{role}.log").open("wb") as log:
        return subprocess.Popen(
            [f"{home}/bin/spark-class", program, *options],
            cwd=spark.base,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def said(spark: Spark, role: str, service: str) -> int:
    """The port that a service has taken."""
    log = spark.base / f"{role}.log"
    wanted = rf"started service '{service}' on port (\d+)"
    until(lambda: re.search(wanted, log.read_text()), f"{service} is there", log=log)
    return int(re.findall(wanted, log.read_text())[0])


def until(there: Callable[[], Any], what: str, *, log: Path | None = None) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while not there():
        if time.monotonic() > deadline:
            pytest.fail(
                f"not within {SECONDS_TO_START} s: {what}\n{log.read_text() if log else ''}"
            )
        time.sleep(0.1)


def kill_group(process: "subprocess.Popen[Any]") -> None:
    """End a process and all that it has started."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue


FIRST_MS = 1_704_067_200_000  # 2024-01-01T00:00:00Z
HOUR_MS = 3_600_000


def drop_batch(workspace: Path, name: str, rows: list[str]) -> None:
    """A CSV as a person drops it in: no sidecar, and settled for a minute."""
    path = workspace / "landing" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("timestamp,price_usd\n" + "".join(f"{row}\n" for row in rows))
    minute_ago = time.time() - 60
    os.utime(path, (minute_ago, minute_ago))


@dataclass(frozen=True)
class Submitted:
    """What was submitted to the cluster one after the other, and the workspace that it filled."""

    cluster: Cluster
    workspace: Path
    ingested: Finished
    computed: Finished

    def applications(self) -> list[dict[str, Any]]:
        """The master's own record of the finished ones, oldest first."""
        return sorted(self.cluster.state()["completedapps"], key=lambda app: str(app["id"]))

    def events(self) -> list[list[dict[str, Any]]]:
        """The event log of each application."""
        logs = [self.cluster.spark.events / app["id"] for app in self.applications()]
        return [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]

    def properties(self) -> list[dict[str, str]]:
        """The settings that each application ran with."""
        wanted = "SparkListenerEnvironmentUpdate"
        found = [next(e for e in events if e["Event"] == wanted) for events in self.events()]
        return [event["Spark Properties"] for event in found]


HOURS = 48


@pytest.fixture(scope="module")
def submitted(cluster: Cluster) -> Submitted:
    workspace = cluster.spark.base / "workspace"
    hours = [f"{FIRST_MS + k * HOUR_MS},{42_000 + k}" for k in range(HOURS)]
    drop_batch(workspace, "first.csv", hours[:30])
    # An hour again, one without a price, and one that is no time.
    drop_batch(workspace, "second.csv", [*hours[29:], "2024-01-03T00:00:00Z,0", "noon,42000"])
    options = ["--workspace", str(workspace), "--json", "--quiet"]
    options += ["--set", "spark.master=local[1]"]
    options += ["--set", "spark.conf.spark.sql.shuffle.partitions=5"]
    ingested = cluster.submit("ingest", *options)
    computed = cluster.submit("indicators", *options, "--set", "indicators.windows=[3, 24]")
    return Submitted(cluster, workspace, ingested, computed)


@pytest.mark.slow
def test_ingest_stores_the_rows_of_the_batches(submitted: Submitted) -> None:
    found = submitted.ingested
    assert found.code == 0, found
    assert "Traceback" not in found.stdout + found.stderr
    counts = {name: found.result[name] for name in ("read", "accepted", "duplicate", "refused")}
    assert counts == {"read": 51, "accepted": HOURS, "duplicate": 1, "refused": 2}
    prices = load_petastorm_batches_to_df(str(submitted.workspace / "prices"))
    assert prices["timestamp"].tolist() == [FIRST_MS + k * HOUR_MS for k in range(HOURS)]
    assert prices["price"].tolist() == [42_000 + k for k in range(HOURS)]


@pytest.mark.slow
def test_indicators_are_computed_from_them(submitted: Submitted) -> None:
    found = submitted.computed
    assert found.code == 0, found
    assert found.result["rows"] == HOURS
    points = load_petastorm_batches_to_df(str(submitted.workspace / "indicators"))
    # Of prices that rise by one an hour the mean of the last three is the one before.
    assert points["ma_3"].tolist()[2:] == [42_000 + k - 1 for k in range(2, HOURS)]
    assert points["ma_24"].isna().sum() == 23


@pytest.mark.slow
def test_they_run_on_the_master_that_they_are_submitted_to(submitted: Submitted) -> None:
    apps = submitted.applications()
    assert [app["state"] for app in apps] == ["FINISHED", "FINISHED"]
    assert "ingest" in apps[0]["name"]
    assert "indicators" in apps[1]["name"]
    for events in submitted.events():
        tasks = [event["Task Info"] for event in events if event["Event"] == "SparkListenerTaskEnd"]
        # The worker's one executor did every task, the driver none.
        assert {task["Executor ID"] for task in tasks} == {"0"}


@pytest.mark.slow
def test_what_the_launcher_sets_wins_over_the_settings(submitted: Submitted) -> None:
    for properties in submitted.properties():
        assert properties["spark.master"] == submitted.cluster.url
        assert properties["spark.sql.shuffle.partitions"] == "2"
        # But for what the results depend on.
        assert properties["spark.sql.session.timeZone"] == "UTC"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "arguments", "code", "sentence"),
    [
        ("indicators", [], 1, r"bitstorm: there is no prices data set yet in .*: run `.*` first"),
        ("train", ["--set", "training.epoch=3"], 2, "training.epoch .* did you mean epochs"),
    ],
    ids=["no prices", "wrong setting"],
)
def test_a_job_that_cannot_work_says_why_in_words(
    spark: Spark, tmp_path: Path, job: str, arguments: list[str], code: int, sentence: str
) -> None:
    found = spark.submit("local[1]", job, "--workspace", str(tmp_path / "empty"), *arguments)
    assert found.code == code, found
    # Spark's launcher joins both streams of a Python program in its standard output.
    assert re.search(sentence, found.stdout), found
    assert code == 2 or len(found.stdout.splitlines()) == 1
    assert "Traceback" not in found.stdout + found.stderr
    assert "Exception" not in found.stdout + found.stderr
    assert not list(spark.events.glob("local-*"))
