"""The needs of a long series in `local[2]`: files, bytes, shuffle, memory, seconds by stage.

One run, cold: CSV batches of `--rows` rows, `ingest`, `indicators`, then the seal of all months of
both data sets once more. Up to six million rows are minutes, more are seconds. `notes` has, by
stage, the bytes that Spark's tasks wrote for a shuffle, their number and the largest execution
memory of one; and the peaks of the processes: the driver's Python, Spark's JVM (driver and executor
in one) and its Python workers.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import event_log
from benchmarks.harness import Outcome
from benchmarks.ingest import write_batches
from benchmarks.landing import MINUTE_MS
from benchmarks.landing import context as context_of
from bitstorm.core.schema import PRICES, Table, indicator_table
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.store import seal, snapshots

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from bitstorm.context import Context
    from bitstorm.store.snapshots import Snapshot

ROWS = 1_000_000
MINUTES, SECOND_MS = 6_000_000, 1_000
BATCH = 1_000_000


def run(rows: int = ROWS) -> Outcome:
    """All stages of one series."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        return _run(Path(scratch), rows)


def _run(scratch: Path, rows: int) -> Outcome:
    step_ms = MINUTE_MS if rows <= MINUTES else SECOND_MS
    log = scratch / "events"
    context = context_of(
        scratch / "workspace",
        f"grid.frequency={step_ms // SECOND_MS}s",
        "spark.master=local[2]",
        *(f"spark.conf.{key}={value}" for key, value in event_log.settings(log).items()),
    )
    write_batches(context.workspace.landing, rows, max(1, rows // BATCH), step_ms)
    csv_bytes = sum(path.stat().st_size for path in context.workspace.landing.glob("*.csv"))
    seconds = {}
    with context.spark("benchmark") as spark:
        for stage, command in (("ingest", ingest), ("indicators", indicators)):
            began = time.perf_counter()
            command(context)
            seconds[stage] = time.perf_counter() - began
        memory = _peaks(spark)
    made = {
        "prices": snapshots.required(context.workspace.prices),
        "indicators": snapshots.required(context.workspace.indicators),
    }
    began = time.perf_counter()
    for snapshot, table in zip(made.values(), _tables(context), strict=True):
        _seal_again(snapshot, table)
    seconds["seal"] = time.perf_counter() - began
    memory["driver_python_with_seal"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    notes: dict[str, Any] = {
        "grid_seconds": step_ms // SECOND_MS,
        "csv_bytes": csv_bytes,
        **{f"{name}_{k}": v for name, s in made.items() for k, v in _sizes(s).items()},
        "peak_mb": memory,
        **_tasks(log),
    }
    return Outcome("scale", rows, seconds, {}, notes)


def _tables(context: Context) -> tuple[Table, Table]:
    return PRICES, indicator_table(context.settings.indicators.windows)


def _seal_again(snapshot: Snapshot, table: Table) -> None:
    """The seal of a snapshot whose months are all new."""
    lineage = snapshot.folder.parents[1] / snapshots.LINEAGE / snapshot.id
    data = [path for path in lineage.rglob("*") if path.name == snapshots.LEDGER]
    for path in data:
        path.unlink()
    found = seal.seal_folder(
        snapshot.folder, table, inherited={}, lineage=(lineage, {}) if data else None
    )
    assert found.files == snapshot.manifest.files and found.digests == snapshot.manifest.months


def _sizes(snapshot: Snapshot) -> dict[str, int]:
    manifest = snapshot.manifest
    files = (*manifest.files, *manifest.lineage)
    return {
        "files": len(files),
        "months": len(manifest.months),
        "bytes": sum(file.size for file in files),
        "manifest_bytes": len(manifest.to_bytes()),
    }


def _peaks(spark: SparkSession) -> dict[str, int]:
    """The largest resident memory so far, MB, of the driver's Python, of the JVM, and of the
    largest Python worker."""
    jvm = int(spark._jvm.java.lang.ProcessHandle.current().pid())
    workers = [_high_water(pid) for pid in _descendants(jvm)]
    return {
        "driver_python": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "jvm": _high_water(jvm),
        "python_worker": max(workers, default=0),
    }


def _high_water(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task").glob("*/children")
    found = [int(child) for path in children for child in path.read_text().split()]
    return found + [far for child in found for far in _descendants(child)]


def _tasks(log: Path) -> dict[str, Any]:
    """By stage: tasks, bytes of shuffle, and the largest execution memory of a task."""
    command: dict[int, str] = {}
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for event in event_log.events(log):
        if event["Event"] == "SparkListenerJobStart":
            text = event["Properties"].get("spark.job.description", "")
            name = text.removeprefix("bitstorm ")
            command |= dict.fromkeys(event["Stage IDs"], name)
        elif event["Event"] == "SparkListenerTaskEnd":
            tally, metrics = found[command[event["Stage ID"]]], event["Task Metrics"]
            tally["tasks"] += 1
            tally["shuffle_bytes"] += metrics["Shuffle Write Metrics"]["Shuffle Bytes Written"]
            largest = max(tally["task_memory_bytes"], metrics["Peak Execution Memory"])
            tally["task_memory_bytes"] = largest
    return {f"{name}_{key}": n for name, tally in found.items() for key, n in tally.items()}
