"""Rows of a pandas frame or Arrow table: as the columns of a table, by the rules of `ingest`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bitstorm.core.errors import DataError, UsageError, first_line
from bitstorm.core.schema import CSV_ALIASES, GENESIS_MS, PARTITION, PRICES, Table, numpy_type
from bitstorm.core.time import iso
from bitstorm.store.rejects import reason
from bitstorm.store.seal import arrow_schema

if TYPE_CHECKING:
    import pandas as pd

TIME = "timestamp"
_FLOATS = ("float32", "float64")
# Milliseconds in one of each unit, as a fraction. No time of 2009 to 2099 is one in two units.
_UNITS = {"seconds": (1000, 1), "microseconds": (1, 1000), "nanoseconds": (1, 1_000_000)}
_TIMES = "Unix milliseconds (int64), or datetimes as pd.to_datetime(times, utc=True) gives them"
_LAST_MS = 4_102_444_800_000  # 2100-01-01T00:00:00Z


def likely_unit(value: int) -> str:
    """`seconds (2021-01-01T00:00:00Z)` for a number that is a time of 2009 to 2099 in another unit
    than milliseconds, else an empty text."""
    for unit, (multiplier, divisor) in _UNITS.items():
        milliseconds = value * multiplier // divisor
        if GENESIS_MS <= milliseconds < _LAST_MS:
            return f"{unit} ({iso(milliseconds)})"
    return ""


def checked_rows(
    rows: pd.DataFrame | pa.Table, table: Table, *, first: int, not_after_ms: int
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The good rows with exactly the table's stored columns and their `line`, and the refused ones.

    `first` is the line of the first row. A refused row has `line`, `rule`, `reason` and its `text`
    as a line of CSV. Raises DataError where columns are missing, unknown, repeated or of another
    type, or where integer times are in another unit than milliseconds.
    """
    given = _to_arrow(rows, table)
    columns, integers = {}, True
    for field in table.stored:
        wanted = pa.float64() if field.kind in _FLOATS else pa.type_for_alias(field.kind)
        if field.name not in given.column_names:
            columns[field.name] = pa.chunked_array([pa.nulls(given.num_rows, wanted)])
            continue
        column = given.column(field.name)
        try:
            if pa.types.is_dictionary(column.type):
                column = column.cast(column.type.value_type)
            if field.name == TIME:
                integers = not pa.types.is_temporal(column.type)
                if pa.types.is_floating(column.type):
                    # Before the cast, which refuses seconds with a fraction in other words.
                    _require_milliseconds(column)
                column = _to_milliseconds(column)
            columns[field.name] = column.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            expected = _TIMES if field.name == TIME else wanted
            raise DataError(
                f"{field.name} is {column.type}, expected {expected} ({first_line(error)})"
            ) from None
        if table is PRICES and field.nullable:
            missing = pc.is_nan(columns[field.name])
            columns[field.name] = pc.if_else(missing, None, columns[field.name])
    wide = pa.table(columns)
    if integers:
        _require_milliseconds(wide.column(TIME))
    broken = _broken_rules(wide, table, not_after_ms)
    code = np.zeros(wide.num_rows, np.int64)
    for number, mask in reversed(list(enumerate(broken.values(), 1))):
        code[mask] = number
    wide = wide.append_column("line", pa.array(np.arange(first, first + len(code))))
    rules = [list(broken)[number - 1] for number in code[code > 0]]
    refused = [
        _refused_row(row, rule, integers, not_after_ms)
        for rule, row in zip(rules, wide.filter(pa.array(code > 0)).to_pylist(), strict=True)
    ]
    # A double becomes the nearest float32, as in `ingest`.
    stored = arrow_schema(table).append(pa.field("line", pa.int64()))
    return wide.filter(pa.array(code == 0)).cast(stored, safe=False), refused


def _to_arrow(rows: pd.DataFrame | pa.Table, table: Table) -> pa.Table:
    """The rows with the names of the table's columns. Raises DataError where they differ."""
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        if TIME in rows.index.names and TIME not in rows.columns:
            rows = rows.reset_index()
        try:
            rows = pa.Table.from_pandas(rows, preserve_index=False)
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
            raise DataError(
                f"the frame cannot be read ({error.args[0]}); expected one column of each name, "
                "and values of one type in each column"
            ) from None
    elif isinstance(rows, pa.RecordBatch):
        rows = pa.Table.from_batches([rows])
    elif not isinstance(rows, pa.Table):
        kind = f"{type(rows).__module__}.{type(rows).__name__}"
        raise UsageError(f"the rows are a {kind}, expected a pandas frame or an Arrow table")
    wanted = [field.name for field in table.stored]
    names = [n if n in wanted else CSV_ALIASES.get(n, n) for n in rows.column_names]
    wrong = {
        "missing": [f.name for f in table.stored if not f.nullable and f.name not in names],
        "unknown": [name for name in names if name not in (*wanted, PARTITION)],
        "repeated": sorted({name for name in names if names.count(name) > 1}),
    }
    for what, those in wrong.items():
        if those:
            raise DataError(
                f"the rows have the columns {', '.join(rows.column_names)}: {', '.join(those)} "
                f"{what}; expected {', '.join(wanted)}"
            )
    return rows.rename_columns(names)


def _to_milliseconds(times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Datetimes of any unit and zone as int64 Unix milliseconds; naive ones are in UTC, a date is
    0:00 UTC, a part of a millisecond is cut off. Numbers stay. Raises ArrowInvalid for others."""
    kind = times.type
    if pa.types.is_date(kind):
        return times.cast(pa.timestamp("ms")).cast(pa.int64())
    if pa.types.is_timestamp(kind):
        # Only the cast from seconds can overflow, and only the others lose digits.
        milliseconds = pa.timestamp("ms", kind.tz)
        return times.cast(milliseconds, safe=kind.unit == "s").cast(pa.int64())
    is_other = pa.types.is_boolean(kind) or pa.types.is_temporal(kind)
    if is_other or isinstance(kind, pa.BaseExtensionType):
        raise pa.ArrowInvalid("it states no time")
    return times


def _require_milliseconds(times: pa.ChunkedArray) -> None:
    """Raise DataError where no number is in 2009 to 2099 as milliseconds, and the first one is in
    another unit."""
    known = times.drop_null().to_numpy()
    known = known[np.isfinite(known)]
    if not len(known) or ((known >= GENESIS_MS) & (known < _LAST_MS)).any():
        return
    if unit := likely_unit(int(known[0])):
        raise DataError(
            f"timestamp is {known[0]} in the first row, which looks like {unit}; expected Unix "
            "milliseconds since 2009: convert the times, such as with pd.to_datetime(times, unit=…)"
        )


def _broken_rules(wide: pa.Table, table: Table, not_after_ms: int) -> dict[str, np.ndarray]:
    """By name of the rule, which rows break it, bool (n,); in the order of `CSV_RULES`."""
    broken: dict[str, np.ndarray] = {}
    for field in table.stored:
        name, column = field.name, wide.column(field.name)
        if not field.nullable or name == TIME:
            broken[f"{name}_present"] = np.asarray(column.is_null())
        if name == TIME:
            times = pc.fill_null(column, GENESIS_MS).to_numpy()
            broken["timestamp_in_range"] = times < GENESIS_MS
            broken["not_in_future"] = times > not_after_ms
        if field.kind not in _FLOATS:
            continue
        values = pc.fill_null(column, 1.0).to_numpy()
        with np.errstate(over="ignore"):
            narrow = values.astype(numpy_type(field.kind))
        if not field.nullable:
            positive = "> 0" in field.rule
            broken[f"{name}_finite"] = ~np.isfinite(values)
            if positive:
                broken[f"{name}_positive"] = values <= 0
            broken[f"{name}_in_range"] = np.isinf(narrow) | (positive & (narrow == 0))
        elif table is PRICES:
            broken[f"{name}_readable"] = np.isinf(narrow)
    return broken


def _refused_row(
    row: dict[str, Any], rule: str, integers: bool, not_after_ms: int
) -> dict[str, Any]:
    """The record of a refused row for `rejects.save_rows`."""
    line, time = row.pop("line"), row[TIME]
    # Not as the integer: in a CSV a small one would be seconds.
    text = {**row, TIME: None if time is None else f"{np.datetime64(time, 'ms')}Z"}
    raw = {f"raw_{name}": None if v is None else str(v) for name, v in text.items()}
    unit = ""
    if integers and time is not None:
        raw["raw_timestamp"] = str(time)
        unit = likely_unit(time)
    return {
        "line": line,
        "rule": rule,
        "reason": reason(rule, {**raw, "not_after_ms": not_after_ms})
        + (f"; it looks like {unit}" if unit else ""),
        "text": ",".join("" if value is None else str(value) for value in text.values()),
    }
