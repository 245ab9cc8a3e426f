"""Readers see the old snapshot or the new one, whole, or a clear sentence."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bitstorm.errors import SnapshotDamaged, SnapshotMissing
from bitstorm.store import snapshots


def written(stamps_by_month):
    def write(folder, _lineage):
        for month, stamps in stamps_by_month.items():
            (folder / f"month={month}").mkdir(parents=True)
            table = pa.table({"timestamp": pa.array(stamps, pa.int64())})
            pq.write_table(table, folder / f"month={month}" / "part-0.parquet")
        return {"batches": {}}

    return write


def published(root, stamps_by_month, parent=None):
    return snapshots.publish(root, table="T", parent=parent, write=written(stamps_by_month))


def test_a_published_snapshot_is_current_and_its_record_is_what_was_written(tmp_path):
    first = published(tmp_path / "prices", {"2021-01": [5, 7], "2021-02": [9]})
    found = snapshots.current(tmp_path / "prices")
    assert found == first
    manifest = found.manifest
    assert (manifest.rows, manifest.first_ms, manifest.last_ms) == (3, 5, 9)
    assert [(f.path, f.rows) for f in manifest.files] == [
        ("month=2021-01/part-0.parquet", 2),
        ("month=2021-02/part-0.parquet", 1),
    ]
    assert snapshots.resolve(tmp_path / "prices") == found.folder


def test_a_second_publish_leaves_the_first_readable_by_its_name(tmp_path):
    first = published(tmp_path, {"2021-01": [1]})
    second = published(tmp_path, {"2021-01": [1, 2]}, parent=first)
    assert (second.manifest.sequence, second.manifest.parent) == (2, first.id)
    assert snapshots.current(tmp_path).id == second.id
    assert snapshots.current(tmp_path, snapshot=first.id).manifest.rows == 1


def test_a_write_that_fails_leaves_the_old_snapshot_current(tmp_path):
    first = published(tmp_path, {"2021-01": [1]})

    def broken(folder, lineage):
        written({"2021-01": [1, 2]})(folder, lineage)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        snapshots.publish(tmp_path, table="T", parent=first, write=broken)
    assert snapshots.current(tmp_path).id == first.id


def test_no_data_set_and_no_such_snapshot_are_told_apart(tmp_path):
    assert snapshots.current(tmp_path) is None
    with pytest.raises(SnapshotMissing, match="run ingest"):
        snapshots.required(tmp_path, hint="run ingest")
    first = published(tmp_path, {"2021-01": [1]})
    for name in ("000009-20210101T000000Z-abcdef", "../../etc/passwd"):
        with pytest.raises(SnapshotMissing, match=first.id):
            snapshots.current(tmp_path, snapshot=name)


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_part_file_is_named(tmp_path, damage):
    found = published(tmp_path, {"2021-01": [1], "2021-02": [2]})
    part = found.files[1]
    if damage == "cut":
        part.write_bytes(part.read_bytes()[:-1])
    else:
        part.unlink()
    with pytest.raises(SnapshotDamaged, match="month=2021-02"):
        snapshots.current(tmp_path)


def test_a_garbled_current_or_manifest_is_a_clear_sentence(tmp_path):
    found = published(tmp_path, {"2021-01": [1]})
    manifest = tmp_path / "manifests" / f"{found.id}.json"
    whole = manifest.read_text()
    manifest.write_text(whole[:50])
    with pytest.raises(SnapshotDamaged, match="manifest"):
        snapshots.current(tmp_path)
    manifest.write_text(json.dumps({"id": 1}))
    with pytest.raises(SnapshotDamaged, match="manifest"):
        snapshots.current(tmp_path)
    manifest.write_text(whole)
    (tmp_path / "CURRENT").write_text("0000")
    with pytest.raises(SnapshotDamaged, match="CURRENT"):
        snapshots.current(tmp_path)


def test_stray_files_are_no_part_files(tmp_path):
    found = published(tmp_path, {"2021-01": [1]})
    (found.folder / "_temporary").mkdir()
    (found.folder / "_temporary" / "x.parquet").touch()
    (found.folder / ".x.parquet").touch()
    assert snapshots.part_files(found.folder) == found.files
