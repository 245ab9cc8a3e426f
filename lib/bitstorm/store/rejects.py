"""Saves refused batches and rows as text, with the reason.

`rejects/batches/HASH-NAME` is a batch that is refused as a whole, with `….reason.json` next to it;
`rejects/rows/HASH-NAME.jsonl` has one JSON object for each refused row of an ingested batch. Names
depend only on the content, so a repeated run writes the same files again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.core import durable_io
from bitstorm.core.schema import GENESIS_MS
from bitstorm.core.time import iso

if TYPE_CHECKING:
    from bitstorm.store.landing import Batch, Refused

_SHORT = 12
# The ends of the rules that several columns have.
_ENDS = {
    "_present": "is empty",
    "_finite": "is not finite",
    "_readable": "is not a finite number; leave it empty for none",
    "_positive": "is not above zero",
    "_in_range": "does not fit into float32",
}


def reason(rule: str, row: Mapping[str, Any]) -> str:
    """One sentence for a refused row: what was found and what was expected.

    `row` has the text `raw_NAME` of each column, and what else the rule needs.
    """
    time, price = _quoted(row["raw_timestamp"]), _quoted(row.get("raw_price"))
    explained = {
        "field_count": f"found {row.get('found_width')} fields, the header has {row.get('width')}",
        "timestamp_readable": f"the timestamp {time} is neither Unix seconds or milliseconds "
        "nor an ISO-8601 date-time",
        "timestamp_in_range": f"the time {time} is before Bitcoin's first block "
        f"({iso(GENESIS_MS)})",
        "not_in_future": f"the time {time} is later than its batch; expected nothing after "
        f"{iso(row['not_after_ms'])}",
        "price_readable": f"the price {price} is not a plain or exponent number",
        "price_jump": f"the price {price} is too far from {row.get('around')}, the median of "
        "the rows around it (ingest.max_jump)",
    }
    if rule in explained:
        return explained[rule]
    end = next(end for end in _ENDS if rule.endswith(end))
    name = rule.removesuffix(end)
    found = " ".join(filter(None, (name, _quoted(row.get(f"raw_{name}")))))
    return f"the {found} {_ENDS[end]}"


def _quoted(text: str | None) -> str:
    """The refused text for a sentence: quoted, at most 60 characters."""
    return "" if text is None else repr(text[:60])


def save_batch(rejects: Path, refused: Refused) -> bool:
    """Save the batch's bytes and the reason; return False where they are already saved."""
    folder = rejects / "batches"
    target = folder / f"{refused.sha256[:_SHORT]}-{refused.path.name}"
    note = target.with_name(target.name + ".reason.json")
    if note.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with refused.path.open("rb") as source, durable_io.replacing(target) as stream:
        shutil.copyfileobj(source, stream)
    record = {
        "file": refused.path.name,
        "batch": refused.sha256,
        "rule": refused.rule,
        "reason": refused.reason,
    }
    # The note is last: with it both files are complete.
    durable_io.replace(note, (json.dumps(record, indent=2) + "\n").encode())
    return True


def save_rows(
    rejects: Path, rows: Iterable[Mapping[str, Any]], *, facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Path]:
    """Write one JSONL file for each batch from a stream of refused rows, which is sorted by batch;
    return the files by batch.

    Each row has `batch`, `line`, `text`, `rule`, `reason`. `facts` (see `batch_facts`) are part of
    each line, so that a replay can check the row again.
    """
    written: dict[str, Path] = {}
    for batch, group in groupby(rows, key=lambda row: str(row["batch"])):
        target = rows_path(rejects, batch, str(facts[batch]["file"]))
        target.parent.mkdir(parents=True, exist_ok=True)
        with durable_io.replacing(target) as stream:
            for line in _lines(group, facts[batch]):
                stream.write(line.encode())
        written[batch] = target
    return written


def batch_facts(batch: Batch) -> dict[str, Any]:
    """The facts of a batch that each of its refused rows gets."""
    sidecar = batch.sidecar
    return {
        "file": batch.name,
        "columns": list(batch.columns),
        "seen_ms": batch.seen_ms,
        "granularity_ms": None if sidecar is None else sidecar.granularity_ms,
        "fetched_at": None if sidecar is None else sidecar.fetched_at,
    }


def rows_path(rejects: Path, batch: str, name: str) -> Path:
    """The file of a batch's refused rows."""
    return rejects / "rows" / f"{batch[:_SHORT]}-{name}.jsonl"


def row_files(rejects: Path) -> list[Path]:
    """All files of refused rows."""
    return sorted((rejects / "rows").glob("[!.]*.jsonl"))


def _lines(rows: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> Iterator[str]:
    for row in rows:
        record = {
            "file": facts["file"],
            **{name: row[name] for name in ("line", "rule", "reason", "text", "batch")},
            **facts,
        }
        yield json.dumps(record, ensure_ascii=False) + "\n"
