"""Levels of detail: they keep every extreme, and follow from the points alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.report import thinning
from bitstorm.report.thinning import FACTOR, Level, levels

COLUMNS = 2
MOST = 6


def naive(index: np.ndarray, values: np.ndarray, *, most: int) -> list[tuple[int, int, np.ndarray]]:
    """(width, first bucket, extremes (columns, count, 2)) of each level, bucket by bucket."""
    found, width = [], 1
    while True:
        bucket = index // width
        first = max(bucket[0], bucket[-1] - most + 1)
        table = np.full((len(values), bucket[-1] - first + 1, 2), np.nan)
        for place in range(table.shape[1]):
            for column, row in enumerate(values):
                inside = row[(bucket == first + place) & np.isfinite(row)]
                if len(inside):
                    table[column, place] = inside.min(), inside.max()
        found.append((width, int(first), table))
        if first == bucket[0]:
            return found
        width *= FACTOR


@st.composite
def series(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Indexes with holes, values float32 with NaN, and the places where the pieces are cut."""
    n, first = draw(st.integers(1, 120)), draw(st.integers(0, 3_000))
    cuts = draw(st.lists(st.integers(0, n), max_size=5))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    index = first + np.cumsum(random.choice([1, 1, 1, 2, 9], n))
    values = random.normal(0, 1e3, (COLUMNS, n)).astype(np.float32).astype(np.float64)
    values[random.random((COLUMNS, n)) < draw(st.sampled_from([0.0, 0.2, 0.9, 1.0]))] = np.nan
    return index, values, sorted(cuts)


def found_of(
    index: np.ndarray, values: np.ndarray, cuts: list[int], *, most: int = MOST
) -> list[Level]:
    parts = zip([0, *cuts], [*cuts, len(index)], strict=True)
    pieces = [(index[a:b], values[:, a:b]) for a, b in parts]
    first, last = int(index[0]), int(index[-1])
    return levels(pieces, first=first, last=last, columns=COLUMNS, most=most)


@settings(deadline=None, max_examples=60)
@given(series())
def test_a_level_is_the_one_of_all_rows_for_any_pieces(case):
    index, values, cuts = case
    found = found_of(index, values, cuts)
    expected = naive(index, values, most=MOST)
    assert [(level.width, level.first) for level in found] == [one[:2] for one in expected]
    for level, (_, _, table) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.stack([level.low, level.high], axis=-1), table)


@settings(deadline=None, max_examples=60)
@given(series())
def test_extremes_are_in_every_level_that_covers_them(case):
    index, values, cuts = case
    for level in found_of(index, values, cuts):
        covered = values[:, index >= level.first * level.width]
        for column, row in enumerate(covered):
            known = row[np.isfinite(row)]
            if len(known):
                assert np.nanmin(level.low[column]) == known.min()
                assert np.nanmax(level.high[column]) == known.max()
            else:
                assert np.isnan(level.low[column]).all()


@settings(deadline=None, max_examples=60)
@given(series())
def test_the_last_level_covers_all_and_none_is_too_long(case):
    index, values, cuts = case
    found = found_of(index, values, cuts)
    assert found[-1].first == index[0] // found[-1].width
    for level in found:
        assert level.count <= MOST
        assert level.first + level.count - 1 == index[-1] // level.width


def test_up_to_the_most_points_there_is_one_level():
    index = np.arange(5, 5 + thinning.MOST)
    values = np.ones((1, len(index)))
    pieces = [(index, values)]
    (only,) = levels(pieces, first=5, last=int(index[-1]), columns=1)
    assert (only.width, only.first, only.count) == (1, 5, thinning.MOST)
    more = [*pieces, (index[-1:] + 1, values[:, :1])]
    found = levels(more, first=5, last=int(index[-1]) + 1, columns=1)
    assert [(one.width, one.first, one.count) for one in found] == [(1, 6, 10_240), (4, 1, 2_561)]


def test_memory_holds_one_piece_and_the_levels():
    piece, pieces = 10_000, 100

    def made() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, piece * pieces, piece):
            yield np.arange(start, start + piece), np.ones((1, piece))

    tracemalloc.start()
    found = levels(made(), first=0, last=piece * pieces - 1, columns=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [level.count for level in found] == [10_240] * 4 + [3_907]
    # Float32 of all points alone are 4 MB.
    assert peak < 1_500_000


@pytest.mark.parametrize(("width", "parts"), [(1, [0]), (4, [0, 1])])
def test_the_bytes_are_column_after_column_and_minima_first(width: int, parts: list[int]):
    low = np.array([[1, 2, np.nan], [4, 5, 6]], np.float32)
    level = Level(width, 7, low, low + 10)
    read = np.frombuffer(level.to_bytes(), "<f4").reshape(2, len(parts), 3)
    np.testing.assert_array_equal(read, np.stack([low, low + 10], axis=1)[:, parts])
