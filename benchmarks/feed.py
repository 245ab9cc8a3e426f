"""Windows of one long series of minutes in batches, beside two other ways of feeding them.

One feature, look-back 60, batches of 256, one pass over all windows; cuts, imputed points and
counts included. All ways serve the same windows, which is checked while they warm up. Ratios,
greater is better: `vs_stock` (the seconds of one row per window and `make_tf_dataset` as it is,
over ours), `vs_in_memory` (of a numpy array framed in `tf.data`), `shuffled_vs_stock`,
`convert_vs_stock` (from points to a converter). Smaller is better: `disk_vs_series` (bytes over
four for each row), `wide_lookback_cost` (look-back 240 over 60: seconds or bytes to convert,
whichever grew more). `first_batch` is the wait for the first one of a shuffled pass. `ours` is
`Feed.dataset`, as Keras takes it, with a reader for each pass; a network takes some thousand
windows a second.
"""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import landing
from benchmarks.harness import Outcome, interleaved, medians
from benchmarks.landing import MINUTE_MS, START_MS
from bitstorm.core.third_party_noise import hush_loggers, without_third_party_warnings
from bitstorm.core.workspace import file_url
from bitstorm.indicators.windows import Blocks, in_blocks
from bitstorm.model import blocks, dataset, windowing
from bitstorm.model.feed import Feed, make_feed
from bitstorm.model.scaling import Scale, Scaler
from bitstorm.model.windowing import WindowSpec

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = 1_000_000
RUNS = 7
# Its conversion takes ten seconds, and is far from its bound.
STOCK_CONVERSIONS = 3
LOOK_BACK, WIDE, BATCH = 60, 240, 256
FILES = 8
CUTS = 9

# A pass: batches of windows (n, look_back, 1) and targets (n,), as whatever has a shape.
Pass = Iterator[tuple[Any, Any]]


def run(rows: int = ROWS) -> Outcome:
    """All comparisons."""
    hush_loggers()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, without_third_party_warnings():
        return _run(Path(scratch), rows)


@dataclass(frozen=True)
class Series:
    """A walk of minutes with cuts and imputed points; `files` hold `timestamp`, `price`,
    `imputed`, `segment` and `log_return`, the arrays the same. `scaler` is fitted on all of it."""

    files: list[Path]
    table: pa.Table
    scaler: Scaler

    @property
    def scaled(self) -> np.ndarray:
        """Scaled log returns, float32; NaN after a cut."""
        found = self.table["log_return"].to_numpy()
        return self.scaler.features["log_return"].forward(found).astype(np.float32)

    @property
    def targets(self) -> np.ndarray:
        """The scaled log return to the next point, float32; NaN where it is imputed or cut off."""
        then = self.table["log_return"].to_numpy().copy()
        then[self.table["imputed"].to_numpy()] = np.nan
        scaled = self.scaler.target.forward(then).astype(np.float32)
        return np.append(scaled[1:], np.float32(np.nan))

    @property
    def ends(self) -> np.ndarray:
        """Rows that end a whole window whose target is known, by time."""
        bad = np.concatenate([[0], np.cumsum(np.isnan(self.scaled))])
        last = np.arange(LOOK_BACK - 1, len(self.scaled))
        whole = bad[last + 1] == bad[last + 1 - LOOK_BACK]
        return last[whole & ~np.isnan(self.targets[last])]


def write_series(folder: Path, rows: int) -> Series:
    """The same series for the same `rows`."""
    chance = np.random.default_rng(rows)
    segment = np.arange(rows) * (CUTS + 1) // rows
    index = START_MS // MINUTE_MS + np.arange(rows) + 1_000 * segment
    price = np.exp(math.log(20_000) + np.cumsum(chance.normal(0, 5e-4, rows))).astype(np.float32)
    imputed = chance.random(rows) < 0.001
    imputed[np.flatnonzero(np.diff(segment, prepend=-1))] = False
    exact = price.astype(np.float64)
    returns = np.log1p(np.diff(exact, prepend=np.nan) / np.concatenate([[np.nan], exact[:-1]]))
    returns[np.diff(segment, prepend=-1) != 0] = np.nan
    table = pa.table(
        {
            "timestamp": index * MINUTE_MS,
            "price": price,
            "imputed": imputed,
            "segment": segment,
            "log_return": pa.array(returns, from_pandas=True),
        }
    )
    folder.mkdir(parents=True)
    paths = [folder / f"part-{number}.parquet" for number in range(FILES)]
    edges = np.linspace(0, rows, FILES + 1, dtype=int)
    for path, begin, end in zip(paths, edges[:-1], edges[1:], strict=True):
        pq.write_table(table.slice(begin, end - begin), path)
    observed = returns[1:][~imputed[1:]]
    scaler = Scaler(
        {"log_return": Scale(float(np.nanmean(returns)), float(np.nanstd(returns)))},
        Scale(0.0, float(np.sqrt(np.nanmean(observed**2)))),
    )
    return Series(paths, table, scaler)


def _run(scratch: Path, rows: int) -> Outcome:
    series = write_series(scratch / "series", rows)
    context = landing.context(scratch / "workspace")
    context.load_tensorflow()
    with context.spark("benchmark") as spark, ExitStack() as held:
        conversions = medians(
            interleaved(
                {
                    "convert_ours": lambda _: _converted(spark, series, LOOK_BACK, scratch),
                    "convert_stock": lambda n: _stock_converted(spark, series, scratch, n),
                    "convert_ours_wide": lambda _: _converted(spark, series, WIDE, scratch),
                },
                runs=RUNS,
                at_most={"convert_stock": STOCK_CONVERSIONS},
            )
        )
        stored = {
            look_back: held.enter_context(_stored(spark, series, look_back, scratch / "kept"))
            for look_back in (LOOK_BACK, WIDE)
        }
        feed = make_feed(stored[LOOK_BACK], series.scaler)
        stock = stock_converter(spark, series, scratch / "stock")
        passes: dict[str, Callable[[int], Pass]] = {
            "ours": lambda _: _epoch(feed, seed=None, number=0),
            "ours_shuffled": lambda number: _epoch(feed, seed=1, number=number),
            "stock": lambda _: by_stock(stock),
            "in_memory": lambda _: in_memory(series),
        }
        expected = keys(_plain(series))
        if len(feed) != len(expected):
            raise AssertionError(f"counted {len(feed)} windows, expected {len(expected)}")
        seconds = interleaved(
            {name: partial(_timed, way, expected) for name, way in passes.items()}, runs=RUNS
        )
        first = [_first_batch(feed, number) for number in range(RUNS)]
        results = {**medians(seconds), **conversions, "first_batch": statistics.median(first)}
        disk = {look_back: _bytes(one.folder) for look_back, one in stored.items()}
        disk_bytes = {
            "ours": disk[LOOK_BACK],
            "ours_wide": disk[WIDE],
            "stock": _bytes(Path(stock.cache_dir_url.removeprefix("file://"))),
        }
        stock.delete()
    return Outcome(
        name="feed",
        rows=rows,
        results=results,
        ratios={
            "vs_stock": results["stock"] / results["ours"],
            "vs_in_memory": results["in_memory"] / results["ours"],
            "shuffled_vs_stock": results["stock"] / results["ours_shuffled"],
            "convert_vs_stock": results["convert_stock"] / results["convert_ours"],
            "disk_vs_series": disk[LOOK_BACK] / (4 * rows),
            "wide_lookback_cost": max(
                results["convert_ours_wide"] / results["convert_ours"], disk[WIDE] / disk[LOOK_BACK]
            ),
        },
        notes={
            "disk_bytes": disk_bytes,
            "windows": len(expected),
            "windows_per_second": {name: round(len(expected) / results[name]) for name in passes},
        },
    )


def _timed(way: Callable[[int], Pass], expected: np.ndarray, number: int) -> float:
    """Seconds of a pass, whose windows are counted; those of the first are looked at."""
    if number == 0:
        check(way(number), expected)
    began = time.perf_counter()
    served = sum(target.shape[0] for _, target in way(number))
    seconds = time.perf_counter() - began
    if served != len(expected):
        raise AssertionError(f"{served} windows were served, expected {len(expected)}")
    return seconds


def check(batches: Pass, expected: np.ndarray) -> None:
    """Raise where a pass serves another set of windows."""
    found = keys(batches)
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=1e-5, atol=1e-4):
        raise AssertionError(f"other windows were served: {len(found)} for {len(expected)}")


def keys(batches: Pass) -> np.ndarray:
    """A number for each window and its target, ascending: the same for the same set of them."""
    weights = np.sqrt(np.arange(2, LOOK_BACK + 2))
    found = []
    for window, target in batches:
        flat = np.asarray(window, np.float64).reshape(-1, LOOK_BACK)
        found.append(flat @ weights + math.pi * np.asarray(target, np.float64))
    return np.sort(np.concatenate(found))


def _plain(series: Series) -> Pass:
    """All windows as numpy has them, in pieces."""
    views = np.lib.stride_tricks.sliding_window_view(series.scaled, LOOK_BACK)
    for ends in np.array_split(series.ends, 20):
        yield views[ends - LOOK_BACK + 1], series.targets[ends]


def _epoch(feed: Feed, *, seed: int | None, number: int) -> Generator[tuple[Any, Any], None, None]:
    yield from feed.dataset(batch_size=BATCH, seed=seed, epoch=lambda: number)


def _first_batch(feed: Feed, number: int) -> float:
    """Seconds from making a shuffled pass to its first batch."""
    began = time.perf_counter()
    with closing(_epoch(feed, seed=1, number=number)) as batches:
        next(batches)
        return time.perf_counter() - began


def _stored(spark: SparkSession, series: Series, look_back: int, root: Path) -> Any:
    """Ours, from the points to the converter: blocks and their files."""
    frame = WindowSpec(look_back, 1, ("log_return",), "log_return", MINUTE_MS)
    cut = Blocks(frame.size, before=frame.before, after=frame.horizon)
    times = series.table["timestamp"]
    steps = (times[-1].as_py() - times[0].as_py()) // MINUTE_MS + 1

    points = _points(spark, series).selectExpr(
        f"timestamp div {MINUTE_MS} AS index", "price", "imputed"
    )
    files = dataset.file_count(steps, frame)
    rows = blocks.to_rows(in_blocks(points, cut), frame, files=files)
    return dataset.write_blocks(spark, frame, rows, root=root)


def _converted(spark: SparkSession, series: Series, look_back: int, scratch: Path) -> None:
    with _stored(spark, series, look_back, scratch / "again"):
        pass


def _points(spark: SparkSession, series: Series) -> DataFrame:
    return spark.read.parquet(*[file_url(file) for file in series.files])


def stock_converter(spark: SparkSession, series: Series, cache: Path) -> Any:
    """As the converter's tutorials do it: one row a window, and the DataFrame handed over."""
    from petastorm.spark import SparkDatasetConverter, make_spark_converter
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy("segment").orderBy("timestamp")
    feature, target = series.scaler.features["log_return"], series.scaler.target
    then = F.lead(F.when(~F.col("imputed"), F.col("log_return"))).over(order)
    value = ((F.col("log_return") - feature.shift) / feature.scale).cast("float")
    rows = (
        _points(spark, series)
        .select(
            F.collect_list(value).over(order.rowsBetween(1 - LOOK_BACK, 0)).alias("window"),
            ((then - target.shift) / target.scale).cast("float").alias("target"),
        )
        .where((F.size("window") == LOOK_BACK) & F.col("target").isNotNull())
    )
    cache.mkdir(parents=True, exist_ok=True)
    spark.conf.set(SparkDatasetConverter.PARENT_CACHE_DIR_URL_CONF, file_url(cache))
    return make_spark_converter(rows)


def _stock_converted(spark: SparkSession, series: Series, scratch: Path, number: int) -> None:
    cache = scratch / f"stock-{number}"
    # It would give the same folder for the same plan.
    stock_converter(spark, series, cache)
    shutil.rmtree(cache)


def by_stock(converter: Any) -> Pass:
    """`make_tf_dataset` as it is, but for the one epoch."""
    with converter.make_tf_dataset(batch_size=BATCH, num_epochs=1) as dataset:
        for batch in dataset:
            yield batch.window, batch.target


def in_memory(series: Series) -> Pass:
    """A numpy array, framed block by block in `tf.data` and batched anew."""
    import tensorflow as tf

    size = windowing.SIZE
    values, targets = series.scaled, series.targets
    wanted = np.zeros(len(values), bool)
    wanted[series.ends] = True
    count = -(-len(values) // size)
    rest = count * size - len(values)
    padded = np.pad(values, (LOOK_BACK - 1, rest))
    views = np.lib.stride_tricks.sliding_window_view(padded, size + LOOK_BACK - 1)[::size]
    cut = (np.pad(targets, (0, rest)).reshape(-1, size), np.pad(wanted, (0, rest)))

    def windows_of(block: Any, target: Any, keep: Any) -> tuple[Any, Any]:
        window = tf.boolean_mask(tf.signal.frame(block, LOOK_BACK, 1), keep)
        return window[:, :, None], tf.boolean_mask(target, keep)

    sources = (np.ascontiguousarray(views), cut[0], cut[1].reshape(-1, size))
    dataset = tf.data.Dataset.from_tensor_slices(sources)
    dataset = dataset.map(windows_of, num_parallel_calls=tf.data.AUTOTUNE)
    yield from dataset.rebatch(BATCH).prefetch(tf.data.AUTOTUNE)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
