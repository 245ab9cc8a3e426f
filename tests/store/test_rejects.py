"""What is refused is kept as it was, with the reason, once."""

from __future__ import annotations

import json

from bitstorm.store.landing import Refused
from bitstorm.store.rejects import save_batch, save_rows


def test_a_refused_batch_is_kept_whole_and_once_with_its_reason(tmp_path):
    source = tmp_path / "bad.csv"
    source.write_bytes(b"\xff\xfe\0x")
    refused = Refused(source, "ab" * 32, "batch_utf8", "it is not UTF-8")
    assert save_batch(tmp_path / "rejects", refused) is True
    assert save_batch(tmp_path / "rejects", refused) is False
    kept = sorted(p.name for p in (tmp_path / "rejects" / "batches").iterdir())
    assert kept == ["abababababab-bad.csv", "abababababab-bad.csv.reason.json"]
    assert (tmp_path / "rejects" / "batches" / kept[0]).read_bytes() == b"\xff\xfe\0x"
    note = json.loads((tmp_path / "rejects" / "batches" / kept[1]).read_text())
    assert (note["rule"], note["reason"]) == ("batch_utf8", "it is not UTF-8")


def test_refused_rows_are_kept_by_batch_and_once(tmp_path):
    names = {"a" * 64: "one.csv", "b" * 64: "two.csv"}
    facts = {
        batch: {"file": name, "columns": ["timestamp", "price"], "seen_ms": 5}
        for batch, name in names.items()
    }
    rows = [
        {"batch": batch, "line": line, "text": f"{line},\0ü", "rule": "r", "reason": "why"}
        for batch in names
        for line in (2, 5)
    ]
    for _ in range(2):
        written = save_rows(tmp_path, iter(rows), facts=facts)
    assert sorted(p.name for p in (tmp_path / "rows").iterdir()) == [
        "aaaaaaaaaaaa-one.csv.jsonl",
        "bbbbbbbbbbbb-two.csv.jsonl",
    ]
    lines = [json.loads(x) for x in written["b" * 64].read_text().splitlines()]
    assert all((x["columns"], x["seen_ms"]) == (["timestamp", "price"], 5) for x in lines)
    assert [(x["file"], x["line"], x["text"], x["rule"], x["reason"]) for x in lines] == [
        ("two.csv", 2, "2,\0ü", "r", "why"),
        ("two.csv", 5, "5,\0ü", "r", "why"),
    ]
