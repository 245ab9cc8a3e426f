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

import guide
from bitstorm.cli import bitstorm
from bitstorm.utils import load_petastorm_batches_to_df
from packaged import ROOT, Checkout, Finished, event_log, until

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
        **event_log(events),
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
    """The job `ingest`, submitted to the cluster, and the workspace that it filled."""

    workspace: Path
    finished: Finished
    application: dict[str, Any]
    events: list[dict[str, Any]]


HOURS = 48
OPTIONS = (
    "--json", "--quiet", "--set", "spark.master=local[1]",
    "--set", "spark.conf.spark.sql.shuffle.partitions=5",
)  # fmt: skip


@pytest.fixture(scope="module")
def submitted(checkout: Checkout, cluster: Cluster) -> Submitted:
    workspace = checkout.base / "workspace"
    hours = [f"{FIRST_MS + k * HOUR_MS},{42_000 + k}" for k in range(HOURS)]
    drop_batch(workspace, "first.csv", hours[:30])
    # An hour again, one without a price, and one that is no time.
    drop_batch(workspace, "second.csv", [*hours[29:], "2024-01-03T00:00:00Z,0", "noon,42000"])
    place = ("--workspace", str(workspace))
    done = checkout.submit("--master", cluster.url, "ingest", *place, *OPTIONS)
    # The master's own record, which it may make after the job has ended.
    until(lambda: cluster.state()["completedapps"])
    (application,) = cluster.state()["completedapps"]
    log = checkout.base / "events" / application["id"]
    events = [json.loads(line) for line in log.read_text().splitlines()]
    return Submitted(workspace, done, application, events)


@pytest.mark.slow
def test_ingest_stores_the_rows_of_the_batches(submitted: Submitted) -> None:
    found = submitted.finished
    assert found.code == 0, found
    assert "Traceback" not in found.stdout + found.stderr
    counts = {name: found.result[name] for name in ("read", "accepted", "duplicate", "refused")}
    assert counts == {"read": 51, "accepted": HOURS, "duplicate": 1, "refused": 2}
    prices = load_petastorm_batches_to_df(str(submitted.workspace / "prices"))
    assert prices["timestamp"].tolist() == [FIRST_MS + k * HOUR_MS for k in range(HOURS)]
    assert prices["price"].tolist() == [42_000 + k for k in range(HOURS)]


@pytest.mark.slow
def test_it_runs_on_the_master_that_it_is_submitted_to(submitted: Submitted) -> None:
    assert submitted.application["state"] == "FINISHED"
    assert "ingest" in submitted.application["name"]
    ended = [e for e in submitted.events if e["Event"] == "SparkListenerTaskEnd"]
    # The worker's one executor did every task, the driver none.
    assert {event["Task Info"]["Executor ID"] for event in ended} == {"0"}


@pytest.mark.slow
def test_what_the_launcher_sets_wins_over_the_settings(
    submitted: Submitted, cluster: Cluster
) -> None:
    wanted = "SparkListenerEnvironmentUpdate"
    event = next(event for event in submitted.events if event["Event"] == wanted)
    properties = event["Spark Properties"]
    assert properties["spark.master"] == cluster.url
    assert properties["spark.sql.shuffle.partitions"] == "2"
    # But for what the results depend on.
    assert properties["spark.sql.session.timeZone"] == "UTC"


# What a user may set with variables, so that the commands of the guide take seconds.
SMALL = {
    "BACKFILL__DAYS": 30,
    "INGEST__SETTLE_SECONDS": 0,
    "INDICATORS__WINDOWS": [2, 3],
    "TRAINING__EPOCHS": 1,
    "TRAINING__UNITS": 4,
    "BACKTEST__VOLATILITY": False,
    "TUNE__TRIALS": 1,
    "TUNE__EPOCHS": 1,
}
WINDOWS = "indicators.windows=[3, 24]"
# They are no page's example.
MORE = (["run", "--json", "--workspace", "ran"], ["tune", "--json"])


@pytest.fixture(scope="module")
def every_job(checkout: Checkout, cluster: Cluster, submitted: Submitted) -> list[dict[str, Any]]:
    """What the guide's commands print, in its order, and then the other jobs: all in one process,
    so that Java and TensorFlow start once."""
    plan: list[dict[str, list[str]]] = []
    for step in guide.steps():
        program, *arguments = step.words
        if program == "bitstorm":
            plan.append({"words": arguments})
        elif "*" not in arguments[0]:
            assert program == "cat", step
            plan.append({"file": [arguments[0], step.shown]})
    place, windows = ["--workspace", str(submitted.workspace)], ["--set", WINDOWS]
    more = [["indicators", *place, *OPTIONS, *windows], *MORE]
    plan += [{"words": words} for words in more]
    folder, output = checkout.base / "guide", checkout.base / "every.json"
    folder.mkdir()
    words = (str(output), str(folder), json.dumps(plan))
    small = {f"BITSTORM__{name}": str(value) for name, value in SMALL.items()}
    done = checkout.submit("--master", cluster.url, "every_job", *words, **small)
    assert done.code == 0, done
    found = json.loads(output.read_text())
    assert found["package"].endswith("bitstorm.zip/bitstorm/__init__.py")
    return list(found["done"])


@pytest.mark.slow
def test_the_guides_commands_work_from_the_zip_in_order(every_job: list[dict[str, Any]]) -> None:
    promised = [step.code for step in guide.steps() if step.words[0] == "bitstorm"]
    others = [0] * (len(every_job) - len(promised))
    for found, code in zip(every_job, [*promised, *others], strict=True):
        assert found["code"] == code, found
        assert "Traceback" not in found["out"] + found["err"]


@pytest.mark.slow
def test_indicators_are_computed_from_the_ingested_rows(
    submitted: Submitted, every_job: list[dict[str, Any]]
) -> None:
    (found,) = [done for done in every_job if WINDOWS in done["words"]]
    assert json.loads(found["out"])["rows"] == HOURS
    points = load_petastorm_batches_to_df(str(submitted.workspace / "indicators"))
    # Of prices that rise by one an hour the mean of the last three is the one before.
    assert points["ma_3"].tolist()[2:] == [42_000 + k - 1 for k in range(2, HOURS)]
    assert points["ma_24"].isna().sum() == 23


@pytest.mark.slow
def test_every_job_works_from_the_zip(every_job: list[dict[str, Any]]) -> None:
    results = {found["words"][0]: found["out"] for found in every_job}
    assert results.keys() == bitstorm.commands.keys() - {"simulate"}
    assert results.keys() >= {job.stem for job in JOBS}
    assert json.loads(results["run"])["ingested"]["rows"] > 600
    assert json.loads(results["tune"])["trials"]
    assert "equal" in results["reproduce"] and "differs" not in results["reproduce"]
    # The page's template is in the zip, too.
    (page,) = (line for line in results["report"].splitlines() if line.endswith("dashboard.html"))
    assert "<html" in Path(page).read_text()


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
