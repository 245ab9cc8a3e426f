"""The digest depends on the rows and on nothing else, and anybody can work it out."""

from __future__ import annotations

import math
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.core.schema import PRICES, Field, Table
from bitstorm.store.digest import dataset_digest, month_digest
from bitstorm.store.seal import arrow_schema
from faults.publishing import FEBRUARY, HOUR, JANUARY, prices_digest

NOW_AND_THEN = st.one_of(st.none(), st.floats(width=64))
NARROW = st.one_of(st.none(), st.floats(width=32))
ROWS = st.lists(
    st.tuples(
        st.integers(JANUARY, FEBRUARY - 1),
        st.floats(min_value=0.125, max_value=2.0**100, width=32),
        NOW_AND_THEN,
        NOW_AND_THEN,
        NARROW,
    ),
    min_size=1,
    max_size=40,
    unique_by=lambda row: row[0],
)


def as_table(rows) -> pa.Table:
    columns = list(zip(*sorted(rows, key=lambda row: row[0]), strict=True))
    arrays = [
        pa.array(values, field.type)
        for values, field in zip(columns, arrow_schema(PRICES), strict=True)
    ]
    return pa.Table.from_arrays(arrays, schema=arrow_schema(PRICES))


def of_january(rows) -> str:
    return dataset_digest({"2021-01": month_digest(as_table(rows), PRICES)})


@settings(deadline=None)
@given(ROWS)
def test_the_digest_equals_that_of_a_program_without_the_library(rows):
    assert of_january(rows) == prices_digest(rows)


@settings(deadline=None)
@given(ROWS, st.integers(1, 7), st.integers(1, 7))
def test_chunks_do_not_matter(rows, first, second):
    table = as_table(rows)
    pieces = [table.slice(0, first), table.slice(first, second), table.slice(first + second)]
    assert month_digest(pa.concat_tables(pieces), PRICES) == month_digest(table, PRICES)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, group=st.integers(1, 10))
def test_row_groups_and_compression_do_not_matter(tmp_path_factory, rows, group):
    path = tmp_path_factory.mktemp("digest") / "rows.parquet"
    pq.write_table(as_table(rows), path, row_group_size=group, compression="gzip")
    assert month_digest(pq.ParquetFile(path).read(), PRICES) == month_digest(as_table(rows), PRICES)


@settings(deadline=None)
@given(ROWS, st.data())
def test_any_other_value_gives_another_digest(rows, data):
    number = data.draw(st.integers(0, len(rows) - 1))
    place = data.draw(st.integers(1, 4))
    changed = list(rows[number])
    changed[place] = 1.0 if changed[place] != 1.0 else 2.0
    assert of_january(rows) != of_january([*rows[:number], tuple(changed), *rows[number + 1 :]])


def test_a_null_is_neither_zero_nor_nan():
    digests = {of_january([(JANUARY, 1.0, value, None, None)]) for value in (None, 0.0, math.nan)}
    assert len(digests) == 3


@pytest.mark.parametrize("pattern", [0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001])
def test_every_nan_is_the_same_nan(pattern):
    odd = np.frombuffer(struct.pack("<Q", pattern), "<f8")
    table = as_table([(JANUARY, 1.0, math.nan, None, None)])
    other = table.set_column(2, "market_cap", pa.array(odd))
    assert month_digest(other, PRICES) == month_digest(table, PRICES)


def test_text_and_booleans_count_with_their_limits():
    table = Table("T", (Field("a", "string", "", True), Field("b", "bool", "", True)))

    def digest(texts, flags) -> str:
        return month_digest(pa.table({"a": texts, "b": pa.array(flags, pa.bool_())}), table)

    assert digest(["ab", "c"], [True, None]) != digest(["a", "bc"], [True, None])
    assert digest(["", "x"], [True, None]) != digest([None, "x"], [True, None])
    assert digest(["x"], [None]) != digest(["x"], [False])
    assert digest(["é"], [True]) == digest(["é"], [True])


def test_months_count_in_their_own_order():
    assert dataset_digest({"2021-02": "b", "2021-01": "a"}) == dataset_digest(
        {"2021-01": "a", "2021-02": "b"}
    )
    assert dataset_digest({"2021-01": "a"}) != dataset_digest({"2021-02": "a"})


def test_two_months_are_digested_as_the_documentation_says():
    rows = [(JANUARY + HOUR, 2.0, 1.0, None, None), (FEBRUARY, 3.5, None, 4.0, -1.0)]
    months = {
        "2021-01": month_digest(as_table(rows[:1]), PRICES),
        "2021-02": month_digest(as_table(rows[1:]), PRICES),
    }
    assert dataset_digest(months) == prices_digest(reversed(rows))
