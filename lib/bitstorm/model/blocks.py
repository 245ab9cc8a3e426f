"""The points of an indicators snapshot, file by file, and as one row a block."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bitstorm.core.config import Training
from bitstorm.core.errors import DataError, SnapshotDamaged
from bitstorm.core.schema import indicator_table
from bitstorm.core.time import duration_ms, iso
from bitstorm.model.windowing import Frame
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame


def to_rows(seen: DataFrame, frame: Frame, *, files: int) -> DataFrame:
    """One row a block: `block`, `price` as array<float> and the frame's columns as array<double>,
    each of `frame.length`; NaN where there is no point or no value, a price negative where it is
    imputed.

    `seen` has `block`, `index`, `price`, `imputed` and the columns, each point in every block that
    sees it. In `files` partitions, blocks spread over them by hash: each file is a sample of the
    whole series. One shuffle; the same points always come out in the same order.
    """
    from pyspark.sql import functions as F

    place = F.col("index") - F.col("block") * frame.size + frame.before
    price = F.col("price").cast("float")
    missing = F.lit(float("nan"))
    point = F.struct(
        place.cast("int").alias("place"),
        F.when(F.col("imputed"), -price).otherwise(price).alias("price"),
        *[F.coalesce(F.col(name).cast("double"), missing).alias(name) for name in frame.columns],
    )
    nothing = F.struct(
        F.lit(-1).alias("place"),
        missing.cast("float").alias("price"),
        *[missing.alias(name) for name in frame.columns],
    )
    points = F.col("points")
    return (
        seen.select("block", point.alias("point"))
        .repartition(files, "block")
        .groupBy("block")
        .agg(F.sort_array(F.collect_list("point")).alias("points"))
        .withColumn(
            "points",
            # Hardly a block has a hole, and none costs less than one.
            F.when(F.size(points) == frame.length, points).otherwise(
                _filled(points, nothing, frame.length)
            ),
        )
        .select("block", *[points[name].alias(name) for name in ("price", *frame.columns)])
        .sortWithinPartitions("block")
    )


def _filled(points: Column, nothing: Column, length: int) -> Column:
    """The array with `nothing` at every place that has no point."""
    from pyspark.sql import functions as F

    def after_a_hole(point: Column, number: Column) -> Column:
        before = F.coalesce(F.get(points, number - 1)["place"], F.lit(-1))
        return F.concat(F.array_repeat(nothing, point["place"] - before - 1), F.array(point))

    rest = F.lit(length - 1) - F.element_at(points, -1)["place"]
    return F.concat(F.flatten(F.transform(points, after_a_hole)), F.array_repeat(nothing, rest))


def from_points(
    points: Iterable[Mapping[str, np.ndarray]], frame: Frame
) -> Iterator[dict[str, np.ndarray]]:
    """The columns of each block that has points of its own, one block at a time, as `to_rows`
    makes them.

    `points` come in pieces, in the order of time: `index` int64, `price` float32, `imputed` bool
    and the frame's columns in double, NaN for what is missing. One piece and one block are held.
    """
    held: dict[str, np.ndarray] = {name: np.empty(0) for name in frame.columns}
    held |= {"index": np.empty(0, np.int64), "price": np.empty(0, np.float32)}
    begin = 0  # of the indexes that no block owns yet
    for piece in itertools.chain(points, [None]):
        if piece is not None:
            more = {**piece, "price": np.where(piece["imputed"], -piece["price"], piece["price"])}
            held = {name: np.concatenate([held[name], more[name]]) for name in held}
        while len(left := held["index"][held["index"] >= begin]):
            block = int(left[0]) // frame.size
            end = (block + 1) * frame.size
            if piece is not None and left[-1] < end + frame.horizon - 1:
                break
            yield _row(block, held, frame)
            begin = end
            kept = held["index"] >= begin - frame.before
            held = {name: values[kept] for name, values in held.items()}


def _row(block: int, points: Mapping[str, np.ndarray], frame: Frame) -> dict[str, np.ndarray]:
    place = points["index"] - (block * frame.size - frame.before)
    seen = (place >= 0) & (place < frame.length)
    columns: dict[str, np.ndarray] = {"block": np.array([block], np.int64)}
    for name in ("price", *frame.columns):
        row = np.full((1, frame.length), np.nan, np.float32 if name == "price" else np.float64)
        row[0, place[seen]] = points[name][seen]
        columns[name] = row
    return columns


Spans = dict[str, tuple[int | None, int | None]]


def step_of(snapshot: Snapshot) -> int:
    """The grid's step in milliseconds."""
    return duration_ms(snapshot.manifest.details["frequency"])


def span_of(snapshot: Snapshot) -> tuple[int, int]:
    """The times of the first and the last point, ms UTC."""
    first, last = snapshot.manifest.first_ms, snapshot.manifest.last_ms
    assert first is not None and last is not None  # no empty snapshot is published
    return first, last


def frame_of(snapshot: Snapshot, settings: Training, features: Sequence[str]) -> Frame:
    """What the settings say a window over the snapshot's grid is made of."""
    return Frame(
        look_back=settings.look_back,
        horizon=settings.horizon,
        features=tuple(features),
        target=settings.target,
        step_ms=step_of(snapshot),
    )


def numeric_columns(snapshot: Snapshot) -> list[str]:
    """The columns of an indicators snapshot that a network can be given."""
    table = indicator_table(snapshot.manifest.details["windows"])
    return [f.name for f in table.fields if f.kind in ("float64", "float32", "int32")]


def tables(
    snapshot: Snapshot, columns: Sequence[str], *, after_ms: int | None = None
) -> Iterator[pa.Table]:
    """One table a file, in the order of time; of files that end after `after_ms` only. Raises
    SnapshotDamaged where a file has other rows than the manifest states."""
    import pyarrow.parquet as pq

    for file in sorted(snapshot.manifest.files, key=lambda file: file.first_ms):
        if after_ms is not None and file.last_ms <= after_ms:
            continue
        path = snapshot.folder / file.path
        table = pq.read_table(path, columns=list(columns), partitioning=None)
        if table.num_rows != file.rows:
            raise SnapshotDamaged(
                f"read {table.num_rows} rows of {path}, where the manifest states {file.rows}: "
                "a file has changed while it was read; read again"
            )
        yield table.sort_by("timestamp")


def arrays(
    snapshot: Snapshot, frame: Frame, *, after_ms: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """The same as `blocks.from_points` takes it."""
    names = ["timestamp", "price", "imputed", *frame.columns]
    for table in tables(snapshot, names, after_ms=after_ms):
        yield {
            "index": table["timestamp"].to_numpy() // frame.step_ms,
            "price": table["price"].to_numpy(),
            "imputed": table["imputed"].to_numpy(),
            **{name: table[name].to_numpy().astype(np.float64) for name in frame.columns},
        }


def check(snapshot: Snapshot, features: Sequence[str], spans: Spans) -> None:
    """Refuse values that no network can learn from, and parts without a price that could be a
    target. Raises DataError with the numbers."""
    # By feature: values that are no finite number, and the time of the first.
    strange, first = Counter[str](), dict[str, int]()
    # By part: its points, and those with an observed price.
    count, observed = Counter[str](), Counter[str]()
    rows = imputed_rows = 0
    for table in tables(snapshot, ["timestamp", "imputed", *features]):
        time, imputed = table["timestamp"].to_numpy(), table["imputed"].to_numpy()
        rows += len(time)
        imputed_rows += int(imputed.sum())
        for name in features:
            # A null is "not known yet"; a NaN is a value.
            bad = (table[name].is_valid().to_numpy()) & ~np.isfinite(table[name].to_numpy())
            if bad.any():
                strange[name] += int(bad.sum())
                first.setdefault(name, int(time[bad][0]))
        for part, (after, until) in spans.items():
            inside = np.ones(len(time), bool) if after is None else time > after
            inside &= True if until is None else time <= until
            count[part] += int(inside.sum())
            observed[part] += int((inside & ~imputed).sum())
    for name in strange:
        raise DataError(
            f"{name} is not a finite number at {strange[name]:,} of {rows:,} points, the first at "
            f"{iso(first[name])}; expected finite values, or none: compute the indicators "
            "again, or leave it out of training.features"
        )
    if any(observed[part] == 0 < count[part] for part in count):
        left = [f"{n:,} observed in the {part} part" for part, n in observed.items()]
        raise DataError(
            f"of {rows:,} points {imputed_rows:,} are imputed, which leaves "
            f"{', '.join(left)}; expected some in each: collect more, or set a coarser "
            "grid.frequency"
        )
