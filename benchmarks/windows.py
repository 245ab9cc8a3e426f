"""Moving average and volatility over one long series of minutes, beside everybody else's.

From Parquet to a sink, all ways on the same files: ours in two processes (`local[2]`, and
`local[1]` bound to one core), plain Spark in its own (one run: it takes minutes), DuckDB, pandas
and Polars in memory. Rates of ours over theirs, greater is better: `vs_plain_spark`, `vs_duckdb`,
`vs_pandas`, `two_cores_vs_one`. Times, smaller is better: `wide_vs_narrow` (windows ten times as
wide), `linear_exponent` (slope of log time over log rows), `update_vs_full` (a new day into the
indicators of all rows, over all of them).
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import landing
from benchmarks.cluster import standalone
from benchmarks.harness import Outcome, interleaved, medians
from benchmarks.landing import DAY, MEMORY, MINUTE_MS, START_MS
from benchmarks.peers import HOW_TO_INSTALL, WAYS, missing
from benchmarks.process import Capped, Failed, Served, served
from bitstorm.core.errors import BitstormError
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings

if TYPE_CHECKING:
    from bitstorm.context import Context

ROWS = 5_000_000
FILES = 8
WIDTHS = (7, 24, 168)
WIDE = (70, 240, 1680)
# Enough for a bound within a tenth; a round takes seconds.
RUNS = 7
# With --scale: 1, 5, 20 and 50 million where the series has 5.
SCALES = (0.2, 1.0, 4.0, 10.0)
EXECUTOR = "2g"
CAP_SECONDS = 300.0
PIECE = 1_000_000


def run(rows: int = ROWS, *, scale: bool = False) -> Outcome:
    """All comparisons; `scale` adds ten times the rows, also on a cluster."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        return _run(Path(scratch), rows, scale=scale)


def _run(scratch: Path, rows: int, *, scale: bool) -> Outcome:
    files = write_walk(scratch / "walk", rows)
    fifth = write_walk(scratch / "fifth", rows // 5)
    notes: dict[str, Any] = {"rows_per_second": {}, "cold_first_run_seconds": {}}
    for name in WAYS:
        if missing(name):
            notes[name] = HOW_TO_INSTALL
    cold: dict[str, float] = {}
    sizes = {rows // 5: fifth, rows: files}
    logs = [scratch / f"{name}.log" for name in ("plain", "two", "one")]
    with (
        served("benchmarks.plain_spark", MEMORY, "local[2]", log=logs[0]) as plain,
        served("benchmarks.our_indicators", MEMORY, "local[2]", log=logs[1]) as two,
        served("benchmarks.our_indicators", MEMORY, "local[1]", log=logs[2]) as one,
    ):

        def plainly(number: int) -> float:
            # Its whole run takes minutes: a fifth is enough to warm it up.
            source = files if number else fifth
            return plain.seconds(job="windows", files=source, widths=WIDTHS)

        ways: dict[str, Callable[[int], float | None]] = {
            "ours": lambda _: two.seconds(job="windows", files=files, widths=WIDTHS),
            "plain_spark": plainly,
            **{name: _peer(name, files) for name in WAYS if not missing(name)},
            "ours_one_core": lambda _: one.seconds(job="windows", files=files, widths=WIDTHS),
            "ours_wide": lambda _: two.seconds(job="windows", files=files, widths=WIDE),
            "ours_a_fifth": lambda _: two.seconds(job="windows", files=fifth, widths=WIDTHS),
        }
        seconds = interleaved(ways, runs=RUNS, at_most={"plain_spark": 1}, cold=cold)
        notes["cold_first_run_seconds"] = {
            name: round(cold[name], 3) for name in ("ours", "ours_one_core")
        }
        notes["plain_spark_runs"] = f"one, after {rows // 5:,} rows to warm up"
        results = medians(seconds)
        times = {rows // 5: results["ours_a_fifth"], rows: results["ours"]}
        if scale:
            for factor in SCALES:
                count = int(rows * factor)
                if count not in sizes:
                    sizes[count] = write_walk(scratch / f"walk-{count}", count)
                    larger = sizes[count]

                    def whole(_: int, files: Sequence[Path] = larger) -> float:
                        return two.seconds(job="windows", files=files, widths=WIDTHS)

                    timed = interleaved({"ours": whole}, warm_up=False)
                    times[count] = medians(timed)["ours"]
                    results[f"ours_at_{count}"] = times[count]
    notes["linear_exponent_at_rows"] = sorted(times)
    if scale:
        notes["cluster"] = _on_a_cluster(scratch / "cluster", sizes[max(sizes)])
    results.update(_updates(scratch, files, rows))
    notes["rows_per_second"] = {
        name: round(rows / results[name]) for name in (*ways, "indicators_full") if name in results
    }
    notes["rows_per_second"].pop("ours_a_fifth")
    return Outcome(
        name="windows",
        rows=rows,
        results=results,
        ratios={
            **{f"vs_{n}": results[n] / results["ours"] for n in _RATED if n in results},
            "two_cores_vs_one": results["ours_one_core"] / results["ours"],
            "wide_vs_narrow": results["ours_wide"] / results["ours"],
            "linear_exponent": slope(times),
            "update_vs_full": results["indicators_update"] / results["indicators_full"],
        },
        notes=notes,
    )


_RATED = ("plain_spark", "duckdb", "pandas")


def _peer(name: str, files: Sequence[Path]) -> Callable[[int], None]:
    def way(number: int) -> None:
        WAYS[name](files, WIDTHS)

    return way


def slope(times: dict[int, float]) -> float:
    """That of log seconds over log rows, by least squares: 1 where time goes with the rows."""
    logs = np.log([[count, seconds] for count, seconds in times.items()])
    return float(np.polyfit(logs[:, 0], logs[:, 1], 1)[0])


def write_walk(
    folder: Path, rows: int, *, files: int = FILES, step_ms: int = MINUTE_MS
) -> list[Path]:
    """A random walk without holes, the same for the same `rows`, in files of equal size.

    `timestamp` int64 ms UTC, ascending; `price` float32.
    """
    folder.mkdir(parents=True)
    chance = np.random.default_rng(rows)
    edges = np.linspace(0, rows, files + 1, dtype=int)
    level, paths = math.log(20_000), []
    for number in range(files):
        paths.append(folder / f"part-{number}.parquet")
        with pq.ParquetWriter(paths[-1], _SCHEMA, use_dictionary=False) as writer:
            for start in range(edges[number], edges[number + 1], PIECE):
                count = min(PIECE, int(edges[number + 1]) - start)
                levels = level + np.cumsum(chance.normal(0, 5e-4, count))
                level = float(levels[-1])
                times = START_MS + step_ms * np.arange(start, start + count, dtype=np.int64)
                prices = np.exp(levels).astype(np.float32)
                writer.write_table(pa.table([times, prices], schema=_SCHEMA))
    return paths


_SCHEMA = pa.schema([("timestamp", pa.int64()), ("price", pa.float32())])


def _updates(scratch: Path, files: Sequence[Path], rows: int) -> dict[str, float]:
    """Seconds of all indicators of `rows` minutes, and of those after one more day of minutes."""
    from bitstorm.pipelines.indicators import indicators
    from bitstorm.pipelines.ingest import ingest
    from bitstorm.store.batch_writer import make_batch_writer
    from bitstorm.store.petastorm_io import BitcoinSchema

    base, workspace = scratch / "base", scratch / "workspace"
    with make_batch_writer(_minutes(base).workspace.prices, BitcoinSchema) as writer:
        for file in files:
            for piece in pq.ParquetFile(file).iter_batches(PIECE):
                writer.write(piece.to_pandas())
    last = pq.read_table(files[-1], partitioning=None)["price"][-1].as_py()
    chance = np.random.default_rng(DAY)
    times = START_MS + MINUTE_MS * np.arange(rows, rows + DAY, dtype=np.int64)
    prices = last * np.exp(np.cumsum(chance.normal(0, 5e-4, DAY)))
    day = pd.DataFrame({"timestamp": times, "price": prices})

    def full(number: int) -> None:
        indicators(_minutes(workspace))

    def update(number: int) -> None:
        assert indicators(_minutes(workspace)).rows == rows + DAY

    def prepared(way: Callable[[int], None], prepare: Callable[[], None]) -> Callable[[int], float]:
        def timed(number: int) -> float:
            prepare()
            return interleaved({"": way}, runs=1, warm_up=False)[""][0]

        return timed

    def copy() -> None:
        shutil.rmtree(workspace, ignore_errors=True)
        subprocess.run(["cp", "-a", "-l", base, workspace], check=True)

    def another_day() -> None:
        landing.land(workspace / "landing", day, "day")
        assert ingest(_minutes(workspace)).accepted == DAY

    with _minutes(base).spark("benchmark"):
        return medians(
            interleaved(
                {
                    "indicators_full": prepared(full, copy),
                    "indicators_update": prepared(update, another_day),
                }
            )
        )


def _minutes(root: Path) -> Context:
    return landing.context(root, "grid.frequency=1m")


def _on_a_cluster(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """What became of ours and of plain Spark on a worker with one executor of 2 GB, in turn."""
    cores = os.cpu_count() or 1
    found: dict[str, Any] = {"cores": cores, "executor_memory": EXECUTOR}
    found["rows"] = sum(pq.read_metadata(file).num_rows for file in files)
    for name, module in {"ours": "our_indicators", "plain_spark": "plain_spark"}.items():
        # A cluster of its own for each: one that ran out of memory leaves nothing behind.
        try:
            with (
                standalone(folder / name, memory=EXECUTOR, cores=cores) as cluster,
                served(
                    f"benchmarks.{module}", EXECUTOR, cluster.url, log=folder / f"{name}.log"
                ) as program,
            ):
                found[name] = _attempt(program, files)
        except BitstormError as error:
            found[name] = str(error)
    return found


def _attempt(program: Served, files: Sequence[Path]) -> str:
    try:
        seconds = program.seconds(limit=CAP_SECONDS, job="windows", files=files, widths=WIDTHS)
    except Capped:
        return f"not finished after {CAP_SECONDS:g} s, ended"
    except Failed as error:
        return f"failed: {error}"
    return f"finished in {seconds:.1f} s, the session's first run"
