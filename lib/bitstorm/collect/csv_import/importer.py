"""A price history from elsewhere: a CSV of any shape → one batch.

No row is checked or dropped here: an unreadable cell goes into the batch as its raw text, so that
ingest refuses it with a reason, and the batch has as many rows as the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bitstorm.collect import batches
from bitstorm.collect.batches import Batch, Row
from bitstorm.collect.csv_import import cells, formats
from bitstorm.collect.csv_import.cells import UNIT_WORDS, Decimal, StampForm
from bitstorm.collect.csv_import.formats import Action, Form, Stamp, Switch
from bitstorm.collect.csv_import.table import Head, head_of, lines_of, records
from bitstorm.core.errors import BatchError, UsageError
from bitstorm.core.results import Result
from bitstorm.core.sidecar import Origin, Sidecar
from bitstorm.core.time import DAY_MS, duration_ms, duration_text, iso, now_ms

SOURCE = "csv"

# Tried from the front; compared in lower case.
_TIME_NAMES = (
    "timestamp", "timestamp_ms", "timestamp_s", "timestamp_us", "unix", "unix_timestamp",
    "time", "datetime", "date", "time_utc", "close_time", "open_time", "snapped_at",
)  # fmt: skip
_PRICE_NAMES = ("price", "price_usd", "close", "close_price")
_OPTIONAL_NAMES = {
    "market_cap": ("market_cap", "market_caps"),
    # CoinGecko's names of rolling 24-hour volumes. A bar's own volume is something else.
    "volume_24h": ("volume_24h", "total_volume", "total_volumes"),
    "price_change_24h": ("price_change_24h",),
}
_NO_BAR = (
    "--stamp open says that a stamp is the bar's start, so the close needs the bar's length; add "
    "--bar, such as --bar 1h"
)
_SAMPLE_LINES = 1020


@dataclass(frozen=True)
class ImportOptions:
    """A foreign file and the user's options for it.

    `bar` is a duration such as `1h`, `timezone` an IANA name. `auto` recognises files of
    CryptoDataDownload, Binance and CoinGecko with the length of their bars, and in other files the
    common names of columns; the other options win over it. Without `stamp` a stamp stays unchanged.
    Without `unit` the size of each stamp gives its unit.
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
    """The way to read a file.

    `form` is its known form, if any. `columns` maps the batch's columns to the file's, time first.
    `shift_ms` is added to every stamp. `decimal` stands before fractions. `switch` is the rule for
    CoinGecko's daily points around 2018-01-30. `notes` are sentences: each choice, each oddity.
    """

    head: Head
    form: Form | None
    columns: Mapping[str, str]
    stamps: StampForm
    decimal: Decimal
    shift_ms: int
    granularity_ms: int | None
    switch: Switch | None
    notes: tuple[str, ...] = ()


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


def read_options(
    options: ImportOptions, *, daily_switch: Action = "move", vs_currency: str = "usd"
) -> Reading:
    """The way to read the file. Raises UsageError for unfit options, BatchError for a bad file."""
    bar_ms, zone = _bar_ms(options.bar), _zone(options.timezone)
    starts = options.stamp == "open"
    if starts and bar_ms is None and not options.auto:
        raise UsageError(_NO_BAR)
    with closing(lines_of(options.file)) as lines:
        first = list(islice(lines, _SAMPLE_LINES))
    head = head_of(first, options.file, delimiter=options.delimiter)
    rows = list(records(first[head.rows_at :], head.delimiter))
    if options.auto and not head.headed and formats.binance_without_header(rows[0]):
        head = replace(head, header=formats.BINANCE_COLUMNS)
    form = formats.known_form(head.header)
    known = form if options.auto else None
    columns = _columns(head, known, options, vs_currency)

    rows = [row for row in rows if len(row) == len(head.header)]
    stamps = _stamp_form(options.unit, zone, head.cells(rows, columns["timestamp"]), columns)
    moments = map(stamps.moment, head.cells(rows, columns["timestamp"]))
    times = [moment for moment in moments if moment is not None]
    spacing = _spacing(times)
    if starts and bar_ms is None:
        # With another time column the file is not the known form.
        if known is not None and columns["timestamp"] == known.time:
            bar_ms = _bar_of(known, head, stamps, rows) or spacing
        if bar_ms is None:
            raise UsageError(_NO_BAR)
    guessed, doubtful = cells.guessed_decimal(head.cells(rows, columns["price"]))
    switch = None
    # With --stamp open the user has stated the meaning of the daily stamps.
    if form is not None and form.name == "coingecko" and spacing == DAY_MS and not starts:
        switch = _switch(options.file, head, stamps, columns["timestamp"], daily_switch)
    reading = Reading(
        head=head,
        form=form,
        columns=columns,
        stamps=stamps,
        decimal=options.decimal or guessed,
        shift_ms=(bar_ms or 0) if starts else 0,
        granularity_ms=bar_ms or spacing,
        switch=switch,
    )
    notes = _notes(reading, options, times, spacing=spacing, bar_ms=bar_ms)
    if doubtful and options.decimal is None:
        notes.append(
            "the comma in numbers such as 1,234 is read as a thousands separator; if it stands "
            "before the fraction, say --decimal ,"
        )
    return replace(reading, notes=tuple(notes))


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
    time_place, *places = (head.header.index(name) for name in reading.columns.values())
    for row in records(islice(lines, head.rows_at, None), head.delimiter):
        if len(row) != width:
            # A cell too many or too few: any of the numbers can be the price.
            raw = f"{head.delimiter.join(row)} ({len(row)} cells, the header has {width})"
            yield Row(None, (raw, *("" for _ in places)))
            continue
        text = row[time_place].strip()
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


def _bar_ms(bar: str | None) -> int | None:
    try:
        return None if bar is None else duration_ms(bar)
    except ValueError as error:
        raise UsageError(f"--bar: {error}") from None


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return None if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(
            f"--timezone: there is no time zone {name!r}; write an IANA name, such as "
            "Europe/Berlin or America/New_York"
        ) from None


def _columns(
    head: Head, known: Form | None, options: ImportOptions, vs_currency: str
) -> dict[str, str]:
    """The batch's columns and the file's columns for them, time and price first."""

    def with_currency(names: Sequence[str]) -> list[str]:
        return [n for name in names for n in (name, f"{name}_{vs_currency}")]

    # Without --format auto only our own names are recognised.
    most = None if options.auto else 1
    time, price = options.timestamp_column, options.price_column
    if known is not None:
        time, price = time or known.time, price or known.price
    times, prices = _TIME_NAMES[:most], with_currency(_PRICE_NAMES[:most])
    columns = {
        "timestamp": _column(head, time, "timestamp", times, auto=options.auto),
        "price": _column(head, price, "price", prices, auto=options.auto),
    }
    for column, names in _OPTIONAL_NAMES.items():
        found = formats.first_named(head.header, with_currency(names))
        if found is not None and found not in columns.values():
            columns[column] = found
    return columns


def _column(head: Head, given: str | None, what: str, names: Sequence[str], *, auto: bool) -> str:
    """The file's column for the time or the price. Raises UsageError with the columns found."""
    found = ", ".join(head.header) + ("" if head.headed else " (it has no header)")
    if given is not None:
        if given in head.header:
            return given
        raise UsageError(f"there is no column {given!r} (--{what}-column); the file has: {found}")
    column = formats.first_named(head.header, names)
    if column is None:
        advice = "" if auto else ", or have common names recognised with --format auto"
        raise UsageError(
            f"which column is the {what}? Name it with --{what}-column{advice}; the file has: "
            f"{found}"
        )
    return column


def _stamp_form(
    given: cells.Unit | None, zone: ZoneInfo | None, texts: list[str], columns: Mapping[str, str]
) -> StampForm:
    unit = given or cells.guessed_unit(texts)
    if unit is None:
        example = f", such as {texts[0]!r}" if texts else ""
        raise UsageError(
            f"the stamps in {columns['timestamp']!r} are neither Unix times nor ISO-8601{example}; "
            "choose another --timestamp-column, or convert them"
        )
    return StampForm(unit, by_size=given is None and unit in ("s", "ms", "us"), zone=zone)


def _bar_of(form: Form, head: Head, stamps: StampForm, rows: Sequence[Sequence[str]]) -> int | None:
    """A bar's length (ms) from its first and last moment; None where the file lacks such a pair."""
    if form.end is None:
        return None
    starts, ends = (map(stamps.moment, head.cells(rows, name)) for name in (form.time, form.end))
    # A bar's last moment is the one before the next bar; microseconds are cut off.
    lengths = [
        end + 1 - start
        for start, end in zip(starts, ends, strict=True)
        if start is not None and end is not None
    ]
    return int(median(lengths)) if lengths else None


def _switch(
    file: Path, head: Head, stamps: StampForm, column: str, action: Action
) -> Switch | None:
    """The rule for the daily points, from all of them: twins can be anywhere."""
    with closing(lines_of(file)) as lines:
        rows = records(islice(lines, head.rows_at, None), head.delimiter)
        full = (row for row in rows if len(row) == len(head.header))
        return formats.switch_of(map(stamps.moment, head.cells(full, column)), action)


def _spacing(times: Sequence[int]) -> int | None:
    gaps = [abs(later - one) for one, later in pairwise(times) if later != one]
    return int(median(gaps)) if gaps else None


def _notes(
    reading: Reading,
    options: ImportOptions,
    times: Sequence[int],
    *,
    spacing: int | None,
    bar_ms: int | None,
) -> list[str]:
    """The choices made without an option, and everything odd."""
    known = reading.form if options.auto else None
    starts_bars = known is not None and known.stamp == "open"
    unchanged = options.stamp != "open"
    unit = UNIT_WORDS[reading.stamps.unit]
    price = reading.columns["price"]
    notes = []
    if known is not None:
        notes.append(f"recognised as {known.title}")
    if reading.head.skipped:
        what = "header" if reading.head.headed else "first row"
        notes.append(f"{reading.head.skipped} line(s) before the {what} are left out")
    pairs = reading.columns.items()
    notes.append("columns: " + ", ".join(f"{column} from {name!r}" for column, name in pairs))
    if options.unit is None:
        notes.append(f"stamps are read as {unit}, by their size or form")
    if starts_bars and reading.shift_ms:
        notes.append(
            f"its stamps are the starts of bars of {duration_text(reading.shift_ms)}: each close "
            "is moved to its bar's end"
        )
    if starts_bars and unchanged:
        notes.append(
            "such files are stamped with the starts of bars, and stamps stay unchanged: say "
            "--stamp open, or each price stands a bar too early"
        )
    if reading.decimal != ".":
        notes.append("the comma is read as the decimal mark")
    if len(times) > 1 and times[0] > times[-1]:
        notes.append("rows run from the newest to the oldest; the order does not matter")
    if reading.switch is not None:
        notes.append(reading.switch.note)
    if "close" in price.lower() and not starts_bars and unchanged and bar_ms is None:
        notes.append(
            f"{price!r} is a bar's close and its stamp stays unchanged; if a stamp is the bar's "
            "start, say --stamp open --bar LENGTH, or each price stands a bar too early"
        )
    if bar_ms is not None and spacing is not None and spacing != bar_ms:
        notes.append(
            f"a bar is {duration_text(bar_ms)} but most rows are {duration_text(spacing)} apart"
        )
    if options.unit is not None and not times:
        notes.append(f"none of the first stamps is in {unit}")
    return notes
