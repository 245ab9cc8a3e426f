"""What was refused, kept as text with the reason.

`rejects/batches/HASH-NAME` is a batch refused as a whole, with `….reason.json` beside it;
`rejects/rows/HASH-NAME.jsonl` holds one JSON object a refused row of a batch that went through.
Names depend on the content alone, so a repeated run writes the same files again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from bitstorm.core import durable_io
from bitstorm.store.landing import Batch, Refused

_SHORT = 12


def keep_batch(rejects: Path, refused: Refused) -> bool:
    """Keep the batch's bytes and the reason; False when they are already there."""
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
    # The note is last: a batch counts as kept only when both are whole.
    durable_io.replace(note, (json.dumps(record, indent=2) + "\n").encode())
    return True


def keep_rows(
    rejects: Path, rows: Iterable[Mapping[str, Any]], *, facts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Path]:
    """Write refused rows, which come batch by batch, one JSONL file a batch.

    Each row has `batch`, `line`, `text`, `rule`, `reason`; `facts` are a batch's (see
    `batch_facts`), which make a line of the file enough to judge the row again. Returns the files
    by batch. Rows are streamed, however many there are.
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
    """What is said of a batch beside each of its refused rows."""
    sidecar = batch.sidecar
    return {
        "file": batch.name,
        "columns": list(batch.columns),
        "seen_ms": batch.seen_ms,
        "granularity_ms": None if sidecar is None else sidecar.granularity_ms,
        "fetched_at": None if sidecar is None else sidecar.fetched_at,
    }


def rows_path(rejects: Path, batch: str, name: str) -> Path:
    """Where the refused rows of a batch are."""
    return rejects / "rows" / f"{batch[:_SHORT]}-{name}.jsonl"


def kept_rows(rejects: Path) -> list[Path]:
    """All files of refused rows."""
    return sorted(
        path for path in (rejects / "rows").glob("*.jsonl") if not path.name.startswith(".")
    )


def _lines(rows: Iterable[Mapping[str, Any]], facts: Mapping[str, Any]) -> Iterator[str]:
    for row in rows:
        record = {
            "file": facts["file"],
            **{name: row[name] for name in ("line", "rule", "reason", "text", "batch")},
            **facts,
        }
        yield json.dumps(record, ensure_ascii=False) + "\n"
