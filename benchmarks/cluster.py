"""A standalone cluster and a Spark Connect server on loopback, of the pip package's programs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitstorm.core.errors import EnvironmentProblem
from bitstorm.spark import java, jvm

START_SECONDS = 60.0


@dataclass(frozen=True)
class Cluster:
    """A running cluster: the master's URL, the address where it describes itself, and the
    processes of its workers by name; `start` starts one that was killed."""

    url: str
    state_url: str
    workers: Mapping[str, subprocess.Popen[bytes]]
    start: Callable[[str], None]

    def state(self) -> dict[str, Any]:
        """The master's own record of workers and applications."""
        with urllib.request.urlopen(self.state_url, timeout=10) as answer:
            return dict(json.loads(answer.read()))

    def kill(self, worker: str) -> None:
        """As if its machine lost its power: the worker and its executors end at once."""
        _kill(self.workers[worker])


@dataclass(frozen=True)
class Connect:
    """A running Spark Connect server: its URL, and the number of its process."""

    url: str
    pid: int


@contextmanager
def standalone(folder: Path, *, memory: str, cores: int, workers: int = 1) -> Iterator[Cluster]:
    """A master and workers of this size for the block, on free ports; all their files lie in
    `folder`, which must not exist or be empty.

    Raises EnvironmentProblem without a Java, and when a daemon does not start in a minute.
    """
    for name in ("local", "work"):
        (folder / name).mkdir(parents=True)
    loopback = ("--host", "127.0.0.1", "--webui-port", "0")
    size = ("--cores", str(cores), "--memory", memory, "--work-dir", str(folder / "work"))
    with ExitStack() as daemons:
        processes: dict[str, subprocess.Popen[bytes]] = {}

        def start(role: str, name: str, *options: str) -> subprocess.Popen[bytes]:
            program = f"org.apache.spark.deploy.{role}.{role.capitalize()}"
            daemon = _daemon(folder, name, program, *loopback, *options)
            return daemons.enter_context(daemon)

        def start_worker(name: str) -> None:
            processes[name] = start("worker", name, *size, url)

        start("master", "master", "--port", "0")
        port, ui = (
            _said(folder / "master.log", rf"started service '{service}' on port (\d+)")
            for service in ("sparkMaster", "MasterUI")
        )
        url = f"spark://127.0.0.1:{port}"
        names = [f"worker-{number}" for number in range(workers)]
        for name in names:
            start_worker(name)
        for name in names:
            _said(folder / f"{name}.log", r"Successfully registered with (master)")
        yield Cluster(url, f"http://127.0.0.1:{ui}/json/", processes, start_worker)


@contextmanager
def connect_server(folder: Path, *, memory: str, cores: int) -> Iterator[Connect]:
    """A Spark Connect server on a local Spark for the block, on a free port. Files and errors are
    as those of `standalone`."""
    (folder / "local").mkdir(parents=True)
    settings = {
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": "0",
        "spark.driver.extraJavaOptions": brief_options(),
        "spark.driver.memory": memory,
        "spark.master": f"local[{cores}]",
        "spark.ui.enabled": "false",
    }
    words = [word for pair in settings.items() for word in ("--conf", "=".join(pair))]
    server = ("--class", "org.apache.spark.sql.connect.service.SparkConnectServer")
    program = "org.apache.spark.deploy.SparkSubmit"
    with _daemon(folder, "connect", program, *server, *words, "spark-internal") as process:
        port = _said(folder / "connect.log", r"Connect server started at: \S+:(\d+)")
        yield Connect(f"sc://127.0.0.1:{port}", process.pid)


@contextmanager
def _daemon(folder: Path, name: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon's process for the block; with it ends all that it has started."""
    import pyspark

    program = str(Path(pyspark.__path__[0]) / "bin" / "spark-class")
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *words],
            cwd=folder,
            env=_environ(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process with its group, unless it was killed before."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def brief_options() -> str:
    """Java's options for a short life or little work: what the optimising compiler would cost it
    never earns back, and archived classes load sooner."""
    options = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"]
    archives = jvm.class_archives(_java_home())[:1]
    return " ".join([*options, *(f'"-XX:SharedArchiveFile={archive}"' for archive in archives)])


def _java_home() -> Path:
    home = java.find_java_home(os.environ, project=java.project_root())
    if home is None:
        raise EnvironmentProblem(java.explain(os.environ, project=java.project_root()))
    return home


def _environ(folder: Path) -> Mapping[str, str]:
    """The daemons' variables; a test's or user's own of Spark don't reach them."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SPARK_", "PYSPARK_"))}
    return {
        **kept,
        "JAVA_HOME": str(_java_home()),
        # There is none, so the daemons say their ports, at the level INFO. An empty one would make
        # their class path unlike the archive's.
        "SPARK_CONF_DIR": str(folder / "conf"),
        "SPARK_DAEMON_JAVA_OPTS": brief_options(),
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYSPARK_PYTHON": sys.executable,
        "TMPDIR": str(folder / "local"),
    }


def _said(log: Path, wanted: str) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = re.search(wanted, log.read_text(errors="replace"))
        if found:
            return found[1]
        time.sleep(0.1)
    raise EnvironmentProblem(
        f"the cluster's {log.stem} did not start in {START_SECONDS:g} s; its last words: "
        f"{log.read_text(errors='replace')[-500:]}"
    )
