"""What was refused, kept as text with the reason.

`rejects/batches/HASH-NAME` is a batch refused as a whole, with `….reason.json` beside it;
`rejects/rows/HASH-NAME.jsonl` holds one JSON object a refused row of a batch that went through.
Names depend on the content alone, so a repeated run writes the same files again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

from bitstorm.store.landing import Refused

_SHORT = 12


def keep_batch(rejects: Path, refused: Refused) -> bool:
    """Keep the batch's bytes and the reason; False when they are already there."""
    folder = rejects / "batches"
    target = folder / f"{refused.sha256[:_SHORT]}-{refused.path.name}"
    note = target.with_name(target.name + ".reason.json")
    if note.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{target.name}"
    shutil.copyfile(refused.path, temporary)
    temporary.replace(target)
    record = {
        "file": refused.path.name,
        "batch": refused.sha256,
        "rule": refused.rule,
        "reason": refused.reason,
    }
    # The note is last: a batch counts as kept only when both are whole.
    with ExitStack() as stack:
        draft = folder / f".{note.name}"
        stack.callback(draft.unlink, missing_ok=True)
        draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        draft.replace(note)
    return True


def keep_rows(
    rejects: Path, rows: Iterable[Mapping[str, Any]], *, names: Mapping[str, str]
) -> dict[str, Path]:
    """Write refused rows, which come batch by batch, one JSONL file a batch.

    Each row has `batch`, `line`, `text`, `rule`, `reason`; `names` gives a batch's file name.
    Returns the files by batch. Rows are streamed, however many there are.
    """
    folder = rejects / "rows"
    written: dict[str, Path] = {}
    for batch, group in groupby(rows, key=lambda row: str(row["batch"])):
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"{batch[:_SHORT]}-{names[batch]}.jsonl"
        temporary = folder / f".{target.name}"
        with temporary.open("w", encoding="utf-8") as stream:
            for line in _lines(group, names[batch]):
                stream.write(line)
        temporary.replace(target)
        written[batch] = target
    return written


def _lines(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[str]:
    for row in rows:
        record = {
            "file": name,
            "line": row["line"],
            "rule": row["rule"],
            "reason": row["reason"],
            "text": row["text"],
            "batch": row["batch"],
        }
        yield json.dumps(record, ensure_ascii=False) + "\n"
