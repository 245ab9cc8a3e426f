"""Interleaved runs, medians, ratios by name, and the machine they were measured on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

RUNS = 3


@dataclass
class Outcome:
    """What a benchmark prints: `results` are seconds by way, `ratios` by name."""

    name: str
    rows: int
    results: dict[str, float]
    ratios: dict[str, float]
    notes: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "rows": self.rows,
            "results": {way: round(value, 4) for way, value in self.results.items()},
            "ratios": {name: round(value, 3) for name, value in self.ratios.items()},
            "notes": self.notes,
            "machine": machine(),
        }

    def to_text(self) -> str:
        lines = [f"{self.name}: {self.rows:,} rows, {machine()}"]
        lines += [f"  {way:<28} {value:>9.3f} s" for way, value in self.results.items()]
        lines += [f"  {name:<28} {value:>9.3f}" for name, value in self.ratios.items()]
        for name, value in self.notes.items():
            if isinstance(value, dict):
                lines += [f"  {name}:", *[f"    {n:<26} {_text(v)}" for n, v in value.items()]]
            else:
                lines.append(f"  {name:<28} {value}")
        return "\n".join(lines)


def _text(value: Any) -> str:
    return f"{value:>11,}" if isinstance(value, int | float) else str(value)


def interleaved(
    ways: Mapping[str, Callable[[int], float | None]],
    *,
    runs: int = RUNS,
    warm_up: bool = True,
    at_most: Mapping[str, int] | None = None,
    cold: dict[str, float] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each way, run in turn A B A B …; the argument numbers the run (0 warms up).

    A way that has to prepare something first takes the time itself and returns its seconds.
    `at_most` bounds the runs of slow ways; `cold` is given the seconds of the run that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(0 if warm_up else 1, runs + 1):
        for name, way in ways.items():
            if number > (at_most or {}).get(name, runs):
                continue
            began = time.perf_counter()
            own = way(number)
            taken = time.perf_counter() - began if own is None else own
            if number:
                seconds[name].append(taken)
            elif cold is not None:
                cold[name] = taken
    return seconds


def medians(seconds: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def machine() -> str:
    return f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()}"
