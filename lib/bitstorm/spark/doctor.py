"""Checks of Spark's surroundings: Java, variables, host name, temporary folder; and of a session's
executors. Only the last need a session."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.core.doctor import Check
from bitstorm.spark import connect, environment, executors, java
from bitstorm.spark.executors import Executor

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What tasks of the commands import on an executor; the other commands need no Python there.
_ARROW = ("bitstorm", "numpy", "pandas", "pyarrow")
_FOLDS = (*_ARROW, "petastorm", "pydantic")
_JVM_ONLY = ("ingest", "retract", "stats", "train", "forecast", "report")


def java_check() -> Check:
    """Whether there is a Java for Spark, and whether it starts with its variables."""
    home = java.find_java_home(os.environ, project=java.project_root())
    if home is None and os.environ.get(connect.VARIABLE):
        return Check("java", "ok", "none, which a Spark Connect server does not need here")
    if home is None:
        return Check("java", "stop", java.explain(os.environ, project=java.project_root()))
    options = [name for name in java.OPTIONS if os.environ.get(name)]
    found = f"{java.version(home) or 'without a release file'} in {home}"
    if options:
        found += "".join(f", {name}={os.environ[name]}" for name in options)
    complaint = java.complaint(home)
    if complaint:
        return Check("java", "stop", f"{found}: {complaint}", _java_advice(options))
    return Check("java", "ok", found)


def _java_advice(options: list[str]) -> str:
    return f"correct or unset {', '.join(options)}" if options else "install that Java again"


def variables(master: str) -> Check:
    """Spark's variables: those that a local Spark ignores, or a cluster's that cannot work."""
    environment.check_pyspark()
    if environment.under_spark_submit():
        return Check("spark", "ok", "spark-submit has started Spark, with its master and settings")
    if os.environ.get(connect.VARIABLE):
        return Check("spark", "ok", f"{connect.VARIABLE} names a Spark Connect server")
    local = environment.is_local(master)
    cluster_problems = environment.cluster_problems(os.environ)
    problems = environment.local_problems(os.environ) if local else cluster_problems
    if problems:
        return Check("spark", "stop", f"spark.master is {master}, and {'; '.join(problems)}")
    if not local:
        return Check("spark", "ok", f"spark.master is {master}")
    names = environment.ignored(os.environ)
    if not names:
        return Check("spark", "ok", f"spark.master is {master}, no variable of Spark is set")
    found = f"spark.master is {master}, which ignores {', '.join(names)}"
    advice = "put settings into spark.conf"
    if cluster_problems:
        advice += f"; before you use a launcher: {'; '.join(cluster_problems)}"
    return Check("spark", "note", found, advice)


def host(master: str) -> Check:
    """Whether the machine's own name has an address; only a cluster needs it."""
    name = socket.gethostname()
    if environment.host_resolves():
        return Check("host", "ok", f"{name} resolves")
    if environment.is_local(master):
        return Check("host", "ok", f"{name} does not resolve; a local Spark does not need it")
    advice = "set SPARK_LOCAL_IP to an address of this machine that the cluster reaches"
    return Check("host", "stop", f"{name} does not resolve", advice)


def temporary() -> Check:
    """Whether Java can use the system's folder for temporary files."""
    try:
        folder = Path(tempfile.gettempdir())
    except FileNotFoundError:
        found = "no temporary folder is writable"
        return Check("temporary", "stop", found, "set TMPDIR to a writable folder")
    asked = os.environ.get("TMPDIR")
    problem = environment.folder_problem(folder)
    if problem:
        return Check("temporary", "note", problem, "Java uses .cache/ of the workspace instead")
    if asked and Path(asked).absolute() != folder:
        found = f"TMPDIR={asked} cannot be used, {folder} is"
        return Check("temporary", "note", found, "set TMPDIR to a writable folder")
    return Check("temporary", "ok", f"{folder} has room and may hold programs")


def cluster(
    session: SparkSession, workspace: Path, *, backend: str, volatility: bool
) -> list[Check]:
    """A check of each kind of executor, and one of the commands that will run on them.

    `backend` is the setting `training.backend`; `volatility` says whether a fold fits GARCH too.
    """
    if connect.remote_session() is not None:
        text = "a Spark Connect session does not say what its executors have"
        return [Check("commands", "note", text, "run `doctor --cluster` by scripts/submit")]
    folds = (*_FOLDS, *dict.fromkeys((backend, *(["tensorflow", "arch"] if volatility else []))))
    names = tuple(dict.fromkeys((*_ARROW, *_FOLDS, "tensorflow", "torch", "arch")))
    found, silent = executors.ask_executors(session, names, workspace)
    kinds = [(*pair, number) for number, pair in enumerate(found.items(), start=1)]
    checks = [_executor(*kind, workspace) for kind in kinds]
    needs = {"indicators, check-lookahead, reproduce": _ARROW, "run, backtest, tune": folds}
    return [*checks, _commands(session, found, silent, needs)]


def _executor(executor: Executor, count: int, number: int, workspace: Path) -> Check:
    name = "executor" if number == 1 else f"executor {number}"
    has = ", ".join(f"{name} {version}".rstrip() for name, version in executor.packages)
    found = f"{count} on {executor.host}: Python {executor.python}, {has or 'no package'}"
    if executor.sees:
        return Check(name, "ok", found)
    advice = "choose a --workspace that the driver and all workers see under the same path"
    return Check(name, "stop", f"{found}; {workspace} cannot be written there", advice)


def _commands(
    session: SparkSession,
    found: Mapping[Executor, int],
    silent: int,
    needs: Mapping[str, tuple[str, ...]],
) -> Check:
    run, refused = [", ".join(_JVM_ONLY)], []
    for commands, packages in needs.items():
        lacks = sorted({name for executor in found for name in executor.lacks(packages)})
        if lacks:
            refused.append(f"{commands} lack {', '.join(lacks)}")
        else:
            run.append(commands)
    master = session.sparkContext.master
    text = f"on {master} run {', '.join(run)}"
    if silent:
        refused.append(f"{silent} executors gave no answer")
    if not refused:
        return Check("commands", "ok", text)
    advice = "install the locked packages there, or set PYSPARK_PYTHON to a Python that has them"
    return Check("commands", "note", f"{text}; {'; '.join(refused)}", advice)
