"""Blocks on disk by plain loops, without Spark: what the feed's tests read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bitstorm.model import feed as feeds
from bitstorm.model.dataset import StoredBlocks
from bitstorm.model.feed import Feed
from bitstorm.model.scaling import Scale, Scaler
from bitstorm.model.windowing import WindowSpec

STEP = 3_600_000
UNSCALED = Scale(0.0, 1.0)


def frame_of(*, look_back=3, horizon=1, features=("price",), target="price", size=8) -> WindowSpec:
    return WindowSpec(look_back, horizon, tuple(features), target, STEP, size)


def write(
    folder: Path,
    frame: WindowSpec,
    price: np.ndarray | Sequence[float],
    *,
    imputed: np.ndarray | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
    files: int = 2,
) -> Path:
    """One point a step from index 0 on; a NaN is a hole. Block n goes to file n mod `files`."""
    folder.mkdir(parents=True)
    count = len(price)
    signs = np.where([False] * count if imputed is None else imputed, -1.0, 1.0)
    series = {"price": np.asarray(price) * signs, **(extra or {})}
    rows = []
    for block in range(-(-count // frame.size)):
        values_of: dict[str, list[float]] = {name: [] for name in series}
        begin = block * frame.size - frame.before
        for index in range(begin, begin + frame.length):
            for name, values in series.items():
                values_of[name].append(float(values[index]) if 0 <= index < count else float("nan"))
        if not np.isnan(values_of["price"]).all():
            rows.append({"block": block, **values_of})
    kinds = {name: pa.float32() if name == "price" else pa.float64() for name in series}
    schema = pa.schema(
        [("block", pa.int64()), *[(name, pa.list_(kind)) for name, kind in kinds.items()]]
    )
    for file in range(files):
        some = pa.Table.from_pylist(rows[file::files], schema=schema)
        if len(some):
            pq.write_table(some, folder / f"part-{file:05}.parquet")
    return folder


def stored(folder: Path, frame: WindowSpec) -> StoredBlocks:
    """The converter's data set of the files in a folder."""
    from petastorm.spark import SparkDatasetConverter

    urls = [f"file://{path}" for path in sorted(folder.glob("*.parquet"))]
    converter = SparkDatasetConverter(f"file://{folder}", urls, len(urls))
    return StoredBlocks(frame, converter, folder)


def feed(folder: Path, frame: WindowSpec, **bounds: int) -> Feed:
    """An unscaled feed; `first` and `last` are the bounds of the target's grid index."""
    scaler = Scaler(dict.fromkeys(frame.features, UNSCALED), UNSCALED)
    limits = {}
    if "first" in bounds:
        limits["after_ms"] = bounds["first"] * STEP - 1
    if "last" in bounds:
        limits["until_ms"] = bounds["last"] * STEP
    return feeds.make_feed(stored(folder, frame), scaler, **limits)
