"""Executors, workers and drivers of a standalone cluster on loopback that are killed while their
tasks run. Spark's event log says that they did."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from benchmarks.cluster import Cluster, standalone

from backtest.test_tasks import work_of
from bitstorm.core.third_party_noise import without_third_party_warnings
from bitstorm.store import maintenance, snapshots
from faults.publishing import prices_digest
from landed import drop
from packaged import Checkout, event_log, finish, kill, until
from stricken import Application, Task

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SESSION = Path(__file__).with_name("failing_session.py")
DYING = SESSION.with_name("dying_driver.py")
FIRST_MS, MINUTE = 1_704_067_200_000, 60_000
# More than a block of the indicators.
MINUTES = 62_000
# Under a running task of which job, and of a stage with which steps, an executor is killed.
STRIKES = {
    "ingest": ("bitstorm ingest", "InMemoryTableScan", "WriteFiles"),
    "hours": ("bitstorm indicators", "Coalesce", "FlatMapGroupsInArrow", "Window"),
    "minutes": ("bitstorm indicators", "AQEShuffleRead", "FlatMapGroupsInArrow"),
    "replay": ("bitstorm replay", "InMemoryTableScan", "WriteFiles"),
    "fold": ("fold 1", "MapInArrow"),
}
# By default a strike of each kind: tables, Python's groups, and a task in Python alone.
SHORT = ("ingest", "minutes", "fold")
EVERY = pytest.param(tuple(STRIKES), marks=pytest.mark.faults, id="every")


def prices() -> np.ndarray:
    returns = np.random.default_rng(20).normal(0, 1e-4, MINUTES)
    return np.round(42_000 * np.exp(np.cumsum(returns)), 2)


def is_refused(minute: int) -> bool:
    """Its volume is no number."""
    return minute % 1000 == 7


def drop_minutes(landing: Path) -> None:
    price = prices()
    for number, part in enumerate(np.array_split(np.arange(MINUTES), 3)):
        volumes = ("x" if is_refused(n) else n for n in part)
        rows = (
            f"{FIRST_MS + n * MINUTE},{price[n]},{v}" for n, v in zip(part, volumes, strict=True)
        )
        drop(landing, f"{number}.csv", "\n".join(["timestamp,price,volume_24h", *rows]))


def expected_digest(*, replayed: bool) -> str:
    """Value by value, without Spark."""
    return prices_digest(
        (FIRST_MS + n * MINUTE, price, None, None if is_refused(n) else float(n), None)
        for n, price in enumerate(prices())
        if replayed or not is_refused(n)
    )


@dataclass(frozen=True)
class Place:
    checkout: Checkout
    cluster: Cluster

    @property
    def base(self) -> Path:
        return self.checkout.base

    def logs(self) -> list[Path]:
        """The event logs, oldest first."""
        return sorted(path.with_suffix("") for path in (self.base / "events").iterdir())

    def blocks(self) -> set[Path]:
        """The folders of the executors' blocks."""
        return {*(self.base / "cluster" / "local").glob("spark-*/executor-*/blockmgr-*")}

    def submitted(self, *words: str) -> tuple[subprocess.Popen[str], Application]:
        """The job's process, and its application once it has begun."""
        known = self.logs()
        process = self.checkout.start("--master", self.cluster.url, *words)
        until(lambda: self.logs() != known or process.poll() is not None)
        (log,) = set(self.logs()) - set(known)
        return process, Application(log, self.base / "cluster" / "work" / log.name)

    def worker_of(self, executor: int) -> str:
        group = os.getpgid(executor)
        return next(name for name, p in self.cluster.workers.items() if p.pid == group)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    checkout = Checkout(tmp_path_factory.mktemp("failures"))
    events = checkout.base / "events"
    events.mkdir()
    defaults = {
        **event_log(events),
        "spark.sql.shuffle.partitions": "2",
        "spark.ui.enabled": "false",
    }
    checkout.prepare(defaults, SESSION, DYING)
    price = 20_000 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, 400)))
    with without_third_party_warnings():
        work, folds = work_of(checkout.base / "blocks", price)
    # The one that loads sooner, where it is there.
    backend = "torch" if find_spec("torch") else "tensorflow"
    training = work.training.model_copy(update={"backend": backend})
    work = replace(work, training=training, volatility=False)
    (checkout.base / "folds").write_bytes(pickle.dumps((work, folds[:1])))
    with standalone(checkout.base / "cluster", memory="1g", cores=1, workers=2) as cluster:
        yield Place(checkout, cluster)


@dataclass(frozen=True)
class Session:
    """The steps of a `failing_session.py` and its folder; the digests, and the tasks that were
    lost."""

    steps: tuple[str, ...]
    base: Path
    struck: dict[str, str]
    calm: dict[str, str]
    lost: list[Task]


@pytest.fixture(scope="module", params=[pytest.param(SHORT, id="short"), EVERY])
def session(request: pytest.FixtureRequest, place: Place) -> Session:
    steps = request.param
    base = place.base / f"{len(steps)}-steps"
    output = base / "session.json"
    drop_minutes(base / "struck" / "landing")
    shutil.copy(place.base / "folds", base)
    process, application = place.submitted(SESSION.stem, str(output), str(base), *steps)
    try:
        for step in steps:
            ready, go = (base / f"{step}.{suffix}" for suffix in ("ready", "go"))
            until(ready.exists)
            go.touch()
            executor = application.stop(*STRIKES[step])
            if step == "minutes":
                worker = place.worker_of(executor)
                place.cluster.kill(worker)
                place.cluster.start(worker)
            else:
                os.kill(executor, signal.SIGKILL)
    except BaseException:
        # It would wait for the next file.
        kill(process)
        raise
    done = finish(process)
    assert done.code == 0, done
    digests = json.loads(output.read_text())
    return Session(steps, base, **digests, lost=application.lost_tasks())


def test_each_strike_has_hit_a_running_task(session: Session) -> None:
    strikes = [STRIKES[step] for step in session.steps]
    assert [task.job for task in session.lost] == [job for job, *_ in strikes]
    for task, (_, *steps) in zip(session.lost, strikes, strict=True):
        assert task.steps >= set(steps)


def test_a_killed_executor_changes_no_digest(session: Session) -> None:
    # Indicators and fold are computed again in the same session, undisturbed.
    expected = {
        n: expected_digest(replayed=n == "replay")
        for n in session.steps
        if n in ("ingest", "replay")
    }
    assert tuple(session.struck) == session.steps and session.calm.keys() == {"minutes", "fold"}
    assert session.struck == {**session.struck, **session.calm, **expected}


def store(workspace: Path) -> tuple[str, str]:
    """ID and digest of the newest indicators, in which nothing is damaged."""
    found = snapshots.required(workspace / "indicators")
    assert maintenance.verify(workspace / "indicators").problems == ()
    return found.id, found.manifest.digest


@pytest.mark.parametrize("session", [EVERY], indirect=True)
def test_without_workers_a_command_fails_and_can_be_redone(place: Place, session: Session) -> None:
    workspace = session.base / "calm"
    before = store(workspace)
    assert before[1] == session.calm["minutes"]
    settings = ("--set", "grid.frequency=1h", "--set", "indicators.windows=[7,30]")
    hours = ("indicators", "--workspace", str(workspace), *settings)
    process, application = place.submitted(*hours)
    application.stop(*STRIKES["hours"])
    began = time.monotonic()
    for worker in place.cluster.workers:
        place.cluster.kill(worker)
    done = finish(process)
    assert (done.code, time.monotonic() - began < 60) == (1, True)
    # spark-submit writes a job's standard error to its own standard output.
    assert [line for line in done.stdout.splitlines() if line.startswith("bitstorm: ")] == [
        f"bitstorm: Spark has lost all executors, and {place.cluster.url} has given no new one in "
        "30 s. Completed work is kept: look whether master and workers run, and run the command "
        "again"
    ]
    assert "Traceback" not in done.stdout + done.stderr
    # The other executor may have run a task of the stage, too.
    assert {task.job for task in application.lost_tasks()} == {"bitstorm indicators"}
    assert store(workspace) == before

    for worker in list(place.cluster.workers):
        place.cluster.start(worker)
    done = place.checkout.submit("--master", place.cluster.url, *hours)
    assert done.code == 0, done
    # Undisturbed, the hours are those of the session.
    assert store(workspace)[1] == session.struck["hours"]


@pytest.mark.faults
@pytest.mark.parametrize("when", ["staging", "write", "manifest", "current"])
def test_a_driver_killed_anywhere_can_be_run_again(place: Place, when: str) -> None:
    workspace = place.base / when
    drop_minutes(workspace / "landing")
    words = ("--workspace", str(workspace))
    # Workers that were killed before have left theirs.
    known = place.blocks()
    process, application = place.submitted(DYING.stem, when, "ingest", *words)
    if when == "write":
        executor = application.stop(*STRIKES["ingest"])
        kill(process)
        os.kill(executor, signal.SIGCONT)
    assert finish(process).code == -signal.SIGKILL
    # What it has started ends, too, with its blocks.
    until(lambda: not application.executors(), seconds=30)
    until(lambda: place.blocks() <= known, seconds=30)
    staged = list((workspace / ".cache" / "staging").glob("*.lock"))
    assert len(staged) == 1
    found = snapshots.current(workspace / "prices")
    assert (found is not None) == (when == "current")
    done = place.checkout.submit("--master", place.cluster.url, "ingest", *words)
    assert done.code == 0, done
    found = snapshots.required(workspace / "prices")
    assert (found.manifest.sequence, found.manifest.digest) == (1, expected_digest(replayed=False))
    assert maintenance.verify(workspace / "prices").problems == ()
