"""All indicators of one series of minutes, and of a year of hours, beside pandas and Polars.

From Parquet to a sink, all columns of IndicatorSchema, on the same files: ours in two processes
(`local[2]`, and `local[1]` bound to one core, its JVM and Python worker with it); with
`--before FOLDER`, the same of a checkout of an earlier commit that has this benchmark. Rates of
ours over theirs, greater is better: `vs_before`, `vs_before_8760_hours`, `vs_pandas`, `vs_polars`
and `two_cores_vs_one`. With `--scale` also four and ten times the rows, the latter on a worker
with a 2 GB executor, too: `linear_exponent`, smaller is better.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cluster import standalone
from benchmarks.harness import Outcome, interleaved, medians
from benchmarks.indicator_peers import WAYS
from benchmarks.landing import MEMORY, MINUTE_MS
from benchmarks.our_indicators import WIDTHS
from benchmarks.peers import HOW_TO_INSTALL, missing
from benchmarks.process import Capped, Failed, Served, served
from benchmarks.windows import CAP_SECONDS, EXECUTOR, SCALES, slope, write_walk
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings

ROWS = 5_000_000
HOURS, HOUR_MS = 8_760, 3_600_000
RUNS = 5


def run(rows: int = ROWS, *, before: Path | None = None, scale: bool = False) -> Outcome:
    """All comparisons; `before` is the folder of an earlier commit, set up by `scripts/setup`."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        return _run(Path(scratch), rows, before, scale=scale)


def _run(scratch: Path, rows: int, before: Path | None, *, scale: bool) -> Outcome:
    minutes = write_walk(scratch / "minutes", rows)
    hours = write_walk(scratch / "hours", HOURS, files=1, step_ms=HOUR_MS)
    notes: dict[str, Any] = {"cold_first_run_seconds": {}}
    ways: dict[str, Callable[[int], float | None]] = {}
    cold: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        masters = {"ours": "local[2]", "ours_one_core": "local[1]"}
        programs = {
            name: stack.enter_context(_program(master, scratch / f"{name}.log"))
            for name, master in masters.items()
        }
        if before is not None:
            log = scratch / "before.log"
            programs["before"] = stack.enter_context(_program("local[2]", log, before=before))
        for name, program in programs.items():
            ways[name] = _seconds(program, minutes, MINUTE_MS)
            if name != "ours_one_core":
                ways[f"{name}_8760_hours"] = _seconds(program, hours, HOUR_MS)
        for name in WAYS:
            if missing(name):
                notes[name] = HOW_TO_INSTALL
            else:
                ways[name] = _peer(name, minutes)
        results = medians(interleaved(ways, runs=RUNS, cold=cold))
        notes["cold_first_run_seconds"] = {n: round(cold[n], 3) for n in programs}
        times = {rows: results["ours"]}
        if scale:
            for factor in SCALES:
                count = int(rows * factor)
                if count not in times:
                    files = write_walk(scratch / f"minutes-{count}", count)
                    way = {"": _seconds(programs["ours"], files, MINUTE_MS)}
                    times[count] = medians(interleaved(way, runs=3, warm_up=False))[""]
                    results[f"ours_at_{count}"] = times[count]
    ratios = {
        f"vs_{name}": results[name] / results["ours"]
        for name in ("before", *WAYS)
        if name in results
    }
    if "before" in results:
        ratios["vs_before_8760_hours"] = results["before_8760_hours"] / results["ours_8760_hours"]
    ratios["two_cores_vs_one"] = results["ours_one_core"] / results["ours"]
    if scale:
        ratios["linear_exponent"] = slope(times)
        largest = scratch / f"minutes-{max(times)}"
        notes["cluster"] = _on_a_cluster(scratch / "cluster", sorted(largest.glob("*.parquet")))
    return Outcome("indicators", rows, results, ratios, notes)


@contextlib.contextmanager
def _program(
    master: str, log: Path, *, before: Path | None = None, memory: str = MEMORY
) -> Iterator[Served]:
    checkout = None if before is None else before.resolve()
    with served("benchmarks.our_indicators", memory, master, log=log, checkout=checkout) as program:
        yield program


def _seconds(program: Served, files: Sequence[Path], step_ms: int) -> Callable[[int], float]:
    return lambda _: program.seconds(files=files, step_ms=step_ms)


def _peer(name: str, files: Sequence[Path]) -> Callable[[int], None]:
    def way(number: int) -> None:
        WAYS[name](files, WIDTHS)

    return way


def _on_a_cluster(folder: Path, files: Sequence[Path]) -> str:
    """What became of ours on a worker with one executor of 2 GB."""
    cores = os.cpu_count() or 1
    with (
        standalone(folder, memory=EXECUTOR, cores=cores) as cluster,
        _program(cluster.url, folder.with_suffix(".log"), memory=EXECUTOR) as program,
    ):
        try:
            seconds = program.seconds(limit=3 * CAP_SECONDS, files=files, step_ms=MINUTE_MS)
        except (Capped, Failed) as error:
            return str(error)
    return f"finished in {seconds:.1f} s, the session's first run, {EXECUTOR} an executor"
