"""Ingest against plain Spark, a day into a long history, and reading against petastorm itself.

`vs_plain_spark`: CSV batches to a sealed snapshot, over `read.csv` with a schema →
`write.partitionBy.parquet` without a check. `day_into_history`: a day's batch of 1,440 rows into
the full history, over the same batch into an empty store. `read_vs_petastorm`: a whole pass by our
reader, over petastorm's `make_batch_reader` on the folder. Smaller is better in all three.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.harness import Outcome, interleaved, medians
from bitstorm.config import load
from bitstorm.console import Console
from bitstorm.pipelines.context import Context
from bitstorm.pipelines.ingest import ingest
from bitstorm.quiet import hush_loggers, third_party_warnings_hushed
from bitstorm.store import snapshots
from bitstorm.store.petastorm_io import read_batches
from bitstorm.workspace import file_url, open_workspace

ROWS = 5_000_000
DAY = 1_440
MINUTE_MS = 60_000
START_MS = 1_356_998_400_000  # 2013-01-01
SCHEMA = "timestamp bigint, price double, market_cap double, volume_24h double"


def run(rows: int = ROWS) -> Outcome:
    """All three comparisons in one Spark session, each way interleaved with its peer."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, third_party_warnings_hushed():
        return _run(Path(scratch), rows)


def _run(scratch: Path, rows: int) -> Outcome:
    source = scratch / "batches"
    _write_batches(source, rows)
    context = _context(scratch / "session")
    with context.spark("benchmark") as spark:

        def plain(number: int) -> None:
            from pyspark.sql import functions as F

            target = scratch / "plain"
            shutil.rmtree(target, ignore_errors=True)
            frame = spark.read.csv(f"{file_url(source)}/*.csv", schema=SCHEMA, header=True)
            month = F.date_format(F.timestamp_millis("timestamp"), "yyyy-MM")
            frame.withColumn("month", month).write.partitionBy("month").parquet(file_url(target))

        def ours(number: int) -> None:
            workspace = scratch / "full"
            shutil.rmtree(workspace, ignore_errors=True)
            subprocess.run(["cp", "-a", "-l", source, scratch / "landing"], check=True)
            (workspace).mkdir()
            (scratch / "landing").rename(workspace / "landing")
            result = ingest(_context(workspace))
            assert result.accepted == rows, result

        full = interleaved({"plain_spark": plain, "ingest": ours})

        day = _day(rows)

        def into_history(number: int) -> None:
            workspace = scratch / "history"
            shutil.rmtree(workspace, ignore_errors=True)
            subprocess.run(["cp", "-a", "-l", scratch / "full", workspace], check=True)
            _land(workspace / "landing", day, "day")
            assert ingest(_context(workspace)).accepted == DAY

        def into_empty(number: int) -> None:
            workspace = scratch / "empty"
            shutil.rmtree(workspace, ignore_errors=True)
            _land(workspace / "landing", day, "day")
            assert ingest(_context(workspace)).accepted == DAY

        one_day = interleaved({"day_into_history": into_history, "day_into_empty": into_empty})

    snapshot = snapshots.required(_context(scratch / "full").workspace.prices, hint="")

    def by_us(number: int) -> None:
        assert sum(len(frame) for frame in read_batches(snapshot.files)) == rows

    def by_petastorm(number: int) -> None:
        from petastorm import make_batch_reader

        # The first pool can lose rows (see ARCHITECTURE.md), so this only counts what came.
        reader = make_batch_reader(file_url(snapshot.folder), num_epochs=1)
        sum(len(pd.DataFrame(batch._asdict())) for batch in reader)
        # Not as a context manager: that prints to standard output, into the JSON.
        reader.stop()
        reader.join()

    read = interleaved({"read_batches": by_us, "make_batch_reader": by_petastorm}, runs=5)
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


def _context(root: Path, *overrides: str) -> Context:
    settings = load(overrides=["spark.driver_memory=4g", *overrides]).settings
    return Context(open_workspace(str(root)), settings, Console(quiet=True))


def _frame(first: int, count: int) -> pd.DataFrame:
    chance = np.random.default_rng(first)
    price = 20_000 * np.exp(np.cumsum(chance.normal(0, 5e-4, count)))
    return pd.DataFrame(
        {
            "timestamp": START_MS + MINUTE_MS * np.arange(first, first + count, dtype=np.int64),
            "price": price,
            "market_cap": price * 19.5e6,
            "volume_24h": chance.uniform(1e10, 4e10, count),
        }
    )


def _write_batches(folder: Path, rows: int, batches: int = 10) -> None:
    edges = np.linspace(0, rows, batches + 1, dtype=int)
    for number, (first, last) in enumerate(pairwise(edges)):
        _land(folder, _frame(int(first), int(last - first)), f"{number:02d}")


def _day(rows: int) -> pd.DataFrame:
    return _frame(rows, DAY)


def _land(folder: Path, frame: pd.DataFrame, name: str) -> None:
    """A batch with its sidecar, as the collector leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"bitcoin_prices_{name}.csv"
    frame.to_csv(path, index=False)
    sidecar = {
        "rows": len(frame),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": "simulated:7",
        "coin": "bitcoin",
        "vs_currency": "usd",
        "granularity_ms": MINUTE_MS,
        "first_ms": int(frame["timestamp"].iloc[0]),
        "last_ms": int(frame["timestamp"].iloc[-1]),
        "fetched_at": int(frame["timestamp"].iloc[-1]),
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(sidecar))
