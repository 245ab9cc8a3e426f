"""A Spark standalone cluster of one worker on loopback, from the programs of the pip package."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bitstorm.core.errors import EnvironmentProblem
from bitstorm.spark import java

START_SECONDS = 60.0


@contextmanager
def standalone(folder: Path, *, memory: str, cores: int) -> Iterator[str]:
    """The master's URL; both daemons end with the block, and all their files lie in `folder`.

    Raises EnvironmentProblem without a Java, and when a daemon does not start in a minute.
    """
    import pyspark

    home = java.find_java_home(os.environ, project=java.project_root())
    if home is None:
        raise EnvironmentProblem(java.explain(os.environ, project=java.project_root()))
    for name in ("conf", "local", "work"):
        (folder / name).mkdir(parents=True)
    environ = {
        **os.environ,
        "JAVA_HOME": str(home),
        "SPARK_CONF_DIR": str(folder / "conf"),
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_LOCAL_IP": "127.0.0.1",
    }
    program = str(Path(pyspark.__path__[0]) / "bin" / "spark-class")

    def start(role: str, *options: str) -> subprocess.Popen[bytes]:
        name = f"org.apache.spark.deploy.{role}.{role.capitalize()}"
        with (folder / f"{role}.log").open("wb") as log:
            return subprocess.Popen(
                [program, name, *options],
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    loopback = ("--host", "127.0.0.1", "--webui-port", "0")
    daemons = [start("master", *loopback, "--port", "0")]
    try:
        port = _said(folder / "master.log", r"started service 'sparkMaster' on port (\d+)")
        url = f"spark://127.0.0.1:{port}"
        size = ("--cores", str(cores), "--memory", memory, "--work-dir", str(folder / "work"))
        daemons.append(start("worker", *loopback, *size, url))
        _said(folder / "worker.log", r"Successfully registered with (master)")
        yield url
    finally:
        for daemon in reversed(daemons):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGKILL)
            daemon.wait()


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
