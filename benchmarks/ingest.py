"""Ingest against plain Spark, a day into a long history, and reading against petastorm itself.

`vs_plain_spark`: CSV batches to a sealed snapshot, over `read.csv` with a schema →
`write.partitionBy.parquet` without a check. `day_into_history`: a day's batch of 1,440 rows into
the full history, over the same batch into an empty store. `read_vs_petastorm`: a whole pass by our
reader, over petastorm's `make_batch_reader` on the folder. Smaller is better in all three.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import Outcome, interleaved, medians
from benchmarks.landing import DAY, MEMORY, MINUTE_MS, START_MS, land
from benchmarks.landing import context as context_of
from benchmarks.process import served
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.core.workspace import file_url
from bitstorm.pipelines.ingest import ingest
from bitstorm.store import snapshots
from bitstorm.store.petastorm_io import read_batches

ROWS = 5_000_000


def run(rows: int = ROWS) -> Outcome:
    """All three comparisons, each way interleaved with its peer. Plain Spark runs in a process of
    its own, under Spark's own settings: those of Bitstorm's session are part of Bitstorm."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        return _run(Path(scratch), rows)


def _run(scratch: Path, rows: int) -> Outcome:
    source = scratch / "batches"
    write_batches(source, rows)
    context = context_of(scratch / "session")
    spark = context.spark("benchmark")
    with served("benchmarks.plain_spark", MEMORY) as peer, spark:

        def plain(number: int) -> float:
            shutil.rmtree(scratch / "plain", ignore_errors=True)
            return peer.seconds(job="ingest", source=source, target=scratch / "plain")

        def ours(number: int) -> None:
            workspace = scratch / "full"
            shutil.rmtree(workspace, ignore_errors=True)
            subprocess.run(["cp", "-a", "-l", source, scratch / "landing"], check=True)
            (workspace).mkdir()
            (scratch / "landing").rename(workspace / "landing")
            result = ingest(context_of(workspace))
            assert result.accepted == rows, result

        full = interleaved({"plain_spark": plain, "ingest": ours}, runs=5)

        day = _day(rows)

        def into_history(number: int) -> float:
            workspace = scratch / "history"
            shutil.rmtree(workspace, ignore_errors=True)
            subprocess.run(["cp", "-a", "-l", scratch / "full", workspace], check=True)
            # The copy's batches are new files: an hourly run would know them from the one before.
            assert ingest(context_of(workspace)).idle
            land(workspace / "landing", day, "day")
            began = time.perf_counter()
            assert ingest(context_of(workspace)).accepted == DAY
            return time.perf_counter() - began

        def into_empty(number: int) -> float:
            workspace = scratch / "empty"
            shutil.rmtree(workspace, ignore_errors=True)
            land(workspace / "landing", day, "day")
            began = time.perf_counter()
            assert ingest(context_of(workspace)).accepted == DAY
            return time.perf_counter() - began

        days = {"day_into_history": into_history, "day_into_empty": into_empty}
        one_day = interleaved(days, runs=9)

    snapshot = snapshots.required(context_of(scratch / "full").workspace.prices)

    def by_us(number: int) -> None:
        assert sum(len(frame) for frame in read_batches(snapshot.files)) == rows

    def by_petastorm(number: int) -> None:
        from petastorm import make_batch_reader

        # The first pool can lose rows (docs/decisions/017), so this only counts what came.
        reader = make_batch_reader(file_url(snapshot.folder), num_epochs=1)
        sum(len(pd.DataFrame(batch._asdict())) for batch in reader)
        # Not as a context manager: that prints to standard output, into the JSON.
        reader.stop()
        reader.join()

    read = interleaved({"read_batches": by_us, "make_batch_reader": by_petastorm}, runs=11)
    results = medians({**full, **one_day, **read})
    return Outcome(
        name="ingest",
        rows=rows,
        results=results,
        ratios={
            "vs_plain_spark": results["ingest"] / results["plain_spark"],
            "day_into_history": results["day_into_history"] / results["day_into_empty"],
            "read_vs_petastorm": results["read_batches"] / results["make_batch_reader"],
        },
        notes={
            "driver_python_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "csv_bytes": sum(path.stat().st_size for path in source.glob("*.csv")),
        },
    )


def minutes(first: int, count: int, step_ms: int = MINUTE_MS) -> pd.DataFrame:
    chance = np.random.default_rng(first)
    price = 20_000 * np.exp(np.cumsum(chance.normal(0, 5e-4, count)))
    return pd.DataFrame(
        {
            "timestamp": START_MS + step_ms * np.arange(first, first + count, dtype=np.int64),
            "price": price,
            "market_cap": price * 19.5e6,
            "volume_24h": chance.uniform(1e10, 4e10, count),
        }
    )


def write_batches(folder: Path, rows: int, batches: int = 10, step_ms: int = MINUTE_MS) -> None:
    edges = np.linspace(0, rows, batches + 1, dtype=int)
    for number, (first, last) in enumerate(pairwise(edges)):
        frame = minutes(int(first), int(last - first), step_ms)
        land(folder, frame, f"{number:02d}", step_ms)


def _day(rows: int) -> pd.DataFrame:
    return minutes(rows, DAY)
