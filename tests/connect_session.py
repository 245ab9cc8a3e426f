"""`connect_session.py OUTPUT BASE URL PID`: the commands in sessions of a Spark Connect server, and
what a broken one says; writes what came of them as JSON. Ends the server."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from pyspark.errors import AnalysisException

import prepared
from bitstorm.backtest.tasks import Job, run_jobs
from bitstorm.context import Context
from bitstorm.core.errors import BitstormError
from bitstorm.core.file_system import FileSystem
from bitstorm.core.settings import Spark
from bitstorm.core.third_party_noise import hush_loggers
from bitstorm.pipelines.forecast import forecast
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.pipelines.lookahead import check_lookahead
from bitstorm.pipelines.retract import retract
from bitstorm.pipelines.stats import stats
from bitstorm.pipelines.train import train
from bitstorm.spark import connect
from bitstorm.spark.context import slots
from bitstorm.spark.session import running_session, spark_session
from bitstorm.store import snapshots
from connect_proxy import proxy


def digest(folder: Path | FileSystem) -> str:
    return snapshots.required(folder).manifest.digest


def number(n: int) -> Any:
    # A function inside a function travels by value: the server's Python lacks this module.
    return lambda: ({"number": n}, bytes(n))


def every_command(root: Path) -> dict[str, Any]:
    prepared.drop_batches(root / "landing")
    context = prepared.context(root)
    with context.spark("tests") as session:
        assert running_session() is session
        ingest(context)
        indicators(context)
        done = run_jobs(session, [Job(f"job {n}", number(n)) for n in range(2)])
        jobs = sorted((place, record["number"], len(content)) for place, record, content in done)
        found = {"slots": slots(session), "jobs": jobs, "zone": zone(session)}
    assert running_session() is None
    train(context)
    return found | results(context)


def results(context: Context) -> dict[str, Any]:
    """What is equal in all sessions."""
    workspace = context.workspace
    counted = stats(context, period_ms=86_400_000, bars=3, lags=(1, 24))
    metrics = forecast(context).metrics
    return {
        "prices": digest(workspace.prices),
        "indicators": digest(workspace.indicators),
        "stats": [repr(counted.statistics), repr(counted.bars)],
        # As texts: NaN is unequal to itself.
        "forecast": [repr(metrics["next"]), repr(metrics["outlook"]["steps"])],
        "scores": [metrics["test"], metrics["interval"]],
    }


def zone(session: Any) -> str | None:
    value: str | None = session.conf.get("spark.sql.session.timeZone", None)
    return value


def without_cache(root: Path) -> dict[str, Any]:
    """In two runs, of which the second merges."""
    prepared.drop_batches(root / "landing")
    context = prepared.context(root)
    waiting = root / "second.csv"
    (root / "landing" / "second.csv").rename(waiting)
    with context.spark("tests"):
        ingest(context)
        waiting.rename(root / "landing" / "second.csv")
        ingest(context)
        merged = digest(root / "prices")
        looked = check_lookahead(context, cuts=1, seed=20)
        retract(context, "second.csv", reason="a test")
    return {
        "merged": merged,
        "passed": looked.passed,
        "rows": snapshots.required(root / "prices").manifest.rows,
        "left": sorted(path.name for path in (root / ".cache" / "stages").iterdir()),
    }


def said(url: str, act: Any = lambda session: None) -> list[str]:
    """The error of a session, and the lines before it."""
    lines: list[str] = []
    settings = Spark(driver_memory="9g", conf={"spark.executor.cores": 1})
    os.environ[connect.VARIABLE] = url
    try:
        with spark_session(app_name="broken", spark=settings, report=lines.append) as session:
            act(session)
    except (BitstormError, AnalysisException) as error:
        lines.append(f"{type(error).__name__}: {error}")
    return lines


def broken(server: str, pid: int) -> dict[str, Any]:
    def end(session: Any) -> None:
        session.range(3).count()
        os.kill(pid, signal.SIGKILL)
        session.range(3).count()

    def write(session: Any) -> None:
        session.range(3).write.parquet("file:///proc/nowhere/x")

    def task(session: Any) -> None:
        session.range(3).mapInArrow(lambda batches: 1 / 0, "id long").collect()

    with proxy(server, version="3.5.1") as (url, _):
        other = said(url)
    return {
        "other": [other, url],
        "unseen": said(server, lambda session: session.read.parquet("file:///nowhere").count()),
        "unwritable": said(server, write),
        "query": said(server, lambda session: session.range(3).select("none").count()),
        "task": said(server, task),
        "killed": said(server, end),
    }


def main(output: Path, base: Path, server: str, pid: int) -> None:
    hush_loggers()
    os.environ[connect.VARIABLE] = server
    found = {"session": every_command(base / "session")}
    with proxy(server) as (url, handler):
        os.environ[connect.VARIABLE] = url
        found["cacheless"] = without_cache(base / "cacheless")
        found["cacheless"]["refused"] = handler.refused
    found["broken"] = broken(server, pid)
    output.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
