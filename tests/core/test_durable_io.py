"""A name appears whole or not at all, and durably; where that can't be had, it is refused."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import pytest

from bitstorm.core import durable_io
from bitstorm.core.errors import StoreError


@pytest.fixture
def events(monkeypatch):
    """What is synced and linked, in order: ("sync", path) and ("link", path)."""
    seen: list[tuple[str, str]] = []
    fsync, link, rename = os.fsync, os.link, os.replace

    def synced(descriptor):
        seen.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def linked(source, target, **options):
        seen.append(("link", str(target)))
        link(source, target, **options)

    def replaced(source, target, **options):
        seen.append(("replace", str(target)))
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "link", linked)
    monkeypatch.setattr(os, "replace", replaced)
    return seen


def failing_link(code):
    def link(source, target, **options):
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    return link


def test_a_created_file_leaves_nothing_beside_it(tmp_path):
    durable_io.create(tmp_path / "a", b"content")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"content"


def test_a_name_that_is_there_is_never_overwritten(tmp_path):
    durable_io.create(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        durable_io.create(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_content_is_synced_before_its_name_the_folder_after(tmp_path, events):
    durable_io.create(tmp_path / "a", b"content")
    (kind, temporary), link, folder = events
    assert kind == "sync" and Path(temporary).name.startswith(".tmp-a-")
    assert link == ("link", str(tmp_path / "a"))
    assert folder == ("sync", str(tmp_path))


@pytest.mark.parametrize("code", [errno.EPERM, errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP])
def test_without_hard_links_an_exclusive_rename_commits(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "link", failing_link(code))
    durable_io.create(tmp_path / "a", b"first")
    with pytest.raises(FileExistsError):
        durable_io.create(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


class _NoRename:
    """A libc whose renameat2 fails as on a kernel or a mount that has none."""

    def __init__(self, code):
        self._code = code

    def renameat2(self, *_):
        ctypes.set_errno(self._code)
        return -1


@pytest.mark.parametrize("library", [_NoRename(errno.EINVAL), _NoRename(errno.ENOSYS), object()])
def test_a_file_system_with_neither_is_refused(tmp_path, monkeypatch, library):
    monkeypatch.setattr(os, "link", failing_link(errno.EPERM))
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    with pytest.raises(StoreError, match=r"neither hard links nor a rename.*choose a workspace"):
        durable_io.create(tmp_path / "a", b"content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_another_failure_of_a_link_is_no_missing_feature(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "link", failing_link(code))
    with pytest.raises(OSError) as caught:
        durable_io.create(tmp_path / "a", b"content")
    assert caught.value.errno == code
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_no_temporary_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for act in (durable_io.create, durable_io.replace):
        with pytest.raises(OSError, match="No space"):
            act(tmp_path / "a", b"content")
        assert list(tmp_path.iterdir()) == []


def test_replacing_shows_the_old_content_or_the_new_one(tmp_path, events):
    path = tmp_path / "a"
    durable_io.replace(path, b"first")
    durable_io.replace(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert [kind for kind, _ in events] == ["sync", "replace", "sync"] * 2


def test_a_shared_file_is_the_same_file_where_links_are_possible(tmp_path):
    (tmp_path / "a").write_bytes(b"content")
    durable_io.share(tmp_path / "a", tmp_path / "deep" / "b")
    assert (tmp_path / "deep" / "b").samefile(tmp_path / "a")


def test_content_in_pieces_replaces_a_file_at_one_moment(tmp_path, events):
    (tmp_path / "a").write_bytes(b"old")
    with durable_io.replacing(tmp_path / "a") as stream:
        stream.write(b"new, ")
        stream.flush()
        assert (tmp_path / "a").read_bytes() == b"old"
        stream.write(b"in two pieces")
    assert (tmp_path / "a").read_bytes() == b"new, in two pieces"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert [kind for kind, _ in events] == ["sync", "replace", "sync"]
    assert events[-1] == ("sync", str(tmp_path))


def test_pieces_that_end_in_a_failure_leave_what_was_there(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(RuntimeError), durable_io.replacing(tmp_path / "a") as stream:
        stream.write(b"half")
        raise RuntimeError
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EMLINK, errno.EPERM])
def test_a_shared_file_is_a_durable_copy_where_they_are_not(tmp_path, monkeypatch, events, code):
    (tmp_path / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", failing_link(code))
    durable_io.share(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"content"
    assert not (tmp_path / "b").samefile(tmp_path / "a")
    assert ("sync", str(tmp_path / "b")) in events


def test_a_full_disk_does_not_turn_a_link_into_a_copy(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"content")
    monkeypatch.setattr(os, "link", failing_link(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        durable_io.share(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_tree_is_synced_with_every_folder_above_its_files(tmp_path, events):
    folder = tmp_path / "id"
    file = folder / "month=2021-01" / "part-0.parquet"
    file.parent.mkdir(parents=True)
    file.touch()
    durable_io.sync_tree(folder, [file])
    assert {path for _, path in events} == {
        str(path) for path in (file, file.parent, folder, tmp_path)
    }


def test_a_mount_that_cannot_sync_folders_is_used_all_the_same(tmp_path, monkeypatch):
    def refused(_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refused)
    durable_io.sync_folder(tmp_path)


def test_a_folder_that_fails_to_sync_is_a_failure(tmp_path, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        durable_io.sync_folder(tmp_path)


def test_a_lock_is_held_by_one_where_there_are_locks(tmp_path, monkeypatch):
    with (tmp_path / "lock").open("a") as one, (tmp_path / "lock").open("a") as other:
        assert durable_io.lock(one.fileno())
        assert not durable_io.lock(other.fileno(), wait_seconds=0)

        def refused(descriptor, how):
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.flock", refused)
        assert durable_io.lock(other.fileno(), wait_seconds=0)
