"""All indicators of one series of minutes, and of a year of hours, beside pandas and Polars.

From Parquet to a sink, all columns of IndicatorSchema, on the same files: ours in two processes
(`local[2]`, and `local[1]` bound to one core, its JVM and Python worker with it). Rates of ours
over theirs, greater is better: `vs_pandas`, `vs_polars` and `two_cores_vs_one`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Outcome, interleaved, medians
from benchmarks.indicator_peers import WAYS
from benchmarks.landing import MEMORY, MINUTE_MS
from benchmarks.our_indicators import WIDTHS
from benchmarks.peers import HOW_TO_INSTALL, missing
from benchmarks.process import Served, served
from benchmarks.windows import write_walk
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings

ROWS = 5_000_000
HOURS, HOUR_MS = 8_760, 3_600_000
RUNS = 5


def run(rows: int = ROWS) -> Outcome:
    """All comparisons."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        return _run(Path(scratch), rows)


def _run(scratch: Path, rows: int) -> Outcome:
    minutes = write_walk(scratch / "minutes", rows)
    hours = write_walk(scratch / "hours", HOURS, files=1, step_ms=HOUR_MS)
    cold: dict[str, float] = {}
    logs = [scratch / f"{name}.log" for name in ("two", "one")]
    with (
        served("benchmarks.our_indicators", MEMORY, "local[2]", log=logs[0]) as two,
        served("benchmarks.our_indicators", MEMORY, "local[1]", log=logs[1]) as one,
    ):
        ways: dict[str, Callable[[int], float | None]] = {
            "ours": _seconds(two, minutes, MINUTE_MS),
            f"ours_{HOURS}_hours": _seconds(two, hours, HOUR_MS),
            "ours_one_core": _seconds(one, minutes, MINUTE_MS),
            **{name: _peer(name, minutes) for name in WAYS if not missing(name)},
        }
        results = medians(interleaved(ways, runs=RUNS, cold=cold))
    ratios = {f"vs_{n}": results[n] / results["ours"] for n in WAYS if n in results}
    ratios["two_cores_vs_one"] = results["ours_one_core"] / results["ours"]
    notes: dict[str, Any] = {name: HOW_TO_INSTALL for name in WAYS if missing(name)}
    notes["cold_first_run_seconds"] = {n: round(cold[n], 3) for n in ("ours", "ours_one_core")}
    return Outcome("indicators", rows, results, ratios, notes)


def _seconds(program: Served, files: Sequence[Path], step_ms: int) -> Callable[[int], float]:
    return lambda _: program.seconds(job="indicators", files=files, step_ms=step_ms)


def _peer(name: str, files: Sequence[Path]) -> Callable[[int], None]:
    def way(number: int) -> None:
        WAYS[name](files, WIDTHS)

    return way
