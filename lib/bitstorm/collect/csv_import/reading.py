"""How a foreign file is read: from the user's options and its first rows to one `Reading`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bitstorm.collect.csv_import import cells, formats
from bitstorm.collect.csv_import.cells import Decimal, StampForm
from bitstorm.collect.csv_import.formats import Action, Form, Stamp, Switch
from bitstorm.collect.csv_import.table import Head, head_of, lines_of, records
from bitstorm.core.errors import BatchError, UsageError
from bitstorm.core.schema import GENESIS_MS
from bitstorm.core.time import DAY_MS, duration_ms, duration_text, iso, now_ms

# Tried from the front; compared in lower case.
_TIME_NAMES = (
    "timestamp", "timestamp_ms", "timestamp_s", "timestamp_us", "unix", "unixtime",
    "unix_timestamp",
    "time", "datetime", "date", "time_utc", "close_time", "open_time", "snapped_at",
)  # fmt: skip
_PRICE_NAMES = ("price", "price_usd", "close", "close_price")
_OPTIONAL_NAMES = {
    "market_cap": ("market_cap", "market_caps", "marketcap"),
    # CoinGecko's names of rolling 24-hour volumes. A bar's own volume is something else.
    "volume_24h": ("volume_24h", "total_volume", "total_volumes"),
    "price_change_24h": ("price_change_24h",),
}
_NO_BAR = (
    "--stamp open says that a stamp is the bar's start, so the close needs the bar's length; add "
    "--bar, such as --bar 1h"
)
_SAMPLE_LINES = 1020
_CLOCK = re.compile(r"\d{1,2}:\d\d(:\d\d(\.\d+)?)?( ?[AP]M)?|\d{4}|\d{6}", re.IGNORECASE)


@dataclass(frozen=True)
class ImportOptions:
    """A foreign file and the user's options for it.

    `timestamp_column` can be `NAME+NAME`: the date and the time. `date_format` is a pattern of
    `strptime`. `bar` is a duration such as `1h`, `timezone` an IANA name. `auto` recognises the
    files of `formats` with the length of their bars, and in other files the common names of
    columns; the other options win over it. Without `stamp` a stamp stays unchanged. Without `unit`
    and `date_format` the size or form of each stamp tells them.
    """

    file: Path
    timestamp_column: str | None = None
    price_column: str | None = None
    unit: Literal["s", "ms", "us", "ns", "iso"] | None = None
    stamp: Stamp | None = None
    bar: str | None = None
    auto: bool = False
    timezone: str | None = None
    delimiter: str | None = None
    decimal: Decimal | None = None
    date_format: str | None = None


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
    if options.auto and not head.headed:
        head = replace(head, header=formats.columns_without_header(rows[0]) or head.header)
    rows = [row for row in rows if len(row) == len(head.header)]
    pair = _date_and_clock(head, rows)
    form = _known_form(head, pair, starts=starts)
    known = form if options.auto else None
    columns = _columns(head, known, options, vs_currency, pair)

    texts = head.cells(rows, columns["timestamp"])
    stamps = _stamp_form(options, zone, texts, columns, known)
    times = [moment for moment in map(stamps.moment, texts) if moment is not None]
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
    if 0 < len(times) < len(texts):
        unread = f"{len(texts) - len(times):,} of the first {len(texts):,} stamps"
        notes.append(f"{unread} are not {stamps.words}; ingest refuses their rows")
    if doubtful and options.decimal is None:
        notes.append(
            "the comma in numbers such as 1,234 is read as a thousands separator; if it stands "
            "before the fraction, say --decimal ,"
        )
    return replace(reading, notes=tuple(notes))


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
    head: Head, known: Form | None, options: ImportOptions, vs_currency: str, pair: str | None
) -> dict[str, str]:
    """The batch's columns and the file's columns for them, time and price first."""

    def with_currency(names: Sequence[str]) -> list[str]:
        return [n for name in names for n in (name, f"{name}_{vs_currency}")]

    # Without --format auto only our own names are recognised.
    most = None if options.auto else 1
    times, prices = _TIME_NAMES[:most], with_currency(_PRICE_NAMES[:most])
    given = options.price_column and head.find(options.price_column)
    time = known.time if known is not None else pair if options.auto else None
    time = _column(head, options.timestamp_column, "timestamp", times, time, options.auto, {given})
    both: set[str | None] = {head.header[place] for place in head.places(time)}
    price = None if known is None else known.price
    price = _column(head, options.price_column, "price", prices, price, options.auto, both)
    head.places(price)
    columns = {"timestamp": time, "price": price}
    for column, names in _OPTIONAL_NAMES.items():
        found = formats.first_named(head.header, with_currency(names))
        if found is not None and found not in (price, *both) and head.header.count(found) == 1:
            columns[column] = found
    return columns


def _column(
    head: Head,
    given: str | None,
    what: str,
    names: Sequence[str],
    known: str | None,
    auto: bool,
    taken: set[str | None],
) -> str:
    """The file's column for the time or the price: `given`, or `known`, or one of `names`, never
    one of `taken`. Raises UsageError with the columns found."""
    found = ", ".join(head.header) + ("" if head.headed else " (it has no header)")
    if given is not None:
        column = head.find(given)
        if column is None:
            raise UsageError(
                f"there is no column {given!r} (--{what}-column); the file has: {found}"
            )
        if taken & {column, *column.split("+")}:
            raise UsageError(
                f"{given!r} cannot be the column of both time and price; choose two. The file has: "
                f"{found}"
            )
        return column
    free = [name for name in head.header if name not in taken]
    column = known if known not in taken else None
    column = column or formats.first_named(free, names)
    if column is None:
        advice = "" if auto else ", or have common names recognised with --format auto"
        raise UsageError(
            f"which column is the {what}? Name it with --{what}-column{advice}; the file has: "
            f"{found}"
        )
    return column


def _known_form(head: Head, pair: str | None, *, starts: bool) -> Form | None:
    """The file's known form; its time is date and clock where they are two columns, and with
    --stamp open a bar's first moment."""
    form = formats.known_form(head.header, head.header_rows)
    if form is not None and pair is not None and form.time == head.find(pair.partition("+")[0]):
        return replace(form, time=pair)
    if form is not None and form.opening is not None and starts:
        return replace(form, time=form.opening, stamp="open")
    return form


def _date_and_clock(head: Head, rows: Sequence[Sequence[str]]) -> str | None:
    """`DATE+TIME` of a file with the date in a column `date` and the clock in a column `time`."""
    date, clock = (formats.first_named(head.header, (name,)) for name in ("date", "time"))
    if date is None or clock is None or {head.header.count(date), head.header.count(clock)} != {1}:
        return None
    apart = [head.cells(rows, name) for name in (date, clock)]
    fits = any(apart[1]) and all(_CLOCK.fullmatch(text) for text in apart[1] if text)
    return f"{date}+{clock}" if fits and not any(":" in text for text in apart[0]) else None


def _stamp_form(
    options: ImportOptions,
    zone: ZoneInfo | None,
    texts: list[str],
    columns: Mapping[str, str],
    known: Form | None,
) -> StampForm:
    column, example = columns["timestamp"], next(filter(None, texts), "")
    if options.date_format is not None:
        form = StampForm("date", zone=zone, pattern=_checked_pattern(options))
        if texts and all(cells.parsed_date(text, form.pattern) is None for text in texts):
            raise UsageError(
                f"--date-format: no stamp in {column!r} is of the form {form.pattern}; the first "
                f"one is {example!r}"
            )
        return form
    if options.unit is not None:
        return StampForm(options.unit, zone=zone)
    if not texts:
        raise BatchError(f"{options.file.name} has a header and no row of its width")
    unit, patterns = cells.guessed_stamps(texts)
    if unit is None:
        raise UsageError(
            f"the stamps in {column!r} are neither Unix times nor ISO-8601 nor dates of a known "
            f"form, such as {example!r}; choose another --timestamp-column, or say --date-format"
        )
    if known is not None and known.date_format in patterns:
        patterns = (known.date_format,)
    if len(patterns) > 1:
        raise UsageError(
            f"which number is the day and which the month in {column!r}, such as {example!r}? "
            f"Say --date-format {' or --date-format '.join(map(repr, patterns))}"
        )
    by_size = unit in ("s", "ms", "us", "ns")
    return StampForm(unit, by_size=by_size, zone=zone, pattern="".join(patterns))


def _checked_pattern(options: ImportOptions) -> str:
    pattern = options.date_format or ""
    if options.unit is not None:
        raise UsageError("--date-format and --unit both state the form of the times; say one")
    sample = datetime(2013, 11, 28, 17, 45, 56, tzinfo=UTC)
    found = cells.parsed_date(sample.strftime(pattern), pattern)
    if found is None or found.date() != sample.date():
        raise UsageError(
            f"--date-format: {pattern!r} is no pattern of a whole date; write it with %d, %m or "
            "%b, %Y or %y, %H, %M, %S and %p, such as '%d.%m.%Y' or '%m/%d/%Y %H:%M'"
        )
    return pattern


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
    unit = reading.stamps.words
    price = reading.columns["price"]
    notes = []
    if known is not None:
        notes.append(f"recognised as {known.title}")
    notes += _notes_of_head(reading.head)
    pairs = reading.columns.items()
    notes.append("columns: " + ", ".join(f"{column} from {name!r}" for column, name in pairs))
    if options.unit is None and options.date_format is None:
        notes.append(f"stamps are read as {unit}, by their size or form")
    odd = [t for t in times if not GENESIS_MS <= t <= now_ms() + DAY_MS]
    if odd:
        notes.append(
            f"stamps such as {iso(odd[0])} lie before Bitcoin's first day or in the future; are "
            "the column of the time and --unit or --date-format right?"
        )
    if known is not None and known.name == "metatrader" and reading.stamps.zone is None:
        notes.append("MetaTrader writes its server's time; it is read as UTC without --timezone")
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


def _notes_of_head(head: Head) -> list[str]:
    notes = []
    if head.skipped:
        what = "header" if head.headed else "first row"
        notes.append(f"{head.skipped} line(s) before the {what} are left out")
    if len(head.header_rows) > 1:
        rest = "; ".join(", ".join(filter(None, row)) for row in head.header_rows[1:])
        notes.append(f"more rows of column names are left out: {rest}")
    if not head.headed and head.header[0] != "1":
        notes.append(f"the file has no header; its columns are read as {', '.join(head.header)}")
    repeated = [repr(name) for name, count in Counter(head.header).items() if count > 1 and name]
    if repeated:
        notes.append(f"columns with one name are left out: {', '.join(repeated)}")
    return notes
