"""A price history from elsewhere: a table of any shape → one batch.

No row is checked or dropped here: an unreadable cell goes into the batch as its raw text, so that
ingest refuses it with a reason, and the batch has as many rows as the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from bitstorm.collect import batches
from bitstorm.collect.batches import Batch, Row
from bitstorm.collect.csv_import import cells
from bitstorm.collect.csv_import.reading import Reading
from bitstorm.collect.csv_import.table import lines_of, records
from bitstorm.core.errors import BatchError
from bitstorm.core.results import Result
from bitstorm.core.sidecar import Origin, Sidecar
from bitstorm.core.time import iso, now_ms

SOURCE = "csv"


@dataclass(frozen=True, repr=False)
class Preview(Result):
    """The first rows of the batch, readable times as ISO-8601."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Imported(Result):
    batch: Batch
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        return self.batch.sidecar.rows

    def facts(self) -> dict[str, Any]:
        """The number of rows, their file, and the choices made."""
        return {"rows": self.rows, "batch": self.batch.path, "notes": self.notes}


def preview(file: Path, reading: Reading, *, rows: int = 5) -> Preview:
    """The first rows of the batch. Raises BatchError for a file that cannot be read."""
    shown = []
    with closing(lines_of(file)) as lines:
        for row in islice(_rows(lines, reading), rows):
            time = row.cells[0] if row.timestamp_ms is None else iso(row.timestamp_ms)
            shown.append((time, *row.cells[1:]))
    return Preview(tuple(reading.columns), tuple(shown), reading.notes)


def import_file(
    file: Path,
    landing: Path,
    reading: Reading,
    *,
    coin: str = "bitcoin",
    vs_currency: str = "usd",
    clock: Callable[[], int] = now_ms,
) -> Imported:
    """Land the file as one batch, row by row; the same file again is the same batch.

    The content gives the batch its name. `fetched_at` is the moment of the import (`clock`, Unix
    ms): a file's modification time proves nothing, and a row after the import is from the future.
    Raises BatchError for a file that cannot be read or has no rows.
    """

    def name(sidecar: Sidecar) -> str:
        if not sidecar.rows:
            raise BatchError(f"{file.name} has a header and no rows", rule="batch_empty")
        return batches.batch_name(coin, sidecar.first_ms or 0, f"_import_{sidecar.sha256[:8]}")

    batches.delete_leftovers(landing)
    corrections: list[dict[str, Any]] = []
    if reading.shift_ms:
        corrections.append({"stamp": "open", "shifted_ms": reading.shift_ms})
    if reading.switch is not None and reading.switch.correction is not None:
        corrections.append(reading.switch.correction)
    request = {"file": file.name, "columns": dict(reading.columns), "unit": reading.stamps.unit}
    if reading.form is not None:
        request["format"] = reading.form.name
    if reading.stamps.pattern:
        request["date_format"] = reading.stamps.pattern
    if reading.stamps.zone is not None:
        request["timezone"] = reading.stamps.zone.key
    if reading.decimal != ".":
        request["decimal"] = reading.decimal
    info = batches.SourceInfo(
        Origin(SOURCE, coin, vs_currency), reading.granularity_ms, clock(), request, corrections
    )
    with closing(lines_of(file)) as lines:
        rows = _rows(lines, reading)
        batch = batches.write_batch(landing, rows, info, name=name, columns=tuple(reading.columns))
    return Imported(batch, reading.notes)


def _rows(lines: Iterable[str], reading: Reading) -> Iterator[Row]:
    """The rows of the batch, from all lines of the file."""
    head, switch = reading.head, reading.switch
    width = len(head.header)
    time_places, *others = (head.places(name) for name in reading.columns.values())
    places = [place for (place,) in others]
    for row in records(islice(lines, head.rows_at, None), head.delimiter):
        if len(row) != width:
            # A cell too many or too few: any of the numbers can be the price.
            raw = f"{head.delimiter.join(row)} ({len(row)} cells, the header has {width})"
            yield Row(None, (raw, *("" for _ in places)))
            continue
        text = " ".join(row[place].strip() for place in time_places)
        moment = reading.stamps.moment(text)
        stamp = None if moment is None else moment + reading.shift_ms
        refused = None
        if stamp is not None and switch is not None:
            stamp, refused = switch.moment(stamp)
        if stamp is None:
            time = reading.stamps.raw_text(text)
        elif refused is not None:
            time, stamp = f"{text} ({refused})", None
        else:
            time = cells.stamp_text(stamp)
        numbers = (cells.number_text(row[p].strip(), reading.decimal) for p in places)
        yield Row(stamp, (time, *numbers))
