"""A price history from elsewhere: a CSV of any shape → one batch.

No row is judged or dropped here: what cannot be read goes into the batch as its raw text, so that
ingest refuses it and says why, and the batch has as many rows as the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

from bitstorm.collect.batches import Batch, Draft, Row, batch_name, swept, write_batch
from bitstorm.collect.foreign_stamps import (
    UNIT_WORDS,
    Unit,
    guessed_unit,
    milliseconds,
    unread,
    written,
)
from bitstorm.collect.table import header_of, lines_of, records
from bitstorm.errors import BatchError, UsageError
from bitstorm.instants import DAY_MS, duration_ms, duration_text, iso, now_ms
from bitstorm.schema import CSV_COLUMNS

Stamp = Literal["close", "open"]

SOURCE = "csv"

# Tried from the front; names are compared in lower case.
_TIME_NAMES = (
    "timestamp", "timestamp_ms", "timestamp_s", "timestamp_us", "unix", "unix_timestamp",
    "time", "datetime", "date", "time_utc", "close_time", "open_time", "snapped_at",
)  # fmt: skip
_PRICE_NAMES = ("price", "price_usd", "close", "close_price")
_CAP_NAMES = ("market_cap", "market_caps")
# Rolling volumes of 24 hours, as CoinGecko calls them. A bar's own volume is none of them.
_VOLUME_NAMES = ("volume_24h", "total_volume", "total_volumes")
_CHANGE_NAMES = ("price_change_24h",)

_SAMPLE_ROWS = 1000
# Before this CoinGecko's daily stamps carry the price of the day's end, from then on of its start.
_DAILY_SWITCH_MS = 1_517_270_400_000


@dataclass(frozen=True)
class Reading:
    """How a file is taken: places of its columns, unit of its stamps, what they stand for.

    `shift_ms` is added to every stamp. `notes` says in sentences what was chosen and what looks
    odd; `columns` are the batch's, `names` those of the file that they come from.
    """

    delimiter: str
    skipped_lines: int
    header: tuple[str, ...]
    names: tuple[str, ...]
    columns: tuple[str, ...]
    unit: Unit
    stamp: Stamp
    shift_ms: int
    granularity_ms: int | None
    notes: tuple[str, ...]

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(self.header.index(name) for name in self.names)


@dataclass(frozen=True)
class Preview:
    """The first rows as the batch would have them, times as ISO-8601 where they can be read."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Imported:
    batch: Batch
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        return self.batch.sidecar.rows


def read_options(
    file: Path,
    *,
    timestamp_column: str | None = None,
    price_column: str | None = None,
    unit: Unit | None = None,
    stamp: Stamp = "close",
    bar: str | None = None,
    auto: bool = False,
    vs_currency: str = "usd",
) -> Reading:
    """How `file` is to be taken. `bar` is a duration such as `1h`.

    With `auto` columns that are not named are recognised by common names. A unit that is not given
    follows from the size of the stamps. Raises UsageError for options that do not fit the file or
    each other, BatchError for a file that cannot be read.
    """
    shift_ms, bar_ms = _shift(stamp, bar)
    with closing(lines_of(file)) as lines:
        delimiter, skipped, header = header_of(lines, file)
        sample = list(islice(records(lines, delimiter), _SAMPLE_ROWS))
    notes: list[str] = []
    if skipped:
        notes.append(f"{skipped} line(s) before the header are left out")

    time_name = _column(header, timestamp_column, "timestamp", _TIME_NAMES, auto=auto)
    price_names = tuple(n for base in _PRICE_NAMES for n in (base, f"{base}_{vs_currency}"))
    price_name = _column(header, price_column, "price", price_names, auto=auto)
    chosen = {"timestamp": time_name, "price": price_name}
    for column, bases in zip(
        CSV_COLUMNS[2:], (_CAP_NAMES, _VOLUME_NAMES, _CHANGE_NAMES), strict=True
    ):
        names = [n for base in bases for n in (base, f"{base}_{vs_currency}")]
        found = _first(header, names)
        if found is not None and found not in chosen.values():
            chosen[column] = found
    notes.append("taken: " + ", ".join(f"{c} from {n!r}" for c, n in chosen.items()))

    texts = [row[header.index(time_name)] for row in sample if len(row) == len(header)]
    taken_unit = unit or guessed_unit(texts)
    if taken_unit is None:
        example = f", such as {texts[0]!r}" if texts else ""
        raise UsageError(
            f"the stamps in {time_name!r} are neither Unix times nor ISO-8601{example}; choose "
            "another --timestamp-column, or convert them"
        )
    if unit is None:
        notes.append(f"stamps are taken as {UNIT_WORDS[taken_unit]}, by their size or form")
    times = [t for t in (milliseconds(text, taken_unit) for text in texts) if t is not None]
    spacing = _spacing(times)
    reading = Reading(
        delimiter=delimiter,
        skipped_lines=skipped,
        header=header,
        names=tuple(chosen.values()),
        columns=tuple(chosen),
        unit=taken_unit,
        stamp=stamp,
        shift_ms=shift_ms,
        granularity_ms=bar_ms or spacing,
        notes=(),
    )
    notes += _doubts(reading, price_name, bar_ms=bar_ms, spacing=spacing, times=times, unit=unit)
    return replace(reading, notes=tuple(notes))


def preview(file: Path, reading: Reading, *, rows: int = 5) -> Preview:
    """The first rows as they would be taken. Raises BatchError for a file that cannot be read."""
    shown = []
    with closing(lines_of(file)) as lines:
        for row in islice(_rows(lines, reading), rows):
            time = row.cells[0] if row.timestamp_ms is None else iso(row.timestamp_ms)
            shown.append((time, *row.cells[1:]))
    return Preview(reading.columns, tuple(shown), reading.notes)


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

    The batch is named after its content. `fetched_at` is the moment of the import (`clock`, Unix
    ms): a file's modification time may be anything, and a row from after the import is from the
    future whatever the file says. Raises BatchError for a file that cannot be read or has no rows.
    """
    swept(landing)
    corrections: list[dict[str, Any]] = []
    if reading.shift_ms:
        corrections.append({"stamp": reading.stamp, "shifted_ms": reading.shift_ms})
    request = {
        "file": file.name,
        "columns": dict(zip(reading.columns, reading.names, strict=True)),
        "unit": reading.unit,
    }
    with closing(lines_of(file)) as lines:
        batch = write_batch(
            landing,
            _at_least_one(_rows(lines, reading), file),
            name=lambda draft: _name(draft, coin),
            source=SOURCE,
            coin=coin,
            vs_currency=vs_currency,
            granularity_ms=reading.granularity_ms,
            fetched_at=clock(),
            request=request,
            corrections=corrections,
            columns=reading.columns,
        )
    return Imported(batch, reading.notes)


def _name(draft: Draft, coin: str) -> str:
    return batch_name(coin, draft.first_ms or 0, f"_import_{draft.sha256[:8]}")


def _at_least_one(rows: Iterator[Row], file: Path) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        raise BatchError(f"{file.name} has a header and no rows", rule="batch_empty")
    yield first
    yield from rows


def _shift(stamp: Stamp, bar: str | None) -> tuple[int, int | None]:
    """Milliseconds to add to a stamp, and the bar's length."""
    try:
        bar_ms = None if bar is None else duration_ms(bar)
    except ValueError as error:
        raise UsageError(f"--bar: {error}") from None
    if stamp == "close":
        return 0, bar_ms
    if bar_ms is None:
        raise UsageError(
            "--stamp open says that a stamp is the bar's start, so its length is needed to know "
            "when the close was; add --bar, such as --bar 1h"
        )
    return bar_ms, bar_ms


def _rows(lines: Iterator[str], reading: Reading) -> Iterator[Row]:
    """The rows after the header."""
    after = islice(lines, reading.skipped_lines + 1, None)
    return _taken(records(after, reading.delimiter), reading)


def _taken(lines: Iterable[list[str]], reading: Reading) -> Iterator[Row]:
    width, unit, shift = len(reading.header), reading.unit, reading.shift_ms
    time_place, *places = reading.places
    for cells in lines:
        if len(cells) != width:
            # A cell too many or too few: which number is the price is anybody's guess.
            raw = reading.delimiter.join(cells)
            said = f"{raw} ({len(cells)} cells, the header has {width})"
            yield Row(None, (said, *("" for _ in places)))
            continue
        text = cells[time_place].strip()
        read = milliseconds(text, unit)
        stamp = None if read is None else read + shift
        time = unread(text, unit) if stamp is None else written(stamp)
        yield Row(stamp, (time, *(cells[place].strip() for place in places)))


def _column(
    header: Sequence[str],
    asked: str | None,
    what: str,
    names: Sequence[str],
    *,
    auto: bool,
) -> str:
    """The file's column for the time or the price. Raises UsageError with the columns found."""
    found = ", ".join(header)
    if asked is not None:
        if asked in header:
            return asked
        raise UsageError(f"there is no column {asked!r} (--{what}-column); the file has: {found}")
    known = _first(header, names if auto else names[:2] if what == "price" else names[:1])
    if known is None:
        advice = "" if auto else ", or have common names recognised with --format auto"
        raise UsageError(
            f"which column is the {what}? Name it with --{what}-column{advice}; the file has: "
            f"{found}"
        )
    return known


def _first(header: Sequence[str], names: Sequence[str]) -> str | None:
    lower = {name.lower(): name for name in header}
    return next((lower[name] for name in names if name in lower), None)


def _spacing(times: Sequence[int]) -> int | None:
    gaps = [abs(later - one) for one, later in pairwise(times) if later != one]
    return int(median(gaps)) if gaps else None


def _doubts(
    reading: Reading,
    price_name: str,
    *,
    bar_ms: int | None,
    spacing: int | None,
    times: Sequence[int],
    unit: Unit | None,
) -> list[str]:
    """What a careful reader of the first rows would ask about."""
    doubts = []
    is_bar = "close" in price_name.lower()
    if is_bar and reading.stamp == "close" and bar_ms is None:
        doubts.append(
            f"{price_name!r} is a bar's close and its stamp is taken as it is; where a stamp is "
            "the bar's start, say --stamp open --bar LENGTH, or each price stands a bar too early"
        )
    if bar_ms is not None and spacing is not None and spacing != bar_ms:
        doubts.append(
            f"--bar is {duration_text(bar_ms)} but most rows are {duration_text(spacing)} apart"
        )
    if unit is not None and not times:
        doubts.append(f"none of the first stamps is in {UNIT_WORDS[unit]}")
    if (
        "volume_24h" in reading.columns
        and spacing == DAY_MS
        and times
        and min(times) < _DAILY_SWITCH_MS
    ):
        doubts.append(
            "this looks like CoinGecko's daily history: before 2018-01-30 its stamps carry the "
            "price of the day's end, a day too early; start at that day to be safe"
        )
    return doubts
