"""Rows of several forecasts of one time: appended once each, whole or not at all."""

from __future__ import annotations

import threading
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitstorm.core.durable_io import writer_lock
from bitstorm.core.errors import SealBroken, StoreError
from bitstorm.core.file_system import files_of
from bitstorm.core.schema import FORECASTS, Field, Table
from bitstorm.store import maintenance, petastorm_io, snapshots
from bitstorm.store.append import append, stored_rows
from bitstorm.store.seal import arrow_schema
from faults.publishing import FEBRUARY, HOUR, JANUARY, beside, unbroken

LATE = FEBRUARY - 2 * HOUR


def rows(origin: int, *, steps: int = 4, run: str = "one", price: float = 100.0) -> pa.Table:
    """A forecast of a rising price; the steps are in reverse order."""
    places = list(range(steps, 0, -1))
    values = {
        "timestamp": [origin + step * HOUR for step in places],
        "step": places,
        "run": [run] * steps,
        "origin": [origin] * steps,
        "origin_price": [price] * steps,
        "forecast": [price + step for step in places],
        "made_at": [origin + 1] * steps,
        "known_until": [origin] * steps,
        "indicators": ["00000001-aaaaaaaaaaaa"] * steps,
        "digest": ["d"] * steps,
    }
    missing = [field for field in arrow_schema(FORECASTS) if field.name not in values]
    values |= {field.name: pa.nulls(steps, field.type) for field in missing}
    return pa.table(values).select(arrow_schema(FORECASTS).names)


def add(root, *tables, table=FORECASTS):
    return append(root, table, pa.concat_tables(tables), lock_seconds=5)


def stored(root) -> list[tuple[int, int, str, float]]:
    """Time, step, run and forecast of each row, by plain pyarrow, in the order of the files."""
    found = snapshots.required(root)
    assert snapshots.damaged_files(found) == []
    assert maintenance.verify(root).problems == ()
    names = ("timestamp", "step", "run", "forecast")
    pieces = [pq.ParquetFile(path).read(columns=list(names)) for path in found.files]
    whole = pa.concat_tables(pieces)
    assert whole.num_rows == found.manifest.rows
    return list(zip(*(whole[name].to_pylist() for name in names), strict=True))


def expected(*made: tuple[int, int, str, float]) -> list[tuple[int, int, str, float]]:
    """All steps of these forecasts (origin, steps, run, price)."""
    every = [
        (origin + step * HOUR, step, run, price + step)
        for origin, steps, run, price in made
        for step in range(1, steps + 1)
    ]
    return sorted(every)


def test_forecasts_of_one_time_stand_side_by_side(root):
    assert add(root, rows(LATE)) == 4
    first = snapshots.required(root)
    assert add(root, rows(LATE + HOUR, run="two", price=7.0), rows(LATE + HOUR)) == 8
    made = (LATE, 4, "one", 100), (LATE + HOUR, 4, "two", 7), (LATE + HOUR, 4, "one", 100)
    assert stored(root) == expected(*made)
    assert [f.month for f in snapshots.required(root).manifest.files] == ["2021-01", "2021-02"]
    # The old snapshot is as it was.
    old = snapshots.required(root, snapshot=first.id)
    assert stored_rows(old, FORECASTS).num_rows == 4
    assert [m["operation"] for m in unbroken(root)] == ["append", "append"]


def test_a_forecast_is_stored_once_and_never_changed(root):
    add(root, rows(LATE))
    before = snapshots.required(root).id
    assert add(root, rows(LATE, price=999.0)) == 0
    assert snapshots.required(root).id == before
    assert add(root, rows(LATE, steps=6, price=999.0)) == 2
    late = [(LATE + step * HOUR, step, "one", 999.0 + step) for step in (5, 6)]
    assert stored(root) == [*expected((LATE, 4, "one", 100)), *late]


def test_months_without_new_rows_are_linked(root):
    add(root, rows(JANUARY))
    add(root, rows(FEBRUARY))
    first, second = (snapshots.required(root, snapshot=c.snapshot)
                     for c in reversed(list(maintenance.commits(root))))  # fmt: skip
    assert second.files[0].stat().st_ino == first.files[0].stat().st_ino
    assert second.manifest.months["2021-01"] == first.manifest.months["2021-01"]


def test_the_digest_depends_on_the_rows_alone(root):
    a, b = beside(root, "a"), beside(root, "b")
    for place in (0, 1, 2):
        add(a, rows(JANUARY + place * HOUR))
    add(b, *[rows(JANUARY + place * HOUR) for place in (2, 0, 1)])
    one, other = (snapshots.required(found).manifest for found in (a, b))
    assert one.digest == other.digest


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (pa.concat_tables([rows(JANUARY), rows(JANUARY)]), "repeats a timestamp, step, run"),
        (rows(JANUARY, price=-5.0), "origin_price .* are not finite, > 0"),
    ],
)
def test_rows_that_break_a_rule_publish_nothing(root, bad, message):
    with pytest.raises(SealBroken, match=message):
        add(root, bad)
    assert snapshots.current(root) is None


def test_another_table_is_refused(root):
    add(root, rows(JANUARY))
    words = tuple(replace(field, unit="in other words") for field in FORECASTS.fields)
    assert add(root, rows(FEBRUARY), table=replace(FORECASTS, fields=words)) == 4
    other = Table("Other", (*FORECASTS.stored, Field("more", "int32", "", True)), FORECASTS.key)
    wide = rows(FEBRUARY).append_column("more", pa.nulls(4, pa.int32()))
    with pytest.raises(StoreError, match="has other columns than Other of this version"):
        add(root, wide, table=other)


def test_writers_take_turns(root):
    origins = [JANUARY + place * HOUR for place in range(6)]
    threads = [threading.Thread(target=add, args=(root, rows(o))) for o in origins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored(root) == expected(*((o, 4, "one", 100) for o in origins))
    with (
        writer_lock(files_of(root).folder, wait_seconds=1),
        pytest.raises(StoreError, match="is writing"),
    ):
        append(root, FORECASTS, rows(FEBRUARY), lock_seconds=0.1)


def test_petastorm_reads_the_data_set(root):
    add(root, rows(LATE))
    frame = petastorm_io.read_frame(snapshots.required(root))
    assert frame.columns.tolist() == FORECASTS.names
    assert frame["month"].tolist() == ["2021-01", "2021-02", "2021-02", "2021-02"]
    assert frame["forecast"].tolist() == [101.0, 102.0, 103.0, 104.0]
    assert frame["lower_95"].isna().all()
