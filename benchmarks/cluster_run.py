"""The same jobs with two 1-core workers and with one of a standalone cluster on loopback, and in
local mode.

`--part` runs some parts alone. Ratios and their goals (`notes.goals`):
`indicators_speedup` (all indicators of `--rows` minutes, time of one worker over that of two),
`folds_speedup` (four folds of one length), `standalone_vs_local` (`ingest` and `indicators` of a
fifth of the minutes, two workers over `local[2]`), `day_tasks` (tasks of an ingest of a day's
minutes into a store, over those of local mode), `step_LIBRARY` (a step of `train --workers 2` over
one of a single process with half the batch). `notes.weights_LIBRARY` is the largest difference of a
weight after 43 steps between two workers and one, dropout 0 (at most 1e-5), and `notes.files` has
the months with several files and at most 128 MB (none). Each way has a driver process of its own,
and its first run (of the indicators the first five), to warm up, does not count.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import event_log
from benchmarks import ingest as ingest_benchmark
from benchmarks import train as train_benchmark
from benchmarks.cluster import Cluster, standalone
from benchmarks.harness import Outcome, interleaved, medians
from benchmarks.landing import DAY, land
from benchmarks.landing import context as context_of
from benchmarks.process import Served, served
from benchmarks.windows import write_walk
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.model import checkpoint
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.store import snapshots

ROWS = 5_000_000
HOURS = 8_760  # a year
RUNS = 3
# Of the indicators.
_WARM_UPS = 5
STEPS = 43
LARGE_BYTES = 128 << 20
LIBRARIES = ("tensorflow", "torch")
GOALS = {
    "indicators_speedup": "at least 1.3",
    "folds_speedup": "at least 1.6",
    "standalone_vs_local": "at most 1.3",
    "day_tasks": "at most 4",
    **{f"step_{name}": "at most 2" for name in LIBRARIES},
}


def run(rows: int = ROWS, *, part: Sequence[str] = ()) -> Outcome:
    """The parts of these names, or all; hours and epochs shrink with the rows."""
    if unknown := set(part) - PARTS.keys():
        raise click.UsageError(f"there is no part {min(unknown)}; expected {', '.join(PARTS)}")
    hush_loggers()
    outcome = Outcome(
        "cluster",
        rows,
        {},
        {},
        {"warm_up": "each way's first run does not count, of the indicators the first five"},
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        base = Path(scratch)
        # An application with one core and one with two at the same time.
        with standalone(base / "cluster", memory="2g", cores=1, workers=3) as cluster:
            for name in part or PARTS:
                folder = base / name
                folder.mkdir()
                PARTS[name](outcome, cluster, folder)
    outcome.notes["goals"] = {name: GOALS[name] for name in outcome.ratios}
    return outcome


def _indicators(outcome: Outcome, cluster: Cluster, folder: Path) -> None:
    files = write_walk(folder / "minutes", outcome.rows)
    with _workers(cluster, folder) as programs:
        ways = {name: _asking(p, job="indicators", files=files) for name, p in programs.items()}
        # Until then Java compiles, on the core that one worker leaves free.
        _compare(outcome, "indicators", ways, warm_ups=_WARM_UPS)


def _folds(outcome: Outcome, cluster: Cluster, folder: Path) -> None:
    epochs = 8 if outcome.rows >= ROWS else 2
    workspace = _hours(folder, outcome.rows)
    with _workers(cluster, folder) as programs:
        request = {"job": "folds", "workspace": workspace, "epochs": epochs}
        ways = {name: _asking(program, **request) for name, program in programs.items()}
        _compare(outcome, "folds", ways)


def _commands(outcome: Outcome, cluster: Cluster, folder: Path) -> None:
    source = folder / "batches"
    ingest_benchmark.write_batches(source, outcome.rows // 5)
    with _masters(cluster, folder) as programs:

        def way(name: str) -> Callable[[int], float]:
            def once(_: int) -> float:
                workspace = folder / name
                shutil.rmtree(workspace, ignore_errors=True)
                _copied(source, workspace / "landing")
                return programs[name].seconds(job="commands", workspace=workspace)

            return once

        found = medians(interleaved({name: way(name) for name in programs}, runs=RUNS))
    outcome.results |= {f"commands_{name}": seconds for name, seconds in found.items()}
    outcome.ratios["standalone_vs_local"] = found["standalone"] / found["local"]
    outcome.notes["commands_rows"] = outcome.rows // 5
    outcome.notes["files"] = {name: _files(folder / name) for name in found}


def _day(outcome: Outcome, cluster: Cluster, folder: Path) -> None:
    rows = max(DAY, outcome.rows // 50)
    ingest_benchmark.write_batches(folder / "store" / "landing", rows)
    ingest(context_of(folder / "store"))
    land(folder / "store" / "landing", ingest_benchmark.minutes(rows, DAY), "day")
    for name in ("standalone", "local"):
        events = folder / f"{name}-events"
        workspace = _copied(folder / "store", folder / name)
        with _program(cluster, name, 2, folder / f"{name}.log", events) as program:
            program.seconds(job="ingest", workspace=workspace)
        manifest = snapshots.required(context_of(workspace).workspace.prices).manifest
        assert manifest.rows == rows + DAY, manifest
        # The program has ended, so its log is complete.
        ends = Counter(event["Event"] for event in event_log.events(events))
        outcome.notes[f"day_tasks_{name}"] = ends["SparkListenerTaskEnd"]
    tasks = [outcome.notes[f"day_tasks_{name}"] for name in ("standalone", "local")]
    outcome.ratios["day_tasks"] = tasks[0] / tasks[1]


def _train(outcome: Outcome, cluster: Cluster, folder: Path) -> None:
    workspace = _hours(folder, outcome.rows)
    epochs = 4 if outcome.rows >= ROWS else 2
    with _masters(cluster, folder) as masters:
        programs = {2: masters["standalone"], 1: masters["local"]}

        def trained(count: int, library: str, batch: int, epochs: int) -> tuple[Path, Any]:
            target = Path(tempfile.mkdtemp(dir=folder))
            programs[count].seconds(
                job="train", workspace=workspace, library=library, count=count, batch=batch,
                epochs=epochs, folder=target,
            )  # fmt: skip
            return target, json.loads((target / "step.json").read_text())

        for library in LIBRARIES:
            if importlib.util.find_spec(library) is None:
                outcome.notes[library] = "not installed"
                continue

            def step(count: int, batch: int, name: str = library) -> Callable[[int], float]:
                return lambda _: float(trained(count, name, batch, epochs)[1]["step"])

            found = medians(
                interleaved({"two_workers": step(2, 256), "half_batch": step(1, 128)}, runs=RUNS)
            )
            outcome.results |= {f"step_{library}_{way}": value for way, value in found.items()}
            outcome.ratios[f"step_{library}"] = found["two_workers"] / found["half_batch"]
            _, one = trained(1, library, 256, 1)
            batch = -(-one["windows"] // STEPS)
            ends = [trained(count, library, batch, 1) for count in (1, 2)]
            outcome.notes[f"weights_{library}"] = {
                "steps": -(-one["windows"] // batch),
                "largest_difference": _distance([target for target, _ in ends]),
            }


@contextlib.contextmanager
def _program(
    cluster: Cluster, place: str, cores: int, log: Path, events: str | Path = ""
) -> Iterator[Served]:
    master = cluster.url if place == "standalone" else f"local[{cores}]"
    words = [master, str(cores), str(events)]
    with served("benchmarks.cluster_program", *words, log=log) as program:
        yield program


@contextlib.contextmanager
def _workers(cluster: Cluster, folder: Path) -> Iterator[dict[str, Served]]:
    """Two workers and one."""
    with (
        _program(cluster, "standalone", 2, folder / "two.log") as two,
        _program(cluster, "standalone", 1, folder / "one.log") as one,
    ):
        yield {"two_workers": two, "one_worker": one}


@contextlib.contextmanager
def _masters(cluster: Cluster, folder: Path) -> Iterator[dict[str, Served]]:
    """Two cores on the cluster and in local mode."""
    with (
        _program(cluster, "standalone", 2, folder / "standalone.log") as workers,
        _program(cluster, "local", 2, folder / "local.log") as local,
    ):
        yield {"standalone": workers, "local": local}


def _asking(program: Served, **request: Any) -> Callable[[int], float]:
    return lambda _: program.seconds(**request)


def _compare(
    outcome: Outcome, name: str, ways: Mapping[str, Callable[[int], float]], *, warm_ups: int = 1
) -> None:
    runs = interleaved(dict(ways), runs=RUNS + warm_ups - 1)
    found = medians({way: seconds[-RUNS:] for way, seconds in runs.items()})
    outcome.results |= {f"{name}_{way}": seconds for way, seconds in found.items()}
    outcome.ratios[f"{name}_speedup"] = found["one_worker"] / found["two_workers"]


def _hours(folder: Path, rows: int) -> Path:
    """A workspace with the indicators of a year, or of a part of it."""
    hours = max(1_500, min(HOURS, HOURS * rows // ROWS))
    context = context_of(folder / "hours")
    train_benchmark.write_walk(context.workspace.landing, hours)
    with context.spark("benchmark"):
        ingest(context)
        indicators(context)
    return folder / "hours"


def _copied(source: Path, target: Path) -> Path:
    """The folder's files at another place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "-l", source, target], check=True)
    return target


def _files(workspace: Path) -> dict[str, Any]:
    """The files of a month of either data set, and the months that break the rule."""
    found: dict[str, Any] = {"most_of_a_month": 0, "more_than_one": []}
    names = context_of(workspace).workspace
    for root in (names.prices, names.indicators):
        months = defaultdict(list)
        for file in snapshots.required(root).manifest.files:
            months[file.month].append(file.size)
        found["most_of_a_month"] = max(found["most_of_a_month"], *map(len, months.values()))
        found["more_than_one"] += [
            f"{root.name} {month}"
            for month, sizes in months.items()
            if len(sizes) > 1 and sum(sizes) <= LARGE_BYTES
        ]
    return found


def _distance(folders: Sequence[Path]) -> float:
    """The largest difference of a weight."""
    states = []
    for folder in folders:
        found, problems = checkpoint.load(folder)
        assert found is not None and not problems, problems
        states.append({n: v for n, v in found.state.items() if n.startswith("weights/")})
    one, other = states
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


PARTS: dict[str, Callable[[Outcome, Cluster, Path], None]] = {
    "indicators": _indicators,
    "folds": _folds,
    "commands": _commands,
    "day": _day,
    "train": _train,
}
