"""The seal: checks a folder before a manifest names it. Without Spark.

Files that the commit wrote are read completely, each month by one call of `check_month`: in threads
here, or in Spark tasks by `seal_tasks`. It gives records and digests, no rows. Files that the
commit links from its parent are checked by size and footer and inherit the rest, so the cost
depends on the rewritten months.
"""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bitstorm.core import durable_io
from bitstorm.core.errors import SealBroken, first_line
from bitstorm.core.schema import LINEAGE, PARTITION, Table
from bitstorm.store.digest import month_digest
from bitstorm.store.manifest import File

if TYPE_CHECKING:
    from petastorm.unischema import Unischema


_MONTH = re.compile(r"month=\d{4}-(?:0[1-9]|1[0-2])")
_PART = re.compile(_MONTH.pattern + r"/part-[0-9A-Za-z._-]+\.parquet")
_THREADS = 4


@dataclass(frozen=True)
class Sealed:
    """The files of data and lineage in the order of their paths; digests of the rewritten months
    with rows."""

    files: tuple[File, ...]
    lineage: tuple[File, ...]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class Month:
    """What is checked of one rewritten month: its new files at `paths` in `folder`, those in the
    folder `lineage` (None without), and the parent's files `before`, whose keys must still be
    there. `where` names the operation in errors."""

    name: str
    folder: Path
    paths: tuple[str, ...]
    lineage: Path | None = None
    lineage_paths: tuple[str, ...] = ()
    before: tuple[Path, ...] = ()
    where: str = ""


@dataclass(frozen=True)
class Checked:
    """The digest of a month (empty without rows), and the records of its files."""

    digest: str
    files: tuple[File, ...]
    lineage: tuple[File, ...]


# Calls `check_month` for each month; the results are in the order of the months.
EachMonth: TypeAlias = Callable[[Table, Sequence[Month]], Iterable[Checked]]


def in_threads(table: Table, months: Sequence[Month]) -> Iterator[Checked]:
    """Check in four threads, so that this process holds at most four months: reading, hashing and
    comparing release Python's lock."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(partial(check_month, table), months)


def seal_folder(
    folder: Path,
    table: Table,
    *,
    inherited: Mapping[str, File],
    lineage: tuple[Path, Mapping[str, File]] | None = None,
    before: Mapping[str, Sequence[Path]] | None = None,
    where: str = "",
    each_month: EachMonth = in_threads,
) -> Sealed:
    """Check the folder and its lineage.

    `inherited` are the parent's records of linked files, by path; `lineage` is its folder with such
    records. `before` are the parent's files of rewritten months that must keep their keys. Raises
    SealBroken with what was found, and where.
    """
    files, new = _listed(folder, inherited, summaries=True)
    owners, of_lineage = ([], {}) if lineage is None else _listed(*lineage, summaries=False)
    before = before or {}
    months = [
        Month(
            name,
            folder,
            tuple(new.get(name, ())),
            None if lineage is None else lineage[0],
            tuple(of_lineage.get(name, ())),
            tuple(before.get(name, ())),
            where,
        )
        for name in sorted({*new, *of_lineage, *before})
    ]
    digests = {}
    for month, found in zip(months, each_month(table, months), strict=True):
        files += found.files
        owners += found.lineage
        if found.digest:
            digests[month.name] = found.digest
    files.sort(key=lambda file: file.path)
    owners.sort(key=lambda file: file.path)
    if files:
        check_summaries(folder, files)
    return Sealed(tuple(files), tuple(owners), digests)


def _listed(
    folder: Path, inherited: Mapping[str, File], *, summaries: bool
) -> tuple[list[File], dict[str, list[str]]]:
    """The records of the linked files, and the paths of the new ones by month."""
    paths = _part_paths(folder, summaries=summaries)
    if missing := sorted(inherited.keys() - set(paths)):
        raise SealBroken(f"{folder.name} lacks {', '.join(missing)}, which its parent has")
    files = [_check_inherited(folder, inherited[path]) for path in paths if path in inherited]
    new: dict[str, list[str]] = {}
    for path in paths:
        if path not in inherited:
            new.setdefault(_month(path), []).append(path)
    if both := {file.month for file in files} & set(new):
        raise SealBroken(
            f"months {', '.join(sorted(both))} of {folder.name} mix new and linked files"
        )
    return files, new


def check_month(table: Table, month: Month) -> Checked:
    """Read one month completely and check it. Raises SealBroken."""
    files: list[File] = []
    owners: list[File] = []
    digest, keys = "", None
    if month.paths:
        rows, files = _read_month(month.folder, month.paths, table)
        where = f"{month.folder.name}/month={month.name}"
        keys = _check_rows(rows, table, month=month.name, where=where)
        digest = month_digest(rows, table)
        # Before the next files are read.
        del rows
    _require_subset(month, keys, table)
    if month.lineage is not None:
        theirs = None
        if month.lineage_paths:
            rows, owners = _read_month(month.lineage, month.lineage_paths, LINEAGE)
            where = f"{month.lineage.name}/month={month.name}"
            theirs = _check_rows(rows, LINEAGE, month=month.name, where=where)
        if keys is None or theirs is None or not np.array_equal(keys, theirs):
            raise SealBroken(
                f"the lineage of month {month.name} in {month.where} has other keys than its rows"
            )
    return Checked(digest, tuple(files), tuple(owners))


def keys_of(rows: pa.Table, table: Table) -> np.ndarray:
    """The rows' keys, (n,): int64 ms UTC, or a text where the table's key has more columns."""
    if len(table.key) == 1:
        keys: np.ndarray = rows.column(table.key[0]).to_numpy()
        return keys
    cells = [rows.column(name).cast(pa.string()) for name in table.key]
    return np.array(pc.binary_join_element_wise(*cells, " ").to_pylist(), dtype=np.str_)


def digests_of(folder: Path, files: Sequence[File], table: Table) -> dict[str, str]:
    """The digest of each month, computed again from these files. Raises SealBroken where one cannot
    be read, or has other columns."""
    months = sorted({file.month for file in files})
    paths = {month: [file.path for file in files if file.month == month] for month in months}
    return {m: month_digest(_read_month(folder, paths[m], table)[0], table) for m in months}


def _require_subset(month: Month, keys: np.ndarray | None, table: Table) -> None:
    """Raise SealBroken where a rewritten month lacks a key of the parent."""
    if not month.before:
        return
    columns = (pq.ParquetFile(file).read(columns=list(table.key)) for file in month.before)
    known = np.concatenate([keys_of(rows, table) for rows in columns])
    missing = np.setdiff1d(known, known[:0] if keys is None else keys)
    if len(missing):
        raise SealBroken(
            f"{len(missing)} rows of month {month.name} are in the parent and not in {month.where} "
            f"(the first at {missing[0]}): nothing was published"
        )


def _part_paths(folder: Path, *, summaries: bool) -> list[str]:
    """The paths of all Parquet files. Raises SealBroken for any other file, folder or link."""
    found: list[str] = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder).as_posix()
        if path.is_symlink():
            raise SealBroken(f"{folder.name} holds a symbolic link, {relative}: remove it")
        if path.is_dir():
            if _MONTH.fullmatch(relative):
                continue
            raise SealBroken(f"{folder.name} holds a stray folder {relative}")
        if _PART.fullmatch(relative):
            found.append(relative)
        elif not (summaries and relative in (METADATA, COMMON_METADATA)):
            raise SealBroken(f"{folder.name} holds a stray file {relative}")
    return found


def _month(path: str) -> str:
    return path.partition("/")[0].partition("=")[2]


def _check_inherited(folder: Path, record: File) -> File:
    """The record of a linked file. Raises SealBroken where its size or footer differ."""
    path = folder / record.path
    size, rows = path.stat().st_size, None
    if size == record.size:
        with contextlib.suppress(pa.ArrowException, OSError):
            rows = pq.read_metadata(path).num_rows
    if (size, rows) != (record.size, record.rows):
        raise SealBroken(
            f"{record.path} has {size} bytes and {rows} rows, its record {record.size} and "
            f"{record.rows}: the parent's file is damaged, run `bitstorm verify`"
        )
    return record


def _read_month(folder: Path, paths: Sequence[str], table: Table) -> tuple[pa.Table, list[File]]:
    """The month's rows in the order of time, and a record for each file."""
    wanted = arrow_schema(table)
    pieces, records = [], []
    for path in paths:
        file = folder / path
        try:
            footer = pq.read_metadata(file)
            rows = pq.ParquetFile(file).read()
        except (OSError, pa.ArrowException) as error:
            raise SealBroken(f"{path} cannot be read ({first_line(error)})") from None
        if rows.schema.remove_metadata().names != wanted.names:
            raise SealBroken(f"{path} has columns {rows.schema.names}, expected {wanted.names}")
        for field in wanted:
            if rows.schema.field(field.name).type != field.type:
                raise SealBroken(
                    f"{field.name} of {path} is {rows.schema.field(field.name).type}, "
                    f"expected {field.type}"
                )
        if rows.num_rows == 0 or rows.num_rows != footer.num_rows:
            raise SealBroken(f"{path} has {rows.num_rows} rows, its footer {footer.num_rows}")
        span = pc.min_max(rows.column("timestamp"))
        records.append(
            File(
                path=path,
                size=file.stat().st_size,
                sha256=durable_io.file_hash(file),
                rows=rows.num_rows,
                row_groups=footer.num_row_groups,
                first_ms=span["min"].as_py() or 0,
                last_ms=span["max"].as_py() or 0,
            )
        )
        pieces.append(rows.replace_schema_metadata(None).cast(wanted))
    if len(pieces) == 1:
        return pieces[0], records
    order = [(name, "ascending") for name in table.key]
    return pa.concat_tables(pieces).sort_by(order), records


def _check_rows(rows: pa.Table, table: Table, *, month: str, where: str) -> np.ndarray:
    """The month's keys, (n,). Raises SealBroken where a row breaks a rule of the table."""
    for field in table.stored:
        if field.nullable:
            continue
        column = rows.column(field.name)
        if column.null_count:
            raise SealBroken(f"{column.null_count} values of {field.name} in {where} are null")
        if field.kind in ("float32", "float64"):
            values = column.to_numpy()
            good = np.isfinite(values) & ((values > 0) if "> 0" in field.rule else True)
            if not good.all():
                raise SealBroken(
                    f"{(~good).sum()} values of {field.name} in {where} are not {field.rule}"
                )
    times: np.ndarray = rows.column("timestamp").to_numpy()
    keys, several = keys_of(rows, table), len(table.key) > 1
    # With several columns a time may repeat, so the keys themselves must differ.
    wrong = np.diff(times) < (0 if several else 1)
    if wrong.any() or (several and len(np.unique(keys)) < len(keys)):
        at = int(times[int(np.argmax(wrong))])
        raise SealBroken(f"{where} repeats a {', '.join(table.key)} or is out of order at {at}")
    start = np.datetime64(month, "M").astype("datetime64[ms]").astype(np.int64)
    end = (np.datetime64(month, "M") + 1).astype("datetime64[ms]").astype(np.int64)
    if times[0] < start or times[-1] >= end:
        raise SealBroken(f"{where} holds timestamps of another {PARTITION}")
    return keys


def check_summaries(folder: Path, files: Sequence[File]) -> None:
    """Raise SealBroken unless `_common_metadata` holds a Unischema, and `_metadata` lists exactly
    these files with their rows. Without files there is no `_metadata`."""
    try:
        common = pq.read_schema(folder / COMMON_METADATA)
        summary = pq.read_metadata(folder / METADATA) if files else None
    except (OSError, pa.ArrowException) as error:
        raise SealBroken(f"a summary of {folder.name} cannot be read ({error})") from None
    if UNISCHEMA_KEY not in (common.metadata or {}):
        raise SealBroken(f"{COMMON_METADATA} of {folder.name} holds no schema of petastorm")
    if summary is None:
        return
    listed: dict[str, int] = {}
    for number in range(summary.num_row_groups):
        group = summary.row_group(number)
        path = group.column(0).file_path
        listed[path] = listed.get(path, 0) + group.num_rows
    expected = {file.path: file.rows for file in files}
    if listed != expected:
        wrong = sorted(set(listed.items()) ^ set(expected.items()))[:3]
        raise SealBroken(f"{METADATA} of {folder.name} does not list its files: {wrong}")


METADATA = "_metadata"
COMMON_METADATA = "_common_metadata"
# Where petastorm looks for the pickled Unischema (petastorm.etl.dataset_metadata).
UNISCHEMA_KEY = b"dataset-toolkit.unischema.v1"


def arrow_schema(table: Table) -> pa.Schema:
    """The stored columns (without the partition), all nullable as in Spark's files."""
    return pa.schema([pa.field(f.name, pa.type_for_alias(f.kind)) for f in table.stored])


def write_metadata(folder: Path, files: Sequence[str], table: Table, schema: Unischema) -> None:
    """Write `_metadata` and `_common_metadata` for the Parquet files at these paths in the folder.

    Spark writes both inside `materialize_dataset`, but lists only its own new files, and deletes
    both where the key-values of footers differ (files of pyarrow or another Spark). petastorm then
    silently skips unlisted files. Summaries from all footers are right for any mix of files.

    Raises SealBroken for a file without a readable footer, or with other columns than the rest.
    """
    collected: pq.FileMetaData | None = None
    for path in files:
        try:
            footer = pq.read_metadata(folder / path)
            footer.set_file_path(path)
            if collected is None:
                collected = footer
            else:
                collected.append_row_groups(footer)
        except (pa.ArrowException, RuntimeError) as error:
            raise SealBroken(f"{path} does not fit the other files ({first_line(error)})") from None
    if collected is not None:
        with durable_io.replacing(folder / METADATA) as out:
            collected.write_metadata_file(out)
    common = arrow_schema(table).with_metadata({UNISCHEMA_KEY: pickle.dumps(schema, protocol=4)})
    with durable_io.replacing(folder / COMMON_METADATA) as out:
        pq.write_metadata(common, out)
