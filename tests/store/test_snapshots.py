"""Readers see the old snapshot or the new one, whole, or a clear sentence."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitstorm.core import durable_io
from bitstorm.core.errors import Overtaken, SnapshotDamaged, SnapshotMissing, StoreError
from bitstorm.store import manifest as manifests
from bitstorm.store import publish as store_publish
from bitstorm.store import snapshots
from bitstorm.store.publish import Change, republish
from faults.publishing import (
    FEBRUARY,
    HOUR,
    JANUARY,
    MARCH,
    SCHEMA,
    Batch,
    batch,
    commit,
    expected,
    job,
    price_rows,
    publish,
    put,
    rows_of,
    unbroken,
    verified,
    whole,
)


def test_a_published_snapshot_is_current_and_has_its_rows(tmp_path):
    root = tmp_path / "prices"
    rows = {JANUARY: 5.0, JANUARY + HOUR: 7.0, FEBRUARY: 9.0}
    first = publish(root, whole(rows))
    found = snapshots.current(root)
    assert found == first
    assert rows_of(found) == sorted(rows.items())
    assert snapshots.required(root).folder == found.folder
    assert [p.name for p in root.iterdir() if p.is_file()] == ["CURRENT"]
    assert (root / "CURRENT").read_text() == f"{first.id}\n"


def test_its_folder_is_a_whole_data_set_for_other_programs(tmp_path):
    found = publish(tmp_path, whole({JANUARY: 5.0, FEBRUARY: 9.0}))
    listed = pq.read_metadata(found.folder / "_metadata")
    paths = [listed.row_group(n).column(0).file_path for n in range(listed.num_row_groups)]
    assert paths == ["month=2021-01/part-0.parquet", "month=2021-02/part-0.parquet"]
    kept = pq.read_schema(found.folder / "_common_metadata").metadata
    assert pickle.loads(kept[b"dataset-toolkit.unischema.v1"]) == SCHEMA
    assert pq.read_table(found.folder)["price"].to_pylist() == [5.0, 9.0]


def test_untouched_months_keep_the_parents_files_and_records(tmp_path):
    batches = [batch("a", JANUARY, 3), batch("b", FEBRUARY, 3), batch("c", FEBRUARY + 1, 1)]
    job(tmp_path, batches[:2])
    first = snapshots.required(tmp_path)
    job(tmp_path, batches)
    second = verified(tmp_path, batches)
    assert second.files[0].samefile(first.files[0])
    assert second.lineage_files[0].samefile(first.lineage_files[0])
    assert second.manifest.files[0] == first.manifest.files[0]
    assert not second.files[1].samefile(first.files[1])


def test_an_older_snapshot_stays_what_it_was(tmp_path):
    batches = [batch("a", JANUARY, 3), batch("b", JANUARY + 1, 3)]
    job(tmp_path, batches[:1])
    first = snapshots.required(tmp_path)
    before = rows_of(first)
    job(tmp_path, batches)
    again = snapshots.required(tmp_path, snapshot=first.id)
    assert again == first and rows_of(again) == before


def test_without_links_untouched_months_are_copies(tmp_path, monkeypatch):
    def link(source, target, **_):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    batches = [batch("a", JANUARY, 3), batch("b", FEBRUARY, 3)]
    job(tmp_path, batches[:1])
    first = snapshots.required(tmp_path)
    job(tmp_path, batches)
    second = verified(tmp_path, batches)
    assert not second.files[0].samefile(first.files[0])
    assert second.manifest.files[0] == first.manifest.files[0]


def test_an_emptied_month_is_gone_and_all_may_be_emptied(tmp_path):
    first = publish(tmp_path, whole({JANUARY: 1.0, FEBRUARY: 2.0}))
    empty = frozenset({"2021-01"})
    second = publish(tmp_path, lambda _: Change(empty, may_lose_keys=True), first)
    assert rows_of(second) == [(FEBRUARY, 2.0)]
    gone = frozenset({"2021-02"})
    third = publish(tmp_path, lambda _: Change(gone, may_lose_keys=True), second)
    assert (third.manifest.rows, third.manifest.first_ms, third.files) == (0, None, [])
    assert snapshots.current(tmp_path) == third
    assert rows_of(publish(tmp_path, whole({MARCH: 3.0}), third)) == [(MARCH, 3.0)]


def test_a_failed_write_leaves_the_old_snapshot_and_no_litter(tmp_path):
    first = publish(tmp_path, whole({JANUARY: 1.0}))
    before = sorted(tmp_path.rglob("*"))

    def broken(draft):
        whole({JANUARY: 1.0, FEBRUARY: 2.0})(draft)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot be written \(No space.*nothing was published"):
        publish(tmp_path, broken, first)
    assert snapshots.current(tmp_path) == first
    assert sorted(tmp_path.rglob("*")) == before


def test_of_two_commits_on_one_parent_one_has_to_merge_again(tmp_path):
    first = publish(tmp_path, whole({JANUARY: 1.0}))
    second = publish(tmp_path, whole({FEBRUARY: 2.0}), first)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Overtaken, match="another run has published snapshot 2"):
        publish(tmp_path, whole({MARCH: 3.0}), first)
    assert snapshots.current(tmp_path) == second
    assert sorted(tmp_path.rglob("*")) == before


def test_a_writer_is_overtaken_though_gc_has_freed_its_number(tmp_path):
    first = publish(tmp_path, whole({JANUARY: 1.0}))
    second = publish(tmp_path, whole({FEBRUARY: 2.0}), first)

    def slow(draft):
        third = publish(tmp_path, whole({MARCH: 3.0}), second)
        # As `gc` does, after a day.
        manifests.path_of(tmp_path, second.manifest.sequence).unlink()
        assert snapshots.current(tmp_path) == third
        return whole({MARCH + 1: 4.0})(draft)

    with pytest.raises(Overtaken, match="another run has published"):
        publish(tmp_path, slow, first)
    assert {t for t, _ in rows_of(snapshots.required(tmp_path))} == {JANUARY, FEBRUARY, MARCH}


def test_an_overtaken_commit_merges_again_without_loss(tmp_path, monkeypatch):
    batches = [batch("a", JANUARY, 3), batch("b", JANUARY + HOUR, 3), batch("c", FEBRUARY, 1)]
    job(tmp_path, batches[:1])
    publish_now = store_publish.publish

    def slow(*arguments, **options):
        monkeypatch.setattr(store_publish, "publish", publish_now)
        commit(tmp_path, [batches[0], batches[1]])
        return publish_now(*arguments, **options)

    monkeypatch.setattr(store_publish, "publish", slow)
    assert commit(tmp_path, [batches[0], batches[2]])
    assert verified(tmp_path, batches).manifest.sequence == 3


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(errno.EIO, "Input/output error")])
def test_a_commit_that_fails_after_its_manifest_keeps_its_files(tmp_path, monkeypatch, stop):
    """The last sync, or an interrupt right after the link: the snapshot is already visible."""
    sync = durable_io.sync_folder

    def failing(path):
        if path.name == "manifests":
            raise stop
        sync(path)

    monkeypatch.setattr(durable_io, "sync_folder", failing)
    with pytest.raises((KeyboardInterrupt, StoreError), match=r"^$|may be published"):
        job(tmp_path, [batch("a", JANUARY, 3)])
    monkeypatch.undo()
    verified(tmp_path, [batch("a", JANUARY, 3)])
    assert not job(tmp_path, [batch("a", JANUARY, 3)])


def test_everything_is_durable_before_the_manifest_names_it(tmp_path, monkeypatch):
    """A power cut keeps what was synced: each file as it was then, each folder's names then."""
    files: dict[int, tuple[int, int]] = {}
    folders: dict[Path, set[str]] = {}
    checked = []
    fsync, link = os.fsync, os.link

    def synced(descriptor):
        fsync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            folders[path] = {child.name for child in path.iterdir()}
        else:
            status = os.fstat(descriptor)
            files[status.st_ino] = (status.st_size, status.st_mtime_ns)

    def linked(source, target, **options):
        target = Path(target)
        if target.parent.name == "manifests":
            sequence = int(target.stem)
            for parent in (tmp_path / "prices" / "snapshots", tmp_path / "prices" / "lineage"):
                newest = max(parent.glob(f"{sequence:08d}-*"))
                for path in [newest, *newest.rglob("*")]:
                    status = path.stat()
                    if path.is_dir():
                        assert folders.get(path) == {c.name for c in path.iterdir()}, path
                    else:
                        known = files.get(status.st_ino)
                        assert known == (status.st_size, status.st_mtime_ns), path
                assert newest.name in folders[parent]
            assert {"snapshots", "lineage", "manifests"} <= folders[tmp_path / "prices"]
            assert "prices" in folders[tmp_path]
            checked.append(sequence)
        link(source, target, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    batches = [batch("a", JANUARY, 3), batch("b", FEBRUARY, 3), batch("c", FEBRUARY + 1, 1)]
    job(tmp_path / "prices", batches[:2])
    job(tmp_path / "prices", batches)
    assert checked == [1, 2]
    assert {"00000001.json", "00000002.json"} <= folders[tmp_path / "prices" / "manifests"]


@pytest.mark.parametrize("content", [None, b"", b"0000", b"\xff\0", b"../../etc\n"])
def test_current_is_only_a_hint_and_the_next_publish_rebuilds_it(tmp_path, content):
    batches = [batch("a", JANUARY, 3), batch("b", FEBRUARY, 1)]
    job(tmp_path, batches[:1])
    first = snapshots.required(tmp_path)
    (tmp_path / "CURRENT").unlink()
    if content is not None:
        (tmp_path / "CURRENT").write_bytes(content)
    assert snapshots.current(tmp_path) == first
    assert snapshots.required(tmp_path).folder == first.folder
    job(tmp_path, batches)
    assert (tmp_path / "CURRENT").read_text() == f"{verified(tmp_path, batches).id}\n"


def test_a_current_that_cannot_be_written_fails_no_publish(tmp_path):
    (tmp_path / "CURRENT").mkdir()
    job(tmp_path, [batch("a", JANUARY, 3)])
    verified(tmp_path, [batch("a", JANUARY, 3)])


def test_no_data_set_and_no_such_snapshot_are_told_apart(tmp_path):
    assert snapshots.current(tmp_path) is None
    with pytest.raises(SnapshotMissing, match="run ingest"):
        snapshots.required(tmp_path, hint="run ingest")
    first = publish(tmp_path, whole({JANUARY: 1.0}))
    for name in ("00000001-abcdefabcdef", "00000009-abcdefabcdef", "../../etc/passwd", "", "1"):
        with pytest.raises(SnapshotMissing, match=first.id):
            snapshots.current(tmp_path, snapshot=name)


@pytest.mark.parametrize("damage", ["cut", "longer", "gone"])
@pytest.mark.parametrize("kind", ["files", "lineage_files"])
def test_a_damaged_file_is_named(tmp_path, kind, damage):
    job(tmp_path, [batch("a", JANUARY, 1), batch("b", FEBRUARY, 1)])
    path = getattr(snapshots.current(tmp_path), kind)[1]
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "cut" else content + b"\0")
    with pytest.raises(SnapshotDamaged, match=r"month=2021-02.*rollback"):
        snapshots.current(tmp_path)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_flipped_bit_of_any_file_goes_unseen(tmp_path, data):
    root = tmp_path / "prices"
    if not root.exists():
        job(root, [batch("a", JANUARY, 20), batch("b", FEBRUARY, 5)])
    found = snapshots.required(root)
    ledger = found.lineage / "ledger.parquet"
    path = data.draw(st.sampled_from([*found.files, *found.lineage_files, ledger]))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(flipped)
    try:
        name = path.relative_to(root).as_posix()
        assert snapshots.damaged_files(found) == [name]
        with pytest.raises(SnapshotDamaged, match=name):
            snapshots.check_content(found)
        if path == ledger:
            with pytest.raises(SnapshotDamaged, match=r"ledger\.parquet.*rollback"):
                snapshots.read_ledger(found)
    finally:
        path.write_bytes(content)
    snapshots.check_content(found)


def test_stray_files_of_a_published_folder_are_not_read(tmp_path):
    found = publish(tmp_path, whole({JANUARY: 1.0}))
    put(found.folder / "_temporary", "2021-01", price_rows({JANUARY + 5: 9.0}))
    put(found.folder, "2021-01", price_rows({JANUARY + 6: 9.0}), ".part-9.parquet")
    put(found.folder, "2021-01", price_rows({JANUARY + 7: 9.0}), "part-9.parquet")
    assert rows_of(snapshots.required(tmp_path)) == [(JANUARY, 1.0)]


def test_a_rollback_is_a_new_commit_to_build_on(tmp_path):
    batches = [batch("a", JANUARY, 3), batch("b", JANUARY + 1, 3), batch("c", FEBRUARY, 1)]
    job(tmp_path, batches[:1])
    first = snapshots.required(tmp_path)
    job(tmp_path, batches[:2])
    republish(tmp_path, first, reason="b is wrong")
    now = verified(tmp_path, batches[:1])
    assert (now.id, now.manifest.sequence) == (first.id, 3)
    assert (now.manifest.operation, now.manifest.reason) == ("rollback", "b is wrong")
    assert snapshots.required(tmp_path, snapshot=first.id).manifest.digest == first.manifest.digest
    job(tmp_path, [batches[0], batches[2]])
    assert verified(tmp_path, [batches[0], batches[2]]).manifest.sequence == 4


def test_a_rollback_leaves_a_damaged_newest_manifest_behind(tmp_path):
    batches = [batch("a", JANUARY, 3), batch("b", FEBRUARY, 3)]
    job(tmp_path, batches[:1])
    first = snapshots.required(tmp_path)
    job(tmp_path, batches)
    (tmp_path / "manifests" / "00000002.json").write_bytes(b"{")
    republish(tmp_path, snapshots.required(tmp_path, snapshot=first.id), reason="cut")
    assert rows_of(snapshots.required(tmp_path)) == sorted(expected(batches[:1]).items())
    assert job(tmp_path, batches)
    assert rows_of(snapshots.required(tmp_path)) == sorted(expected(batches).items())


def test_a_snapshot_is_found_by_name_through_its_rollback(tmp_path):
    first = publish(tmp_path, whole({JANUARY: 1.0}))
    publish(tmp_path, whole({FEBRUARY: 1.0}), first)
    republish(tmp_path, first, reason="back")
    manifests.path_of(tmp_path, 1).unlink()
    assert snapshots.required(tmp_path, snapshot=first.id).folder == first.folder


BATCHES = st.lists(
    st.lists(
        st.tuples(
            st.integers(0, 40).map(lambda n: JANUARY + n * 36 * HOUR),
            st.floats(min_value=0.5, max_value=1e6, width=32),
        ),
        min_size=1,
        max_size=12,
        unique_by=lambda row: row[0],
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=12)
@given(BATCHES, st.randoms(use_true_random=False))
def test_every_order_of_arrival_ends_in_the_same_digest(tmp_path_factory, contents, random):
    batches = [Batch(f"{n:064d}", tuple(rows)) for n, rows in enumerate(contents)]
    digests = set()
    for _ in range(3):
        root = tmp_path_factory.mktemp("order") / "prices"
        order = list(batches)
        random.shuffle(order)
        seen: list[Batch] = []
        while order:
            seen += [order.pop() for _ in range(random.randint(1, len(order)))]
            job(root, seen)
            verified(root, seen)
        digests.add(snapshots.required(root).manifest.digest)
        assert len(unbroken(root)) <= len(batches)
    assert len(digests) == 1
