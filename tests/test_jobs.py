"""The jobs by `scripts/submit` from an empty folder, where Bitstorm is only in the zip, on a Spark
standalone cluster of one worker on loopback."""

import ast
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from benchmarks.cluster import Cluster, standalone

from bitstorm.cli import bitstorm
from bitstorm.utils import load_petastorm_batches_to_df
from packaged import ROOT, Checkout, Finished

JOBS = sorted((ROOT / "jobs").glob("*.py"))


def test_there_is_a_job_for_each_command_that_needs_spark() -> None:
    assert {job.stem for job in JOBS} >= {
        "backtest",
        "doctor",
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


EVERY = Path(__file__).with_name("every_job.py")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    found = Checkout(tmp_path_factory.mktemp("jobs"))
    events = found.base / "events"
    events.mkdir()
    defaults = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{events}",
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
        "spark.sql.session.timeZone": "Asia/Tokyo",
        "spark.sql.shuffle.partitions": "2",
    }
    found.prepare(defaults, EVERY)
    return found


@pytest.fixture(scope="module")
def cluster(checkout: Checkout) -> Iterator[Cluster]:
    with standalone(checkout.base / "cluster", memory="1g", cores=1) as found:
        yield found


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

    checkout: Checkout
    cluster: Cluster
    workspace: Path
    ingested: Finished
    computed: Finished

    def applications(self) -> list[dict[str, Any]]:
        """The master's own record of the finished ones, oldest first."""
        return sorted(self.cluster.state()["completedapps"], key=lambda app: str(app["id"]))

    def events(self) -> list[list[dict[str, Any]]]:
        """The event log of each application."""
        logs = [self.checkout.base / "events" / app["id"] for app in self.applications()]
        return [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]

    def properties(self) -> list[dict[str, str]]:
        """The settings that each application ran with."""
        wanted = "SparkListenerEnvironmentUpdate"
        found = [next(e for e in events if e["Event"] == wanted) for events in self.events()]
        return [event["Spark Properties"] for event in found]


HOURS = 48


@pytest.fixture(scope="module")
def submitted(checkout: Checkout, cluster: Cluster) -> Submitted:
    workspace = checkout.base / "workspace"
    hours = [f"{FIRST_MS + k * HOUR_MS},{42_000 + k}" for k in range(HOURS)]
    drop_batch(workspace, "first.csv", hours[:30])
    # An hour again, one without a price, and one that is no time.
    drop_batch(workspace, "second.csv", [*hours[29:], "2024-01-03T00:00:00Z,0", "noon,42000"])
    options = ["--workspace", str(workspace), "--json", "--quiet"]
    options += ["--set", "spark.master=local[1]"]
    options += ["--set", "spark.conf.spark.sql.shuffle.partitions=5"]
    windows = ["--set", "indicators.windows=[3, 24]"]
    ingested = checkout.submit("--master", cluster.url, "ingest", *options)
    computed = checkout.submit("--master", cluster.url, "indicators", *options, *windows)
    return Submitted(checkout, cluster, workspace, ingested, computed)


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


SMALL = (
    "backfill.days=40", "indicators.windows=[3, 24]", "training.look_back=8", "training.units=4",
    "training.epochs=1", "training.batch_size=64", "forecast.steps=2", "backtest.folds=1",
    "backtest.volatility=false", 'backtest.baselines=["persistence"]', "tune.trials=1",
    "tune.epochs=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def every_job(checkout: Checkout, cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Code and JSON of every job, run in one process: Java and TensorFlow start once."""
    names = [job.stem for job in JOBS if job.stem not in ("run", "reproduce")]
    order = ["run", *names, "reproduce"]
    settings = [word for setting in SMALL for word in ("--set", setting)]
    more = {"reproduce": ["RUN", "--no-train"], "doctor": ["--cluster"]}
    plan = [[job, "--json", *settings, *more.get(job, [])] for job in order]
    output = checkout.base / "every.json"
    words = (str(output), str(checkout.base / "every"), json.dumps(plan))
    done = checkout.submit("--master", cluster.url, "every_job", *words)
    assert done.code == 0, done
    found = json.loads(output.read_text())
    assert found["package"].endswith("bitstorm.zip/bitstorm/__init__.py")
    return {job["job"]: job for job in found["done"]}


@pytest.mark.slow
def test_every_job_works_from_the_zip(every_job: dict[str, dict[str, Any]]) -> None:
    failed = {job: found for job, found in every_job.items() if found["code"]}
    assert not failed
    assert every_job.keys() == {job.stem for job in JOBS}
    results = {job: json.loads(found["stdout"]) for job, found in every_job.items()}
    assert results["ingest"]["rows"] == results["run"]["ingested"]["rows"]
    # The page's template is in the zip, too.
    assert "<html" in Path(results["report"]["folder"], "dashboard.html").read_text()
    assert results["backtest"]["computed"] == 1
    assert results["reproduce"]["equal"]


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
    checkout: Checkout, tmp_path: Path, job: str, arguments: list[str], code: int, sentence: str
) -> None:
    place = ("--workspace", str(tmp_path / "empty"))
    found = checkout.submit("--master", "local[1]", job, *place, *arguments)
    assert found.code == code, found
    # Spark's launcher joins both streams of a Python program in its standard output.
    assert re.search(sentence, found.stdout), found
    assert code == 2 or len(found.stdout.splitlines()) == 1
    assert "Traceback" not in found.stdout + found.stderr
    assert "Exception" not in found.stdout + found.stderr
    assert not list((checkout.base / "events").glob("local-*"))
