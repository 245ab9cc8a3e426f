"""Points → one row a block: in Spark, without a UDF, and on the driver, month by month."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from bitstorm.model.windowing import Frame

if TYPE_CHECKING:
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
