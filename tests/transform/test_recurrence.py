"""The tiled recurrence against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import Window
from pyspark.sql import functions as F

from bitstorm.transform.blocks import Blocks, in_blocks, series
from bitstorm.transform.recurrence import (
    TILE,
    Recurrence,
    corrected,
    states,
    tile_size,
    with_local,
    with_tile,
)

SCHEMA = "index bigint, u double"


def loop(inputs: np.ndarray, decay: float) -> np.ndarray:
    state, states = np.longdouble(0), []
    for value in inputs:
        state = np.longdouble(decay) * state + np.longdouble(value)
        states.append(state)
    return np.array(states, dtype=np.float64)


def recurred(frame, recurrence: Recurrence, *, tile: int, size: int) -> np.ndarray:
    """y of a series with holes; each hole begins a new run."""
    blocks = Blocks(size, before=1)
    last = F.lag("index").over(series())
    running = series().rowsBetween(Window.unboundedPreceding, Window.currentRow)
    rows = in_blocks(frame, blocks).withColumn("cut", blocks.cut(last))
    rows = rows.select(
        "*",
        F.count_if("cut").over(running).alias("run"),
        F.max(F.when(F.col("cut"), F.col("index"))).over(running).alias("start"),
    )
    rows = with_tile(rows, tile)
    known = states(rows, [recurrence], blocks=blocks, tile=tile, peak="u")
    local = with_local(rows, [recurrence], tile=tile).join(known, "tile", "left")
    y = corrected(recurrence, F.col(f"state_{recurrence.name}"), tile=tile)
    found = local.where(blocks.owned()).select("index", y.alias("y")).orderBy("index")
    return found.toPandas()["y"].to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize("decay", [1 / 3, 0.75, 13 / 14, 1 - 2 / 169, 1 - 2 / 5001])
def test_the_recurrence_equals_the_plain_loop_across_tiles_and_cuts(spark_session, decay):
    recurrence = Recurrence("y", "u", decay)
    tile = tile_size([recurrence], 1_024)
    chance = np.random.default_rng(3)
    lengths = [3 * tile + 17, 1, tile, tile + 1]
    inputs = [chance.uniform(0.5, 1e5, size=n) for n in lengths]
    # Holes inside a tile, of a whole block, and one index long.
    starts = np.cumsum([5, lengths[0] + 1, 1 + 3 * tile, lengths[2] + 40])
    rows = [
        (int(start + n), float(u))
        for start, part in zip(starts, inputs, strict=True)
        for n, u in enumerate(part)
    ]
    frame = spark_session.createDataFrame(rows, SCHEMA).repartition(3)
    expected = np.concatenate([loop(part, decay) for part in inputs])
    for size in (tile, 2 * tile):
        found = recurred(frame, recurrence, tile=tile, size=size)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_tile_is_as_large_as_the_steepest_decay_allows():
    assert tile_size([Recurrence("a", "u", 0.75), Recurrence("b", "u", 0.99)]) == TILE
    assert tile_size([Recurrence("a", "u", 1 / 3)]) == 1_024
    # Half a tile of the steepest, and a price on top, is still a double.
    assert np.finfo(float).max > (1 / 3) ** -512 * 1e9


@pytest.mark.parametrize("decay", [0.3, 1.0, 1.1, -0.5])
def test_a_decay_that_would_leave_the_range_of_a_double_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        Recurrence("y", "u", decay)
