"""A checkout whose Python has every package but Bitstorm: what works there works from the zip."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sysconfig
import time
import venv
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cluster import brief_options

ROOT = Path(__file__).resolve().parents[1]
SECONDS_FOR_A_JOB = 400

SILENT = """\
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %p %c{1}: %m%n
"""


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
class Checkout:
    """`scripts/submit` as a user calls it, in an empty folder; all files lie under `base`."""

    base: Path

    @property
    def root(self) -> Path:
        return self.base / "checkout"

    @property
    def settings(self) -> Path:
        """Spark's defaults."""
        return self.base / "spark.conf"

    def prepare(self, defaults: Mapping[str, str], *jobs: Path) -> None:
        """Make the checkout, pack it, and write Spark's defaults; `jobs` become jobs there."""
        for name in ("empty", "scratch"):
            (self.base / name).mkdir()
        logging = self.base / "log4j2.properties"
        logging.write_text(SILENT)
        options = f"{brief_options()} -Djava.io.tmpdir={self.base}/scratch"
        own = {
            "spark.driver.extraJavaOptions": (
                f"{options} -Dlog4j2.configurationFile=file://{logging}"
            ),
            "spark.executor.extraJavaOptions": options,
            "spark.ui.port": "0",
        }
        text = "".join(f"{key} {value}\n" for key, value in {**own, **defaults}.items())
        self.settings.write_text(text)
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in ("conf", "jobs", "lib", "scripts"):
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        for name in ("pyproject.toml", "setup.py", "requirements.in", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self.root)
        for job in jobs:
            shutil.copy(job, self.root / "jobs")
        # Installs nothing: the packages are those of the tests.
        (self.root / "scripts" / "setup").write_text("#!/bin/sh\n")
        make_python(self.root / ".venv")
        subprocess.run([self.root / "scripts" / "package"], check=True, capture_output=True)

    def start(self, *words: str, **environ: str) -> subprocess.Popen[str]:
        """`scripts/submit` with these words, as it begins."""
        return subprocess.Popen(
            [self.root / "scripts" / "submit", "--properties-file", self.settings, *words],
            cwd=self.base / "empty",
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": str(self.base),
                "JAVA_HOME": os.environ.get("JAVA_HOME", ""),
                "OMP_NUM_THREADS": "1",
                # A folder that exists would make the class path unlike the archive's.
                "SPARK_CONF_DIR": str(self.base / "none"),
                "SPARK_LOCAL_DIRS": str(self.base / "scratch"),
                "SPARK_LOCAL_IP": "127.0.0.1",
                "TMPDIR": str(self.base / "scratch"),
                **environ,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def submit(self, *words: str, **environ: str) -> Finished:
        """Run `scripts/submit` with these words."""
        return finish(self.start(*words, **environ))


def event_log(folder: Path) -> dict[str, str]:
    """The settings with which Spark writes plain event logs into this folder, which must exist."""
    return {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{folder}",
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }


def until(true: Callable[[], object], *, seconds: float = 120.0) -> None:
    """Wait until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def finish(process: subprocess.Popen[str]) -> Finished:
    """A started job at its end; all that it has started ends with it."""
    try:
        stdout, stderr = process.communicate(timeout=SECONDS_FOR_A_JOB)
    finally:
        kill(process)
    return Finished(process.returncode, stdout, stderr)


def kill(process: subprocess.Popen[str]) -> None:
    """End the process and all that it has started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def make_python(folder: Path, *patterns: str) -> Path:
    """A virtual environment with all packages of this Python but Bitstorm, or with those whose
    files match; its `python`."""
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    packages = Path(sysconfig.get_path("purelib"))
    if not patterns:
        # Of a folder that a .pth file names, Python reads no .pth file: so it misses Bitstorm's.
        (site / "packages.pth").write_text(f"{packages}\n")
    for pattern in patterns:
        for path in packages.glob(pattern):
            (site / path.name).symlink_to(path)
    return folder / "bin" / "python"
