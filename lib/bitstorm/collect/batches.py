"""CSV batches in `landing/`: each one whole or not there, whatever is killed on the way.

The order that makes it so: rows into a hidden file, fsync; the sidecar under its final name,
fsync; the CSV's link to its final name, which fails where the name exists and is the commit; fsync
of the folder.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from bitstorm.collect.csv_import.table import lines_of, records
from bitstorm.core import durable_io
from bitstorm.core.errors import BatchError
from bitstorm.core.schema import CSV_COLUMNS
from bitstorm.core.sidecar import SUFFIX, Origin, Sidecar, read_sidecar, sidecar_path
from bitstorm.core.time import (
    Span,
)


@dataclass(frozen=True, slots=True)
class Observation:
    """What the source stated for one moment.

    `timestamp` is the observation's own time, Unix milliseconds UTC. Price, cap and volume are in
    the quote currency, the volume is that of the 24 hours before, the change over them in percent.
    """

    timestamp: int
    price: float
    market_cap: float | None = None
    volume_24h: float | None = None
    price_change_24h: float | None = None


_TEMPORARY = ".tmp"
_ENDINGS = (".csv", ".csv.gz")
_LEFTOVER_SECONDS = 60.0
_BUFFER = 1 << 20


@dataclass(frozen=True)
class Row:
    """One line to write: its time (Unix ms, None where unreadable) and the cells as text."""

    timestamp_ms: int | None
    cells: Sequence[str]


@dataclass(frozen=True)
class Batch:
    """A batch that lies in landing. `new` is False when the same content was there already."""

    path: Path
    sidecar: Sidecar
    new: bool


@dataclass(frozen=True)
class Draft:
    """Rows that are on disk under a hidden name, and what is known of them."""

    path: Path
    rows: int
    sha256: str
    first_ms: int | None
    last_ms: int | None


def batch_name(coin: str, timestamp_ms: int, suffix: str = "") -> str:
    """`bitcoin_prices_20260518_081738.csv`; the suffix stands before the ending."""
    moment = datetime.fromtimestamp(timestamp_ms // 1000, UTC)
    return f"{coin}_prices_{moment:%Y%m%d_%H%M%S}{suffix}.csv"


def observation_rows(observations: Iterable[Observation]) -> Iterator[Row]:
    """Rows of CSV_COLUMNS: the shortest text that is exactly the number, empty for None."""
    for o in observations:
        numbers = (o.price, o.market_cap, o.volume_24h, o.price_change_24h)
        texts = ("" if n is None else repr(float(n)) for n in numbers)
        yield Row(o.timestamp, (str(o.timestamp), *texts))


def write_batch(
    landing: Path,
    rows: Iterable[Row],
    *,
    name: str | Callable[[Draft], str],
    origin: Origin,
    granularity_ms: int | None,
    fetched_at: int,
    request: Mapping[str, Any],
    corrections: Sequence[Mapping[str, Any]] = (),
    columns: Sequence[str] = CSV_COLUMNS,
) -> Batch:
    """Write one batch and its sidecar; `fetched_at` is Unix ms.

    Rows are taken one by one. `name` may be worked out from the written rows. Where it is taken by
    the same bytes, that batch is returned; where by others, `_2`, `_3` … is put before `.csv`.
    """
    with drafted(landing, rows, columns=columns) as draft:
        sidecar = Sidecar(
            rows=draft.rows,
            sha256=draft.sha256,
            source=origin.source,
            coin=origin.coin,
            vs_currency=origin.vs_currency,
            granularity_ms=granularity_ms,
            first_ms=draft.first_ms,
            last_ms=draft.last_ms,
            fetched_at=fetched_at,
            request=dict(request),
            corrections=[dict(correction) for correction in corrections],
        )
        wanted = name if isinstance(name, str) else name(draft)
        stem = wanted.removesuffix(".csv")
        text = (sidecar.model_dump_json(indent=2) + "\n").encode()
        with _hidden(landing) as (described, stream):
            stream.write(text)
            _synced(stream)
            number = 1
            while True:
                target = landing / (f"{stem}.csv" if number == 1 else f"{stem}_{number}.csv")
                landed = _committed(draft, described, sidecar, target)
                if landed is not None:
                    return landed
                number += 1


@contextmanager
def drafted(landing: Path, rows: Iterable[Row], *, columns: Sequence[str]) -> Iterator[Draft]:
    """The rows in a hidden file of `landing` (made if needed), synced; removed at the end."""
    landing.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    count = 0
    first: int | None = None
    last: int | None = None
    with _hidden(landing) as (path, stream):
        pending = [",".join(columns) + "\n"]
        for row in rows:
            pending.append(",".join(map(_quoted, row.cells)) + "\n")
            count += 1
            stamp = row.timestamp_ms
            if stamp is not None:
                first = stamp if first is None or stamp < first else first
                last = stamp if last is None or stamp > last else last
            if len(pending) >= 4096:
                _flush(pending, stream, digest.update)
        _flush(pending, stream, digest.update)
        _synced(stream)
        yield Draft(path, count, digest.hexdigest(), first, last)


def known_batches(landing: Path) -> Iterator[tuple[Path, Sidecar]]:
    """What landed with a readable sidecar, by name; what a person dropped in has none."""
    for path in sorted(landing.iterdir()) if landing.is_dir() else ():
        if path.name.startswith(".") or not path.name.endswith(_ENDINGS):
            continue
        try:
            sidecar = read_sidecar(path)
        except BatchError:
            continue  # ingest says what is wrong with it
        if sidecar is not None:
            yield path, sidecar


def swept(landing: Path, *, older_than_seconds: float = _LEFTOVER_SECONDS) -> list[Path]:
    """Remove what killed runs left: hidden files, and sidecars whose CSV never came.

    Only those older than `older_than_seconds`: a younger one may be a run at work. Returns what
    was removed.
    """
    removed = []
    for path in sorted(landing.iterdir()) if landing.is_dir() else ():
        hidden = path.name.startswith(durable_io.TEMPORARY) or (
            path.name.startswith(".") and path.name.endswith(_TEMPORARY)
        )
        described = path.name.removesuffix(SUFFIX)
        orphan = (
            path.name != described
            and described.endswith(_ENDINGS)
            and not path.with_name(described).exists()
        )
        try:
            if (hidden or orphan) and time.time() - path.stat().st_mtime > older_than_seconds:
                path.unlink()
                removed.append(path)
        except FileNotFoundError:
            continue  # another sweep was faster
    return removed


def _committed(draft: Draft, described: Path, sidecar: Sidecar, target: Path) -> Batch | None:
    """The batch under this name, None when the name belongs to other bytes."""
    beside = sidecar_path(target)
    if target.exists():
        return _same(target, draft, sidecar)
    linked = True
    try:
        os.link(described, beside)
    except FileExistsError:
        linked = False
        # Either another run is between its two links, or it was killed there.
        stated = _stated(target)
        if stated is None or stated.sha256 != draft.sha256:
            return _same(target, draft, sidecar) if target.exists() else None
        sidecar = stated
    durable_io.sync_folder(target.parent)
    try:
        os.link(draft.path, target)
    except FileExistsError:
        landed = _same(target, draft, sidecar)
        if landed is None and linked:
            beside.unlink()  # the name went to somebody's file, which this does not describe
        return landed
    if not beside.exists():
        # A sweep took it for a leftover: this run was stopped between the links for long.
        os.link(described, beside)
    durable_io.sync_folder(target.parent)
    return Batch(target, sidecar, new=True)


def _same(target: Path, draft: Draft, sidecar: Sidecar) -> Batch | None:
    if durable_io.of_file(target) != draft.sha256:
        return None
    return Batch(target, _stated(target) or sidecar, new=False)


def _stated(target: Path) -> Sidecar | None:
    try:
        return read_sidecar(target)
    except BatchError:
        return None


@contextmanager
def _hidden(folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new hidden file, gone at the end; its links stay."""
    path = folder / f".{os.getpid()}-{os.urandom(6).hex()}{_TEMPORARY}"
    with path.open("xb", buffering=_BUFFER) as stream:
        try:
            yield path, stream
        finally:
            path.unlink(missing_ok=True)


def _quoted(cell: str) -> str:
    """A cell for one record a line: quoted where need be, line ends become spaces."""
    if cell.isalnum():
        return cell
    if "\n" in cell or "\r" in cell:
        cell = " ".join(cell.splitlines())
    if "," in cell or '"' in cell:
        return '"' + cell.replace('"', '""') + '"'
    return cell


def _flush(pending: list[str], stream: IO[bytes], digested: Callable[[bytes], object]) -> None:
    piece = "".join(pending).encode()
    pending.clear()
    digested(piece)
    stream.write(piece)


def _synced(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def batches_of(landing: Path, origin: Origin) -> list[tuple[Path, Sidecar]]:
    """The origin's batches that lie in landing, by name."""
    return [
        (path, sidecar)
        for path, sidecar in known_batches(landing)
        if Origin(sidecar.source, sidecar.coin, sidecar.vs_currency) == origin
    ]


def landed_stamps(batches: Iterable[tuple[Path, Sidecar]], span: Span) -> set[int]:
    """The stamps that these batches have in the span, both ends included."""
    stamps: set[int] = set()
    for path, sidecar in batches:
        first, last = sidecar.first_ms, sidecar.last_ms
        if first is not None and last is not None and first <= span.end and last >= span.start:
            stamps |= stamps_of(path, sidecar)
    return stamps


def stamps_of(path: Path, sidecar: Sidecar) -> set[int]:
    """All stamps of a batch that can be read. Of one or two rows the sidecar has them."""
    first, last = sidecar.first_ms, sidecar.last_ms
    if first is None or last is None:
        return set()
    if sidecar.rows <= 2:
        return {first, last}
    with closing(lines_of(path)) as lines:
        rows = records(lines, ",")
        place = next(rows).index("timestamp")
        texts = [cells[place] for cells in rows if len(cells) > place]
    # What a batch of ours has in another form lies outside the API's time.
    return {int(text) for text in texts if text.isascii() and text.isdigit()}
