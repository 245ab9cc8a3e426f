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
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bitstorm.collect.batches import Batch, Draft, Row, batch_name, swept, write_batch
from bitstorm.collect.csv_import.cells import (
    UNIT_WORDS,
    Decimal,
    Unit,
    guessed_decimal,
    guessed_unit,
    milliseconds,
    plain,
    unit_by_size,
    unread,
    written,
)
from bitstorm.collect.csv_import.formats import (
    BINANCE_COLUMNS,
    Action,
    Form,
    Stamp,
    Switch,
    binance_without_header,
    first_named,
    recognised,
    switch_of,
)
from bitstorm.collect.csv_import.table import Head, head_of, lines_of, records
from bitstorm.core.errors import BatchError, UsageError
from bitstorm.core.results import Result
from bitstorm.core.schema import CSV_COLUMNS
from bitstorm.core.sidecar import Origin
from bitstorm.core.time import DAY_MS, duration_ms, duration_text, iso, now_ms

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

_SAMPLE_LINES = 1020


@dataclass(frozen=True)
class Foreign:
    """A foreign file and how the user says it is to be read.

    `bar` is a duration such as `1h`, `timezone` an IANA name. With `auto` files of
    CryptoDataDownload, Binance and CoinGecko are recognised, and in others the columns that are not
    named by common names; the bar of a recognised file is the one that is known of it, unless it is
    given. Without `stamp` a stamp is taken as it is. A unit that is not given follows from the size
    of the stamps, row by row.
    """

    file: Path
    timestamp_column: str | None = None
    price_column: str | None = None
    unit: Literal["s", "ms", "us", "iso"] | None = None
    stamp: Stamp | None = None
    bar: str | None = None
    auto: bool = False
    timezone: str | None = None
    delimiter: str | None = None
    decimal: Decimal | None = None


@dataclass(frozen=True)
class Reading:
    """How a file is taken: places of its columns, unit of its stamps, what they stand for.

    `form` is the known kind of file that it is. With `by_size` a number's size, row by row, tells
    its unit. A time without an offset is one of `zone` (UTC when None); `shift_ms` is added to
    every stamp. `decimal` stands before fractions. `switch` says how CoinGecko's daily points
    around 2018-01-30 are taken. `notes` says in sentences what was chosen and what looks odd;
    `columns` are the batch's, `names` those of the file that they come from.
    """

    head: Head
    form: Form | None
    names: tuple[str, ...]
    columns: tuple[str, ...]
    unit: Unit
    by_size: bool
    zone: ZoneInfo | None
    decimal: Decimal
    stamp: Stamp = "close"
    shift_ms: int = 0
    granularity_ms: int | None = None
    switch: Switch | None = None
    notes: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[int, ...]:
        return tuple(self.head.header.index(name) for name in self.names)

    def time_of(self, text: str) -> int | None:
        """The moment that a stamp's text states (Unix ms), before any shift; None for no time."""
        unit = unit_by_size(text, self.unit) if self.by_size else self.unit
        return milliseconds(text, unit, self.zone)


@dataclass(frozen=True, repr=False)
class Preview(Result):
    """The first rows as the batch would have them, times as ISO-8601 where they can be read."""

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
        """How many rows, in which file, and what was chosen."""
        return {"rows": self.rows, "batch": self.batch.path, "notes": self.notes}


def read_options(
    wanted: Foreign, *, daily_switch: Action = "move", vs_currency: str = "usd"
) -> Reading:
    """How the file is taken. Raises UsageError for options that do not fit it or each other,
    BatchError for a file that cannot be read."""
    file, unit, stamp, bar = wanted.file, wanted.unit, wanted.stamp, wanted.bar
    zone = _zone(wanted.timezone)
    if not wanted.auto or stamp != "open" or bar is not None:
        _shift(stamp or "close", bar)
    with closing(lines_of(file)) as lines:
        first = list(islice(lines, _SAMPLE_LINES))
    head = head_of(first, file, delimiter=wanted.delimiter)
    sample = list(records(first[head.rows_at :], head.delimiter))
    if wanted.auto and not head.headed and binance_without_header(sample[0]):
        head = replace(head, header=BINANCE_COLUMNS)
    form = recognised(head.header)
    known = form if wanted.auto else None
    chosen = _chosen(head, known, wanted, vs_currency)

    full = [row for row in sample if len(row) == len(head.header)]
    texts = [row[head.header.index(chosen["timestamp"])].strip() for row in full]
    taken_unit = unit or guessed_unit(texts)
    if taken_unit is None:
        example = f", such as {texts[0]!r}" if texts else ""
        raise UsageError(
            f"the stamps in {chosen['timestamp']!r} are neither Unix times nor ISO-8601{example}; "
            "choose another --timestamp-column, or convert them"
        )
    prices = [row[head.header.index(chosen["price"])].strip() for row in full]
    guessed, doubtful = guessed_decimal(prices)
    reading = Reading(
        head=head,
        form=form,
        names=tuple(chosen.values()),
        columns=tuple(chosen),
        unit=taken_unit,
        by_size=unit is None and taken_unit in ("s", "ms", "us"),
        zone=zone,
        decimal=wanted.decimal or guessed,
    )
    times = [t for t in map(reading.time_of, texts) if t is not None]
    spacing = _spacing(times)
    # A column that was named says that the file is not taken as what it looks like.
    of_form = known if known is not None and chosen["timestamp"] == known.time else None
    taken_stamp: Stamp = stamp or "close"
    bar_ms = None
    if bar is None and taken_stamp == "open" and of_form is not None:
        bar_ms = _bar_of(of_form, reading, full) or spacing
    shift_ms, bar_ms = (bar_ms, bar_ms) if bar_ms else _shift(taken_stamp, bar)
    reading = replace(
        reading, stamp=taken_stamp, shift_ms=shift_ms, granularity_ms=bar_ms or spacing
    )
    # Who says that a stamp is the bar's start has said what the daily stamps are.
    if form is not None and form.name == "coingecko" and spacing == DAY_MS and not shift_ms:
        reading = replace(reading, switch=_switch(file, reading, daily_switch))
    notes = _notes(reading, wanted, times, spacing=spacing, bar_ms=bar_ms)
    if doubtful and wanted.decimal is None:
        notes.append(
            "numbers such as 1,234 are taken to have thousands separators; where the comma stands "
            "before the fraction, say --decimal ,"
        )
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
    if reading.switch is not None and reading.switch.correction is not None:
        corrections.append(reading.switch.correction)
    request = {
        "file": file.name,
        "columns": dict(zip(reading.columns, reading.names, strict=True)),
        "unit": reading.unit,
    }
    if reading.form is not None:
        request["format"] = reading.form.name
    if reading.zone is not None:
        request["timezone"] = reading.zone.key
    if reading.decimal != ".":
        request["decimal"] = reading.decimal
    with closing(lines_of(file)) as lines:
        batch = write_batch(
            landing,
            _at_least_one(_rows(lines, reading), file),
            name=lambda draft: _name(draft, coin),
            origin=Origin(SOURCE, coin, vs_currency),
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
    after = islice(lines, reading.head.rows_at, None)
    return _taken(records(after, reading.head.delimiter), reading)


def _taken(lines: Iterable[list[str]], reading: Reading) -> Iterator[Row]:
    width, shift, switch = len(reading.head.header), reading.shift_ms, reading.switch
    time_place, *places = reading.places
    for cells in lines:
        if len(cells) != width:
            # A cell too many or too few: which number is the price is anybody's guess.
            raw = reading.head.delimiter.join(cells)
            said = f"{raw} ({len(cells)} cells, the header has {width})"
            yield Row(None, (said, *("" for _ in places)))
            continue
        text = cells[time_place].strip()
        read = reading.time_of(text)
        stamp = None if read is None else read + shift
        refused = None
        if stamp is not None and switch is not None:
            stamp, refused = switch.taken(stamp)
        if stamp is None:
            time = unread(text, reading.unit, reading.zone)
        elif refused is not None:
            time, stamp = f"{text} ({refused})", None
        else:
            time = written(stamp)
        yield Row(stamp, (time, *(plain(cells[p].strip(), reading.decimal) for p in places)))


def _zone(name: str | None) -> ZoneInfo | None:
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"--timezone: there is no time zone {name!r}; write an IANA name, such as "
            "Europe/Berlin or America/New_York"
        ) from None


def _chosen(
    head: Head,
    known: Form | None,
    wanted: Foreign,
    vs_currency: str,
) -> dict[str, str]:
    """The batch's columns and those of the file that they come from, time and price first."""
    header = head.header
    times = _TIME_NAMES
    prices = tuple(n for base in _PRICE_NAMES for n in (base, f"{base}_{vs_currency}"))
    auto, time, price = wanted.auto, wanted.timestamp_column, wanted.price_column
    if known is not None:
        time, price = time or known.time, price or known.price
    chosen = {
        "timestamp": _column(head, time, "timestamp", times, auto=auto),
        "price": _column(head, price, "price", prices, auto=auto),
    }
    for column, bases in zip(
        CSV_COLUMNS[2:], (_CAP_NAMES, _VOLUME_NAMES, _CHANGE_NAMES), strict=True
    ):
        found = first_named(header, [n for base in bases for n in (base, f"{base}_{vs_currency}")])
        if found is not None and found not in chosen.values():
            chosen[column] = found
    return chosen


def _bar_of(form: Form, reading: Reading, rows: Sequence[Sequence[str]]) -> int | None:
    """The length of a bar from its first and last moment, None where the file has no such pair."""
    if form.end is None:
        return None
    start, end = (reading.head.header.index(name) for name in (form.time, form.end))
    pairs = [
        (reading.time_of(row[start].strip()), reading.time_of(row[end].strip())) for row in rows
    ]
    # The last moment of a bar is the one before the next begins; microseconds are cut off.
    lengths = [last + 1 - first for first, last in pairs if first is not None and last is not None]
    return int(median(lengths)) if lengths else None


def _switch(file: Path, reading: Reading, action: Action) -> Switch | None:
    """How the daily points are taken, from all of them: whether twins are there must be known."""
    place = reading.places[0]
    width = len(reading.head.header)
    with closing(lines_of(file)) as lines:
        rows = records(islice(lines, reading.head.rows_at, None), reading.head.delimiter)
        stamps = (reading.time_of(row[place].strip()) for row in rows if len(row) == width)
        return switch_of(stamps, action)


def _column(
    head: Head,
    asked: str | None,
    what: str,
    names: Sequence[str],
    *,
    auto: bool,
) -> str:
    """The file's column for the time or the price. Raises UsageError with the columns found."""
    header = head.header
    found = ", ".join(header) + ("" if head.headed else " (it has no header)")
    if asked is not None:
        if asked in header:
            return asked
        raise UsageError(f"there is no column {asked!r} (--{what}-column); the file has: {found}")
    known = first_named(header, names if auto else names[:2] if what == "price" else names[:1])
    if known is None:
        advice = "" if auto else ", or have common names recognised with --format auto"
        raise UsageError(
            f"which column is the {what}? Name it with --{what}-column{advice}; the file has: "
            f"{found}"
        )
    return known


def _spacing(times: Sequence[int]) -> int | None:
    gaps = [abs(later - one) for one, later in pairwise(times) if later != one]
    return int(median(gaps)) if gaps else None


def _notes(
    reading: Reading,
    wanted: Foreign,
    times: Sequence[int],
    *,
    spacing: int | None,
    bar_ms: int | None,
) -> list[str]:
    """What was chosen without being asked for, and what a careful reader would ask about."""
    known = reading.form if wanted.auto else None
    of_starts = known is not None and known.stamp == "open"
    notes = []
    if known is not None:
        notes.append(f"this is taken for {known.title}")
    if reading.head.skipped:
        what = "header" if reading.head.headed else "first row"
        notes.append(f"{reading.head.skipped} line(s) before the {what} are left out")
    chosen = zip(reading.columns, reading.names, strict=True)
    notes.append("taken: " + ", ".join(f"{column} from {name!r}" for column, name in chosen))
    if wanted.unit is None:
        notes.append(f"stamps are taken as {UNIT_WORDS[reading.unit]}, by their size or form")
    if of_starts and reading.shift_ms:
        notes.append(
            f"its stamps are the starts of bars of {duration_text(reading.shift_ms)}: each close "
            "is moved to its bar's end"
        )
    if of_starts and reading.stamp == "close":
        notes.append(
            "files of this kind are stamped with the starts of bars, and stamps are taken as they "
            "are: say --stamp open, or each price stands a bar too early"
        )
    if reading.decimal != ".":
        notes.append("the comma is taken to stand before the fraction")
    if len(times) > 1 and times[0] > times[-1]:
        notes.append("rows run from the newest to the oldest; the order does not matter")
    if reading.switch is not None:
        notes.append(reading.switch.note)
    price = reading.names[1]
    is_bar = "close" in price.lower() and not of_starts
    if is_bar and reading.stamp == "close" and bar_ms is None:
        notes.append(
            f"{price!r} is a bar's close and its stamp is taken as it is; where a stamp is the "
            "bar's start, say --stamp open --bar LENGTH, or each price stands a bar too early"
        )
    if bar_ms is not None and spacing is not None and spacing != bar_ms:
        notes.append(
            f"--bar is {duration_text(bar_ms)} but most rows are {duration_text(spacing)} apart"
        )
    if wanted.unit is not None and not times:
        notes.append(f"none of the first stamps is in {UNIT_WORDS[wanted.unit]}")
    return notes
