"""What the store needs of a place: the same in a folder and in a store of objects."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from bitstorm.core.durable_io import bytes_hash
from bitstorm.core.errors import SnapshotDamaged
from bitstorm.core.file_system import FileSystem, LocalFiles, files_of
from objects import Objects

CONTENT = b"some content"
RECORD: Any = {"size": len(CONTENT), "sha256": bytes_hash(CONTENT)}
FILE = "snapshots/1/month=2021-01/part-0.parquet"
SAME = "snapshots/2/month=2021-01/part-0.parquet"


@pytest.fixture(params=[LocalFiles, Objects])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> FileSystem:
    for name in (FILE, SAME, "manifests/1"):
        (tmp_path / "prices" / name).parent.mkdir(parents=True, exist_ok=True)
    found: FileSystem = request.param(tmp_path / "prices")
    return found


def names(place: FileSystem, prefix: str = "") -> set[str]:
    return {entry.name for entry in place.list(prefix)}


def test_a_created_file_is_never_overwritten(place: FileSystem) -> None:
    place.create("manifests/1", b"first")
    with pytest.raises(FileExistsError):
        place.create("manifests/1", b"second")
    assert place.read("manifests/1") == b"first"
    place.put("manifests/1", b"third")
    assert place.read("manifests/1") == b"third"
    assert names(place) == {"manifests/1"}


def test_files_are_listed_with_their_sizes_and_times(place: FileSystem) -> None:
    began = time.time()
    place.put(FILE, CONTENT)
    place.copy(FILE, SAME)
    place.put("CURRENT", b"2\n")
    assert names(place) == {FILE, SAME, "CURRENT"}
    assert names(place, "snapshots/2") == {SAME}
    assert names(place, "snapshots/20") == names(place, "nowhere") == set()
    assert {"CURRENT", "snapshots"} <= set(place.names("")) <= {"CURRENT", "snapshots", "manifests"}
    assert set(place.names("snapshots")) == {"1", "2"}
    found = place.find([FILE, f"{FILE}.missing"])
    assert {name: (e.name, e.size) for name, e in found.items()} == {FILE: (FILE, len(CONTENT))}
    for name in ("CURRENT", "snapshots/2"):
        changed_s = place.changed_s(name)
        assert changed_s is not None and began - 1 < changed_s < time.time() + 1
    assert place.changed_s("nowhere") is None
    assert {entry.size for entry in place.list("snapshots")} == {len(CONTENT)}


def test_a_copy_stays_when_the_first_is_deleted(place: FileSystem) -> None:
    place.put(FILE, CONTENT)
    place.copy(FILE, SAME)
    place.delete([FILE])
    assert names(place) == {SAME}
    assert place.hash(SAME) == RECORD["sha256"]
    with pytest.raises(FileNotFoundError):
        place.read(FILE)
    place.clear("snapshots/2")
    assert names(place) == set() == set(place.names("snapshots")) - {"1"}


def test_a_path_is_a_local_place(tmp_path: Path) -> None:
    assert files_of(tmp_path) == LocalFiles(tmp_path)
    assert str(files_of(tmp_path)) == str(tmp_path)
    place = Objects(tmp_path)
    assert files_of(place) is place


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    found = Objects(tmp_path / "prices")
    found.put(FILE, CONTENT)
    return found


def test_a_file_is_fetched_once(objects: Objects) -> None:
    for _ in range(2):
        assert objects.local(FILE, **RECORD) == objects.folder / FILE
    assert (objects.folder / FILE).read_bytes() == CONTENT
    assert objects.bucket.operations.count(f"read {FILE}") == 1


def test_the_same_file_of_another_snapshot_is_not_fetched(objects: Objects) -> None:
    objects.local(FILE, **RECORD)
    objects.copy(FILE, SAME)
    assert objects.local(SAME, **RECORD).samefile(objects.folder / FILE)
    assert f"read {SAME}" not in objects.bucket.operations


def test_a_same_name_with_other_content_is_fetched(objects: Objects) -> None:
    objects.local(FILE, **RECORD)
    other = CONTENT[::-1]
    objects.put(SAME, other)
    assert objects.local(SAME, size=len(other), sha256=bytes_hash(other)).read_bytes() == other


def test_the_mirror_can_be_deleted_and_its_damage_is_mended(objects: Objects) -> None:
    path = objects.local(FILE, **RECORD)
    path.write_bytes(CONTENT[::-1])
    assert objects.is_intact(FILE, **RECORD)
    assert path.read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1])
    assert objects.local(FILE, **RECORD).read_bytes() == CONTENT
    shutil.rmtree(objects.folder)
    assert objects.local(FILE, **RECORD).read_bytes() == CONTENT


@pytest.mark.parametrize(("content", "said"), [(None, "is gone"), (b"other", "has changed")])
def test_what_is_missing_or_changed_is_not_served(
    objects: Objects, content: bytes | None, said: str
) -> None:
    objects.delete([FILE])
    if content is not None:
        objects.put(FILE, content)
    with pytest.raises(SnapshotDamaged, match=f"{FILE} of objects://bucket/prices {said}.*rollb"):
        objects.local(FILE, **RECORD)
    assert not objects.is_intact(FILE, **RECORD)
    assert not (objects.folder / FILE).exists()


def test_a_draft_is_sent_with_copies_for_old_files(objects: Objects) -> None:
    draft = objects.folder / "snapshots" / "2"
    for name in ("month=2021-01/part-0.parquet", "month=2021-02/part-0.parquet", "_metadata"):
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        (draft / name).write_bytes(name.encode())
    old = "month=2021-01/part-0.parquet"
    objects.keep("snapshots/2", ["month=2021-02/part-0.parquet"], {old: FILE})
    assert objects.read(f"snapshots/2/{old}") == CONTENT
    assert names(objects, "snapshots/2") == {
        f"snapshots/2/{old}",
        "snapshots/2/month=2021-02/part-0.parquet",
        "snapshots/2/_metadata",
    }
