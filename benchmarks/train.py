"""Training by the converter beside Keras on arrays, and the default batch size beside 32.

`--rows` hours of a walk whose next return can be learnt in part, look-back 60. Ratios, smaller is
better but for the speed: `epoch_vs_in_memory` (an epoch of ours, checkpoint included, over one of
Keras' `fit` on the same windows as arrays), `memory_slope_mb_per_epoch` (of the process, from epoch
6 to 30), `first_batch_seconds` (from making a pass to its first batch), `default_vs_batch32_speed`
(windows/s, greater is better), `default_vs_batch32_loss` (best validation loss after as many
epochs). `determinism_cost` is a step's time with TensorFlow's deterministic operations over that
without. Where PyTorch is installed, `epoch_torch` is an epoch of the same network there, from the
same feed.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.harness import Outcome, interleaved, medians
from benchmarks.landing import MEMORY, START_MS, land
from benchmarks.landing import context as context_of
from bitstorm.core.errors import BitstormError
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.model import loop, network, torch_backend, training
from bitstorm.model.training import Progress, Task
from bitstorm.model.training_data import prepare
from bitstorm.model.training_run import Prepared, batch_size_and_rate, open_attempt
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.pipelines.train import train

if TYPE_CHECKING:
    from bitstorm.context import Context

ROWS = 8_760  # a year
HOUR_MS = 3_600_000
RUNS = 7
EPOCHS = 8
LONG = 30
SEED = 42
# Of a run that takes turns with Keras, as many as `train` takes with its default settings: what a
# run does once, such as reading the blocks, has its share in each.
TOGETHER = 8


def run(rows: int = ROWS) -> Outcome:
    """All of it on one series; the ways that are compared take turns."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        return _run(Path(scratch), rows)


def write_walk(folder: Path, rows: int) -> None:
    """Hourly closes; returns follow their last three, and noise of three times that size."""
    noise = np.random.default_rng(7).normal(size=rows + 100)
    returns = np.zeros(rows + 100)
    for t in range(3, rows + 100):
        past = 0.4 * returns[t - 1] - 0.3 * returns[t - 3]
        returns[t] = past + 0.3 * np.tanh(returns[t - 2]) * returns[t - 1] + noise[t]
    prices = 20_000 * np.exp(0.005 * np.cumsum(returns[100:]))
    stamps = START_MS + np.arange(rows) * HOUR_MS
    land(folder, pd.DataFrame({"timestamp": stamps, "price": prices.round(2)}), "hours")


def _run(scratch: Path, rows: int) -> Outcome:
    context = context_of(scratch / "workspace", f"spark.driver_memory={MEMORY}")
    write_walk(context.workspace.landing, rows)
    with context.spark("benchmark"):
        ingest(context)
        indicators(context)
        began = time.perf_counter()
        train(context)
        whole = time.perf_counter() - began
        with (
            open_attempt(context, resume=None, accept_snapshot=False) as wanted,
            prepare(context, wanted) as ready,
        ):
            return _measured(context, scratch, rows, ready, whole)


def _measured(context: Context, scratch: Path, rows: int, ready: Prepared, whole: float) -> Outcome:
    feed = ready.feeds["training"]
    batch_size, rate = batch_size_and_rate(context.settings.training)
    arrays = {part: _arrays(f, batch_size) for part, f in ready.feeds.items()}
    first = [_first_batch(feed, batch_size, number) for number in range(RUNS)]

    def made(learning_rate: float, seeded: Callable[..., Any] = network.seeded) -> Any:
        settings = context.settings.training
        return seeded(
            look_back=settings.look_back,
            features=len(ready.features),
            units=settings.units,
            dropout=settings.dropout,
            learning_rate=learning_rate,
            seed=SEED,
        )

    ours, keras_own = made(rate), _keras_fit(made(rate), arrays, batch_size)

    def by_converter(number: int) -> float:
        return _fit(ours, ready, scratch, batch_size, epochs=TOGETHER)[0]

    seconds = interleaved({"epoch": by_converter, "epoch_in_memory": keras_own}, runs=RUNS)
    small, large = made(0.001), made(rate)
    found: dict[str, tuple[float, float]] = {}
    for name, one, size in (("batch32", small, 32), ("default", large, batch_size)):
        found[name] = _fit(one, ready, scratch, size, epochs=EPOCHS)
    memory: list[float] = []
    long_seconds, _ = _fit(
        made(rate), ready, scratch, batch_size, epochs=LONG, each=lambda: memory.append(_rss())
    )
    if importlib.util.find_spec("torch") is not None:
        # Last: in the process's memory it would be seen.
        other = made(rate, torch_backend.seeded)
        seconds["epoch_torch"] = [
            _fit(other, ready, scratch, batch_size, epochs=TOGETHER)[0] for _ in range(RUNS)
        ]
    results = {
        **medians(seconds),
        "epoch_batch32": found["batch32"][0],
        "epoch_default": found["default"][0],
        "first_batch": statistics.median(first),
        "train_default_settings": whole,
        f"train_{LONG}_epochs": long_seconds * LONG,
    }
    ratios = {
        "epoch_vs_in_memory": results["epoch"] / results["epoch_in_memory"],
        "memory_slope_mb_per_epoch": _slope(memory[5:]),
        "first_batch_seconds": results["first_batch"],
        "default_vs_batch32_speed": found["batch32"][0] / found["default"][0],
        "default_vs_batch32_loss": found["default"][1] / found["batch32"][1],
    }
    notes = {
        "windows": {part: len(target) for part, (_, target) in arrays.items()},
        "windows_per_second": round(len(feed) / results["epoch"]),
        "batch_size": batch_size,
        "learning_rate": round(rate, 6),
        "best_validation_loss": {name: round(loss, 5) for name, (_, loss) in found.items()},
        "determinism_cost": _determinism_cost(arrays, scratch),
    }
    return Outcome("train", rows, results, ratios, notes)


def _arrays(feed: Any, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = [(np.asarray(w), np.asarray(t)) for w, t in feed.dataset(batch_size=batch_size)]
    window, target = (np.concatenate(column) for column in zip(*pairs, strict=True))
    if len(target) != len(feed):
        raise BitstormError(f"a pass served {len(target)} windows, expected {len(feed)}")
    return window, target


def _first_batch(feed: Any, batch_size: int, number: int) -> float:
    began = time.perf_counter()
    next(iter(feed.dataset(batch_size=batch_size, seed=SEED, epoch=lambda: number)))
    return time.perf_counter() - began


def _fit(
    built: Any,
    ready: Prepared,
    scratch: Path,
    batch_size: int,
    *,
    epochs: int,
    each: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Seconds of an epoch, and the best validation loss."""
    folder = Path(tempfile.mkdtemp(dir=scratch))

    def progress(at: Progress) -> None:
        if at.val_loss is not None:
            each()

    by = loop if isinstance(built, torch_backend.TorchNetwork) else training
    began = time.perf_counter()
    task = Task(
        train=ready.feeds["training"],
        validation=ready.feeds["validation"],
        epochs=epochs,
        patience=epochs,
        batch_size=batch_size,
        seed=SEED,
        folder=folder,
        progress=progress,
        record={},
    )
    fitted = by.fit(built, task)
    # By our own clock: with what is written after each epoch, and the opening of the first pass.
    return (time.perf_counter() - began) / epochs, fitted.best_validation_loss


def _keras_fit(
    built: Any, arrays: dict[str, tuple[np.ndarray, np.ndarray]], batch_size: int
) -> Callable[[int], float]:
    def fit(number: int) -> float:
        began = time.perf_counter()
        built.fit(
            *arrays["training"],
            validation_data=arrays["validation"],
            batch_size=batch_size,
            epochs=TOGETHER,
            verbose=0,
        )
        return (time.perf_counter() - began) / TOGETHER

    return fit


def _rss() -> float:
    """Megabytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


def _slope(values: list[float]) -> float:
    """Of the line through them by least squares, a step."""
    return float(np.polyfit(np.arange(len(values)), values, 1)[0])


_STEPS = """
import sys, time
import numpy as np
from bitstorm.model import network
if sys.argv[2] == "free":
    import tensorflow as tf
    tf.config.experimental.enable_op_determinism = lambda: None
with np.load(sys.argv[1]) as arrays:
    window, target = arrays["window"], arrays["target"]
built = network.seeded(
    look_back=window.shape[1], features=window.shape[2], units=50, dropout=0.2,
    learning_rate=0.001, seed=1,
)
built.train_on_batch(window, target)
for _ in sys.stdin:
    began = time.perf_counter()
    for _ in range(10):
        float(built.train_on_batch(window, target))
    print(time.perf_counter() - began, flush=True)
"""


def _determinism_cost(arrays: dict[str, tuple[np.ndarray, np.ndarray]], scratch: Path) -> float:
    """In two processes that take turns: what is switched on cannot be switched off."""
    window, target = arrays["training"]
    file = scratch / "batch.npz"
    np.savez(file, window=window[:256], target=target[:256])
    started = {
        kind: subprocess.Popen(
            [sys.executable, "-c", _STEPS, str(file), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for kind in ("kept", "free")
    }

    def asked(kind: str) -> Callable[[int], float]:
        process = started[kind]
        to, back = process.stdin, process.stdout
        assert to is not None and back is not None

        def ask(number: int) -> float:
            to.write("\n")
            to.flush()
            return float(back.readline())

        return ask

    try:
        seconds = medians(interleaved({kind: asked(kind) for kind in started}, runs=RUNS))
    finally:
        for process in started.values():
            process.communicate()
    return round(seconds["kept"] / seconds["free"], 3)
