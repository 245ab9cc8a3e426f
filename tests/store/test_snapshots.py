"""Readers see the old snapshot or the new one, whole, or a clear sentence."""

from __future__ import annotations

import errno
import os
import pickle
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitstorm.core import durable_io
from bitstorm.core.errors import Overtaken, SnapshotDamaged, SnapshotMissing, StoreError
from bitstorm.core.file_system import files_of
from bitstorm.store import maintenance, snapshots
from bitstorm.store import manifest as manifests
from bitstorm.store import publish as store_publish
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
    elsewhere,
    expected,
    job,
    price_rows,
    publish,
    put,
    rows_of,
    stored_names,
    unbroken,
    verified,
    whole,
)
from objects import Objects

FOLDERS = {"snapshots", "lineage", "manifests"}


def test_a_published_snapshot_is_current_and_has_its_rows(root):
    rows = {JANUARY: 5.0, JANUARY + HOUR: 7.0, FEBRUARY: 9.0}
    first = publish(root, whole(rows))
    found = snapshots.current(root)
    assert found == first
    assert rows_of(found) == sorted(rows.items())
    assert snapshots.required(root).folder == found.folder
    assert {n for n in files_of(root).names("") if n not in FOLDERS} == {"CURRENT"}
    assert files_of(root).read("CURRENT") == f"{first.id}\n".encode()


def test_its_folder_is_a_whole_data_set_for_other_programs(root):
    publish(root, whole({JANUARY: 5.0, FEBRUARY: 9.0}))
    found = snapshots.required(elsewhere(root))
    listed = pq.read_metadata(found.folder / "_metadata")
    paths = [listed.row_group(n).column(0).file_path for n in range(listed.num_row_groups)]
    assert paths == ["month=2021-01/part-0.parquet", "month=2021-02/part-0.parquet"]
    kept = pq.read_schema(found.folder / "_common_metadata").metadata
    assert pickle.loads(kept[b"dataset-toolkit.unischema.v1"]) == SCHEMA
    assert pq.read_table(found.folder)["price"].to_pylist() == [5.0, 9.0]


def test_untouched_months_keep_the_parents_files_and_records(root):
    batches = [batch("a", JANUARY, 3), batch("b", FEBRUARY, 3), batch("c", FEBRUARY + 1, 1)]
    job(root, batches[:2])
    first = snapshots.required(root)
    job(root, batches)
    second = verified(root, batches)
    assert second.files[0].samefile(first.files[0])
    owners = [one.lineage_of_months({"2021-01"})[0] for one in (first, second)]
    assert owners[1].samefile(owners[0])
    assert second.manifest.files[0] == first.manifest.files[0]
    assert not second.files[1].samefile(first.files[1])


def test_an_older_snapshot_stays_what_it_was(root):
    batches = [batch("a", JANUARY, 3), batch("b", JANUARY + 1, 3)]
    job(root, batches[:1])
    first = snapshots.required(root)
    before = rows_of(first)
    job(root, batches)
    again = snapshots.required(root, snapshot=first.id)
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


def test_an_emptied_month_is_gone_and_all_may_be_emptied(root):
    first = publish(root, whole({JANUARY: 1.0, FEBRUARY: 2.0}))
    empty = frozenset({"2021-01"})
    second = publish(root, lambda _: Change(empty, may_lose_keys=True), first)
    assert rows_of(second) == [(FEBRUARY, 2.0)]
    gone = frozenset({"2021-02"})
    third = publish(root, lambda _: Change(gone, may_lose_keys=True), second)
    assert (third.manifest.rows, third.manifest.first_ms, third.files) == (0, None, [])
    assert snapshots.current(root) == third
    assert not list(snapshots.required(elsewhere(root)).folder.rglob("*.parquet"))
    assert rows_of(publish(root, whole({MARCH: 3.0}), third)) == [(MARCH, 3.0)]


def test_a_failed_write_leaves_the_old_snapshot_and_no_litter(root):
    first = publish(root, whole({JANUARY: 1.0}))
    before = stored_names(root)

    def broken(draft):
        whole({JANUARY: 1.0, FEBRUARY: 2.0})(draft)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StoreError, match=r"cannot be written \(No space.*nothing was published"):
        publish(root, broken, first)
    assert snapshots.current(root) == first
    assert stored_names(root) == before


def test_of_two_commits_on_one_parent_one_has_to_merge_again(root):
    first = publish(root, whole({JANUARY: 1.0}))
    second = publish(root, whole({FEBRUARY: 2.0}), first)
    before = stored_names(root)
    with pytest.raises(Overtaken, match="another run has published snapshot 2"):
        publish(root, whole({MARCH: 3.0}), first)
    assert snapshots.current(root) == second
    if isinstance(root, Objects):
        # What it has sent is left to `gc`.
        maintenance.collect_garbage(root, keep=2, younger_than_s=0, now_s=time.time() + 5)
    assert stored_names(root) == before


def test_a_writer_is_overtaken_though_gc_has_freed_its_number(root):
    first = publish(root, whole({JANUARY: 1.0}))
    second = publish(root, whole({FEBRUARY: 2.0}), first)

    def slow(draft):
        third = publish(root, whole({MARCH: 3.0}), second)
        # As `gc` does, after a day.
        files_of(root).delete([manifests.name_of(second.manifest.sequence)])
        assert snapshots.current(root) == third
        return whole({MARCH + 1: 4.0})(draft)

    with pytest.raises(Overtaken, match="another run has published"):
        publish(root, slow, first)
    assert {t for t, _ in rows_of(snapshots.required(root))} == {JANUARY, FEBRUARY, MARCH}


def test_an_overtaken_commit_merges_again_without_loss(root, monkeypatch):
    batches = [batch("a", JANUARY, 3), batch("b", JANUARY + HOUR, 3), batch("c", FEBRUARY, 1)]
    job(root, batches[:1])
    publish_now = store_publish.publish

    def slow(*arguments, **options):
        monkeypatch.setattr(store_publish, "publish", publish_now)
        commit(root, [batches[0], batches[1]])
        return publish_now(*arguments, **options)

    monkeypatch.setattr(store_publish, "publish", slow)
    assert commit(root, [batches[0], batches[2]])
    assert verified(root, batches).manifest.sequence == 3


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
def test_current_is_only_a_hint_and_the_next_publish_rebuilds_it(root, content):
    batches = [batch("a", JANUARY, 3), batch("b", FEBRUARY, 1)]
    job(root, batches[:1])
    first = snapshots.required(root)
    files_of(root).delete(["CURRENT"])
    if content is not None:
        files_of(root).put("CURRENT", content)
    assert snapshots.current(root) == first
    assert snapshots.required(root).folder == first.folder
    job(root, batches)
    assert files_of(root).read("CURRENT") == f"{verified(root, batches).id}\n".encode()


def test_a_current_that_cannot_be_written_fails_no_publish(tmp_path):
    (tmp_path / "CURRENT").mkdir()
    job(tmp_path, [batch("a", JANUARY, 3)])
    verified(tmp_path, [batch("a", JANUARY, 3)])


def test_no_data_set_and_no_such_snapshot_are_told_apart(root):
    assert snapshots.current(root) is None
    with pytest.raises(SnapshotMissing, match="run ingest"):
        snapshots.required(root, hint="run ingest")
    first = publish(root, whole({JANUARY: 1.0}))
    for name in ("00000001-abcdefabcdef", "00000009-abcdefabcdef", "../../etc/passwd", "", "1"):
        with pytest.raises(SnapshotMissing, match=first.id):
            snapshots.current(root, snapshot=name)


@pytest.mark.parametrize("damage", ["cut", "longer", "gone"])
@pytest.mark.parametrize("place", [1, 3], ids=["file", "lineage"])
def test_a_damaged_file_is_named(root, place, damage):
    job(root, [batch("a", JANUARY, 1), batch("b", FEBRUARY, 1)])
    name, *_ = list(snapshots.required(root).hashed_files())[place]
    content = files_of(root).read(name)
    if damage == "gone":
        files_of(root).delete([name])
    else:
        files_of(root).put(name, content[:-1] if damage == "cut" else content + b"\0")
    with pytest.raises(SnapshotDamaged, match=r"month=2021-02.*rollback"):
        snapshots.current(root)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("_metadata", "empty"),
        ("_metadata", "gone"),
        ("_metadata", "of another snapshot"),
        ("_common_metadata", "empty"),
        ("_common_metadata", "gone"),
    ],
)
def test_verify_looks_at_the_summaries_of_petastorm(root, name, damage):
    """petastorm skips files that `_metadata` does not list."""
    first = publish(root, whole({JANUARY: 1.0}))
    second = publish(root, whole({JANUARY: 1.0, FEBRUARY: 2.0}), first)
    place, path = files_of(root), f"snapshots/{second.id}/{name}"
    if damage == "gone":
        place.delete([path])
    else:
        place.put(path, b"" if damage == "empty" else place.read(path.replace(second.id, first.id)))
    (problem,) = maintenance.verify(root).problems
    assert second.id in problem and first.id not in problem


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_no_flipped_bit_of_any_file_goes_unseen(root, data):
    place = files_of(root)
    if snapshots.current(root) is None:
        job(root, [batch("a", JANUARY, 20), batch("b", FEBRUARY, 5)])
    found = snapshots.required(elsewhere(root))
    name, *_ = data.draw(st.sampled_from(list(found.hashed_files())))
    content = place.read(name)
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    place.put(name, bytes(flipped))
    try:
        assert snapshots.damaged_files(found) == [name]
        with pytest.raises(SnapshotDamaged, match=name):
            snapshots.check_content(found)
        if name.endswith("ledger.parquet"):
            with pytest.raises(SnapshotDamaged, match=r"ledger\.parquet.*rollback"):
                snapshots.read_ledger(found)
    finally:
        place.put(name, content)
    snapshots.check_content(found)


def test_stray_files_of_a_published_folder_are_not_read(tmp_path):
    found = publish(tmp_path, whole({JANUARY: 1.0}))
    put(found.folder / "_temporary", "2021-01", price_rows({JANUARY + 5: 9.0}))
    put(found.folder, "2021-01", price_rows({JANUARY + 6: 9.0}), ".part-9.parquet")
    put(found.folder, "2021-01", price_rows({JANUARY + 7: 9.0}), "part-9.parquet")
    assert rows_of(snapshots.required(tmp_path)) == [(JANUARY, 1.0)]


def test_a_rollback_is_a_new_commit_to_build_on(root):
    batches = [batch("a", JANUARY, 3), batch("b", JANUARY + 1, 3), batch("c", FEBRUARY, 1)]
    job(root, batches[:1])
    first = snapshots.required(root)
    job(root, batches[:2])
    republish(root, first, reason="b is wrong")
    now = verified(root, batches[:1])
    assert (now.id, now.manifest.sequence) == (first.id, 3)
    assert (now.manifest.operation, now.manifest.reason) == ("rollback", "b is wrong")
    assert snapshots.required(root, snapshot=first.id).manifest.digest == first.manifest.digest
    job(root, [batches[0], batches[2]])
    assert verified(root, [batches[0], batches[2]]).manifest.sequence == 4


def test_a_rollback_leaves_a_damaged_newest_manifest_behind(root):
    batches = [batch("a", JANUARY, 3), batch("b", FEBRUARY, 3)]
    job(root, batches[:1])
    first = snapshots.required(root)
    job(root, batches)
    files_of(root).put("manifests/00000002.json", b"{")
    republish(root, snapshots.required(root, snapshot=first.id), reason="cut")
    assert rows_of(snapshots.required(root)) == sorted(expected(batches[:1]).items())
    assert job(root, batches)
    assert rows_of(snapshots.required(root)) == sorted(expected(batches).items())


def test_a_snapshot_is_found_by_name_through_its_rollback(root):
    first = publish(root, whole({JANUARY: 1.0}))
    publish(root, whole({FEBRUARY: 1.0}), first)
    republish(root, first, reason="back")
    files_of(root).delete([manifests.name_of(1)])
    assert snapshots.required(root, snapshot=first.id).folder == first.folder


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
