"""The points of an indicators snapshot, file by file, and as one row a block."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bitstorm.core.errors import DataError, SnapshotDamaged
from bitstorm.core.schema import indicator_table
from bitstorm.core.settings import Training
from bitstorm.core.time import duration_ms, iso
from bitstorm.model.windowing import Columns, WindowSpec
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame


def to_rows(seen: DataFrame, spec: WindowSpec, *, files: int) -> DataFrame:
    """One row a block: `block`, `price` as array<float> and the spec's columns as array<double>,
    each of `spec.length`. NaN marks a missing point or value; an imputed price is negative.

    `seen` has `block`, `index`, `price`, `imputed` and the columns, with a row for each block that
    holds the point. The result has `files` partitions, with the blocks spread by hash, so each file
    is a sample of the whole series. Takes one shuffle; the order follows from the points alone.
    """
    from pyspark.sql import functions as F

    place = F.col("index") - F.col("block") * spec.size + spec.before
    price = F.col("price").cast("float")
    missing = F.lit(float("nan"))
    point = F.struct(
        place.cast("int").alias("place"),
        F.when(F.col("imputed"), -price).otherwise(price).alias("price"),
        *[F.coalesce(F.col(name).cast("double"), missing).alias(name) for name in spec.columns],
    )
    nothing = F.struct(
        F.lit(-1).alias("place"),
        missing.cast("float").alias("price"),
        *[missing.alias(name) for name in spec.columns],
    )
    points = F.col("points")
    return (
        seen.select("block", point.alias("point"))
        .repartition(files, "block")
        .groupBy("block")
        .agg(F.sort_array(F.collect_list("point")).alias("points"))
        .withColumn(
            "points",
            # Few blocks have a hole, and the rest is faster without the search.
            F.when(F.size(points) == spec.length, points).otherwise(
                _without_holes(points, nothing, spec.length)
            ),
        )
        .select("block", *[points[name].alias(name) for name in ("price", *spec.columns)])
        .sortWithinPartitions("block")
    )


def _without_holes(points: Column, nothing: Column, length: int) -> Column:
    """The array with `nothing` at every place without a point."""
    from pyspark.sql import functions as F

    def after_a_hole(point: Column, number: Column) -> Column:
        before = F.coalesce(F.get(points, number - 1)["place"], F.lit(-1))
        return F.concat(F.array_repeat(nothing, point["place"] - before - 1), F.array(point))

    rest = F.lit(length - 1) - F.element_at(points, -1)["place"]
    return F.concat(F.flatten(F.transform(points, after_a_hole)), F.array_repeat(nothing, rest))


def from_points(points: Iterable[Columns], spec: WindowSpec) -> Iterator[Columns]:
    """The columns of each block with own points, block by block, equal to those of `to_rows`.

    `points` come in pieces, in the order of time: `index` int64, `price` float32, `imputed` bool
    and the spec's columns, float64, NaN where missing. Memory holds one piece and one block.
    """
    rest: dict[str, np.ndarray] = {name: np.empty(0) for name in spec.columns}
    rest |= {"index": np.empty(0, np.int64), "price": np.empty(0, np.float32)}
    begin = 0  # all earlier indexes are in the blocks yielded so far
    for piece in itertools.chain(points, [None]):
        if piece is not None:
            new = {**piece, "price": np.where(piece["imputed"], -piece["price"], piece["price"])}
            rest = {name: np.concatenate([rest[name], new[name]]) for name in rest}
        while len(left := rest["index"][rest["index"] >= begin]):
            block = int(left[0]) // spec.size
            end = (block + 1) * spec.size
            if piece is not None and left[-1] < end + spec.horizon - 1:
                break
            yield _row(block, rest, spec)
            begin = end
            needed = rest["index"] >= begin - spec.before
            rest = {name: values[needed] for name, values in rest.items()}


def _row(block: int, points: Columns, spec: WindowSpec) -> Columns:
    place = points["index"] - (block * spec.size - spec.before)
    seen = (place >= 0) & (place < spec.length)
    columns: dict[str, np.ndarray] = {"block": np.array([block], np.int64)}
    for name in ("price", *spec.columns):
        row = np.full((1, spec.length), np.nan, np.float32 if name == "price" else np.float64)
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


def spec_of(snapshot: Snapshot, settings: Training, features: Sequence[str]) -> WindowSpec:
    """The windows of these settings over the snapshot's grid."""
    step_ms = step_of(snapshot)
    return WindowSpec(
        settings.look_back, settings.horizon, tuple(features), settings.target, step_ms
    )


def numeric_columns(snapshot: Snapshot) -> list[str]:
    """The columns of an indicators snapshot that can be features."""
    table = indicator_table(snapshot.manifest.details["windows"])
    return [f.name for f in table.fields if f.kind in ("float64", "float32", "int32")]


def tables(
    snapshot: Snapshot, columns: Sequence[str], *, after_ms: int | None = None
) -> Iterator[pa.Table]:
    """A table for each file that ends after `after_ms`, in the order of time. Raises
    SnapshotDamaged where a file's number of rows is not the manifest's."""
    import pyarrow.parquet as pq

    for file in sorted(snapshot.manifest.files, key=lambda file: file.first_ms):
        if after_ms is not None and file.last_ms <= after_ms:
            continue
        (path,) = snapshot.paths([file])
        table = pq.read_table(path, columns=list(columns), partitioning=None)
        if table.num_rows != file.rows:
            raise SnapshotDamaged(
                f"found {table.num_rows} rows in {path}, expected {file.rows} by the manifest: "
                "the file has changed; run `bitstorm verify`"
            )
        yield table.sort_by("timestamp")


def arrays(
    snapshot: Snapshot, spec: WindowSpec, *, after_ms: int | None = None
) -> Iterator[Columns]:
    """The same as arrays, for `from_points`."""
    names = ["timestamp", "price", "imputed", *spec.columns]
    for table in tables(snapshot, names, after_ms=after_ms):
        yield {
            "index": table["timestamp"].to_numpy() // spec.step_ms,
            "price": table["price"].to_numpy(),
            "imputed": table["imputed"].to_numpy(),
            **{name: table[name].to_numpy().astype(np.float64) for name in spec.columns},
        }


def observed_prices(snapshot: Snapshot, *, after_ms: int) -> tuple[int, np.ndarray]:
    """The time of the first grid point after `after_ms` (ms UTC), and the prices of all points from
    there on, float64 (n,): NaN where no price is observed."""
    step, (first, last) = step_of(snapshot), span_of(snapshot)
    first = max(first, (after_ms // step + 1) * step)
    prices = np.full(max(0, (last - first) // step + 1), np.nan)
    for table in tables(snapshot, ["timestamp", "price", "imputed"], after_ms=after_ms):
        time, imputed = table["timestamp"].to_numpy(), table["imputed"].to_numpy()
        seen = (time >= first) & ~imputed
        prices[(time[seen] - first) // step] = table["price"].to_numpy()[seen]
    return first, prices


def check_points(snapshot: Snapshot, features: Sequence[str], spans: Spans) -> None:
    """Raise DataError, with the numbers, where a feature has values that are not finite, and where
    no point of a part has an observed price, which a target needs."""
    # By feature: how many values are not finite, and the time of the first one.
    bad_values, first = Counter[str](), dict[str, int]()
    # By part: its points, and those with an observed price.
    count, observed = Counter[str](), Counter[str]()
    rows = imputed_rows = 0
    for table in tables(snapshot, ["timestamp", "imputed", *features]):
        time, imputed = table["timestamp"].to_numpy(), table["imputed"].to_numpy()
        rows += len(time)
        imputed_rows += int(imputed.sum())
        for name in features:
            # A null means "not known yet"; a NaN is a value.
            bad = (table[name].is_valid().to_numpy()) & ~np.isfinite(table[name].to_numpy())
            if bad.any():
                bad_values[name] += int(bad.sum())
                first.setdefault(name, int(time[bad][0]))
        for part, (after, until) in spans.items():
            inside = np.ones(len(time), bool) if after is None else time > after
            inside &= True if until is None else time <= until
            count[part] += int(inside.sum())
            observed[part] += int((inside & ~imputed).sum())
    for name in bad_values:
        raise DataError(
            f"{name} is not a finite number at {bad_values[name]:,} of {rows:,} points, the first "
            f"at {iso(first[name])}; expected finite or null values: compute the indicators again, "
            "or remove it from training.features"
        )
    if any(observed[part] == 0 < count[part] for part in count):
        left = [f"{n:,} observed in the {part} part" for part, n in observed.items()]
        raise DataError(
            f"found {imputed_rows:,} imputed points of {rows:,}, and {', '.join(left)}; expected "
            "observed points in each: collect more, or set a coarser grid.frequency"
        )
