"""A manifest is what was written, or it is found out: never a silent fallback."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitstorm.core.errors import SnapshotDamaged, SnapshotMissing
from bitstorm.core.file_system import files_of
from bitstorm.core.schema import PRICES
from bitstorm.store import manifest as manifests
from bitstorm.store import snapshots
from faults.publishing import (
    FEBRUARY,
    HOUR,
    JANUARY,
    batch,
    beside,
    canonical_hash,
    job,
    publish,
    unbroken,
    verified,
    whole,
)


def three_commits(root):
    batches = [batch(f"b{n}", start, 3) for n, start in enumerate((JANUARY, FEBRUARY, JANUARY - 9))]
    for number in range(3):
        assert job(root, batches[: number + 1])
    return batches


class Newest:
    """The newest manifest's file, at its place."""

    def __init__(self, root):
        self._files = files_of(root)
        self.name = f"manifests/{max(self._files.names('manifests'))}"

    def read_bytes(self):
        return self._files.read(self.name)

    def write_bytes(self, content):
        self._files.put(self.name, content)

    def write_text(self, text):
        self.write_bytes(text.encode())


def newest(root):
    return Newest(root)


def test_each_manifest_names_its_parent_and_extends_the_chain(root):
    batches = three_commits(root)
    records = unbroken(root)
    assert [r["sequence"] for r in records] == [1, 2, 3]
    assert [r["parent"] for r in records] == [None, records[0]["id"], records[1]["id"]]
    verified(root, batches)


def test_a_manifest_states_schema_files_totals_and_batches(root):
    job(root, [batch("one", JANUARY, 3), batch("two", FEBRUARY, 2)])
    record = json.loads(newest(root).read_bytes())
    assert [(f["name"], f["type"], f["nullable"]) for f in record["schema"]] == [
        ("timestamp", "int64", False),
        ("price", "float32", False),
        ("market_cap", "float64", True),
        ("volume_24h", "float64", True),
        ("price_change_24h", "float32", True),
        ("month", "string", False),
    ]
    assert record["schema_hash"] == manifests.schema_hash(PRICES)
    assert (record["rows"], record["first_ms"], record["last_ms"]) == (5, JANUARY, FEBRUARY + HOUR)
    assert [
        (f["path"], f["rows"], f["row_groups"], f["first_ms"], f["last_ms"])
        for f in record["files"]
    ] == [
        ("month=2021-01/part-0.parquet", 3, 1, JANUARY, JANUARY + 2 * HOUR),
        ("month=2021-02/part-0.parquet", 2, 1, FEBRUARY, FEBRUARY + HOUR),
    ]
    assert set(record["batches"]) == {"one", "two"}
    assert {"bitstorm", "pyarrow", "petastorm", "pyspark"} <= set(record["versions"])


def test_a_file_that_is_no_numbered_manifest_is_none(root):
    first = publish(root, whole({JANUARY: 1.0}))
    for name in ("1.json", "00000002.json.tmp", ".tmp-00000002.json-ab12cd34", "00000002.txt"):
        files_of(root).put(f"manifests/{name}", b"{}")
    assert manifests.sequences(root) == [1]
    assert snapshots.current(root) == first


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_newest_manifest_is_an_error_with_advice(root, share):
    three_commits(root)
    content = newest(root).read_bytes()
    newest(root).write_bytes(content[: int(len(content) * share)])
    for read in (
        lambda: snapshots.current(root),
        lambda: snapshots.required(root, hint="x"),
        lambda: snapshots.required(root).folder,
        lambda: job(root, [batch("b9", JANUARY, 1)]),
    ):
        with pytest.raises(SnapshotDamaged, match=r"00000003\.json.*rollback"):
            read()
    assert len(manifests.sequences(root)) == 3


@pytest.mark.parametrize(
    "content", [b"[]", b"null", b"7", b'{"hash": 1}', b"\xff\xfe", b"{" * 9999]
)
def test_a_manifest_of_something_else_is_the_same_clear_error(root, content):
    publish(root, whole({JANUARY: 1.0}))
    newest(root).write_bytes(content)
    with pytest.raises(SnapshotDamaged, match="rollback"):
        snapshots.current(root)


@pytest.mark.parametrize(
    "edit",
    [
        {"rows": 4},
        {"id": "00000001-000000000000"},
        {"parent_hash": "0" * 64},
        {"digest": "0" * 64},
        {"files": []},
        {"reason": "nothing to see"},
        {"hash": "0" * 64},
    ],
)
def test_an_edited_manifest_is_found_out(root, edit):
    publish(root, whole({JANUARY: 1.0}))
    record = json.loads(newest(root).read_bytes())
    newest(root).write_text(json.dumps({**record, **edit}))
    with pytest.raises(SnapshotDamaged, match="rollback"):
        snapshots.current(root)


def test_unknown_fields_are_not_ignored(root):
    publish(root, whole({JANUARY: 1.0}))
    record = {**json.loads(newest(root).read_bytes()), "encrypted": True}
    newest(root).write_text(json.dumps({**record, "hash": canonical_hash(record)}))
    with pytest.raises(SnapshotDamaged, match="encrypted"):
        snapshots.current(root)


def test_a_manifest_of_a_later_format_asks_for_a_newer_bitstorm(root):
    publish(root, whole({JANUARY: 1.0}))
    record = {**json.loads(newest(root).read_bytes()), "format": 99}
    newest(root).write_text(json.dumps({**record, "hash": canonical_hash(record)}))
    with pytest.raises(SnapshotDamaged, match="newer Bitstorm"):
        snapshots.current(root)


def test_a_copy_under_another_number_is_not_that_commit(root):
    publish(root, whole({JANUARY: 1.0}))
    files_of(root).put("manifests/00000002.json", newest(root).read_bytes())
    with pytest.raises(SnapshotDamaged, match=r"00000002\.json.*number 1"):
        snapshots.current(root)


def test_a_manifest_that_may_not_be_read_is_no_missing_data_set(tmp_path):
    publish(tmp_path, whole({JANUARY: 1.0}))
    path = tmp_path / newest(tmp_path).name
    path.unlink()
    path.mkdir()  # unreadable, also for root
    with pytest.raises(SnapshotDamaged, match="rollback"):
        snapshots.current(tmp_path)


def test_older_snapshots_stay_readable_beside_a_damaged_one(root):
    first = publish(root, whole({JANUARY: 1.0}))
    publish(root, whole({JANUARY: 1.0, FEBRUARY: 2.0}), first)
    newest(root).write_bytes(b"{")
    assert snapshots.current(root, snapshot=first.id) == first
    with pytest.raises(SnapshotMissing, match=first.id):
        snapshots.current(root, snapshot="00000009-000000000000")


def test_the_first_change_is_the_earliest_month_with_other_rows(root):
    both = publish(root, whole({JANUARY: 1.0, FEBRUARY: 2.0}))
    other = publish(root, whole({JANUARY: 1.0, FEBRUARY: 2.5}), both)
    without = publish(beside(root, "elsewhere"), whole({FEBRUARY: 2.5}))
    january, february = (file.month for file in both.manifest.files)
    for before, after, month in (
        (both, both, None),
        (both, other, february),
        (other, without, january),
        (without, both, january),
    ):
        assert manifests.first_change(before.manifest, after.manifest) == month


def test_a_snapshot_is_known_while_there_is_a_manifest_of_it(root):
    first = publish(root, whole({JANUARY: 1.0}))
    publish(root, whole({JANUARY: 2.0}), first)
    assert snapshots.known(root, first.id) == first
    files_of(root).delete([manifests.name_of(1)])
    assert snapshots.known(root, first.id) is None


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_single_changed_byte_is_read_as_the_manifest(root, data):
    if not manifests.sequences(root):
        publish(root, whole({JANUARY: 1.5, FEBRUARY: 2.5}))
    path = newest(root)
    whole_text = path.read_bytes()
    at = data.draw(st.integers(0, len(whole_text) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != whole_text[at]))
    before = manifests.read(root, 1)
    path.write_bytes(whole_text[:at] + bytes([byte]) + whole_text[at + 1 :])
    try:
        # Other white space, or an escape for the same letter, is the same manifest.
        assert dataclasses.asdict(manifests.read(root, 1)) == dataclasses.asdict(before)
    except SnapshotDamaged as error:
        assert "rollback" in str(error)
    finally:
        path.write_bytes(whole_text)
