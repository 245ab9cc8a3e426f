"""The tiled recurrence against the plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from bitstorm.transform.recurrence import TILE, Recurrence, with_recurrences

SCHEMA = "segment int, position bigint, u double"


def loop(inputs: np.ndarray, decay: float) -> np.ndarray:
    state, states = np.longdouble(0), []
    for value in inputs:
        state = np.longdouble(decay) * state + np.longdouble(value)
        states.append(state)
    return np.array(states, dtype=np.float64)


@pytest.mark.slow
@pytest.mark.parametrize("decay", [1 / 3, 0.75, 13 / 14, 1 - 2 / 169, 1 - 2 / 5001])
def test_the_recurrence_equals_the_plain_loop_across_tiles_and_segments(spark_session, decay):
    chance = np.random.default_rng(3)
    lengths = [3 * TILE + 17, 1, TILE, TILE + 1]
    inputs = [chance.uniform(0.5, 1e5, size=n) for n in lengths]
    rows = [(s, n, float(u)) for s, part in enumerate(inputs) for n, u in enumerate(part)]
    frame = spark_session.createDataFrame(rows, SCHEMA).repartition(3)
    found = with_recurrences(frame, [Recurrence("y", "u", decay)])
    values = found.orderBy("segment", "position").toPandas()["y"].to_numpy()
    expected = np.concatenate([loop(part, decay) for part in inputs])
    np.testing.assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize("decay", [0.3, 1.0, 1.1, -0.5])
def test_a_decay_that_would_leave_the_range_of_a_double_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        Recurrence("y", "u", decay)
