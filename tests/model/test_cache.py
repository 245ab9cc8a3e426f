"""What is kept between runs: whole folders only, the newest ones, and none away from its reader."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bitstorm.model import dataset

MB = 2**20


def writer(content: str, written: list | None = None):
    def write(folder: Path):
        folder.mkdir()
        (folder / "part-0.parquet").write_text(content)
        if written is not None:
            written.append(content)
        return {"said": content}

    return write


def keep(root: Path, name: str, *, content: str | None = None, limit: int = MB, written=None):
    """One use of the folder of that name; what it held then."""
    write = writer(name if content is None else content, written)
    with dataset.held(root, {"name": name}, write, limit_bytes=limit) as held:
        return (held.folder / "part-0.parquet").read_text(), held.index["said"], held.reused


def folders(root: Path) -> set[str]:
    found = {path.name for path in root.iterdir() if path.is_dir()}
    return {n for n in ("a", "b", "c") if dataset.key_of({"name": n}) in found}


def test_a_folder_is_written_once_and_each_recipe_has_its_own(tmp_path):
    written: list[str] = []
    assert keep(tmp_path, "a", written=written) == ("a", "a", False)
    assert keep(tmp_path, "a", written=written) == ("a", "a", True)
    assert keep(tmp_path, "b", written=written) == ("b", "b", False)
    assert written == ["a", "b"]


def test_the_folders_name_is_of_all_that_the_content_depends_on():
    one = {"snapshot": "1", "look_back": 60}
    assert dataset.key_of(one) == dataset.key_of(dict(reversed(one.items())))
    assert (
        len({dataset.key_of(r) for r in (one, {**one, "snapshot": "2"}, {**one, "size": 1})}) == 3
    )


@pytest.mark.parametrize("damage", ["edited", "cut", "gone", "index"])
def test_a_damaged_folder_is_made_anew(tmp_path, damage):
    keep(tmp_path, "a")
    folder = tmp_path / dataset.key_of({"name": "a"})
    part, index = folder / "part-0.parquet", folder / dataset.INDEX
    if damage == "edited":
        part.write_text("b")
    elif damage == "cut":
        part.write_text("")
    elif damage == "gone":
        part.unlink()
    else:
        index.write_text(index.read_text()[:20])
    assert keep(tmp_path, "a") == ("a", "a", False)


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    def write(folder: Path):
        folder.mkdir()
        (folder / "part-0.parquet").write_text("half")
        raise OSError("disk full")

    with (
        pytest.raises(OSError, match="disk full"),
        dataset.held(tmp_path, {"name": "a"}, write, limit_bytes=MB),
    ):
        raise AssertionError("there is nothing to hold")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert keep(tmp_path, "a") == ("a", "a", False)


def test_beyond_the_limit_the_least_recently_used_go_but_not_what_is_asked_for(tmp_path):
    for second, name in enumerate(("a", "b", "c")):
        keep(tmp_path, name, content=name * 1_000)
        # Used in this order, long ago.
        os.utime(tmp_path / dataset.key_of({"name": name}) / dataset.INDEX, (second, second))
    keep(tmp_path, "a")
    assert folders(tmp_path) == {"a", "b", "c"}
    # Room for two: b was used longest ago.
    keep(tmp_path, "a", limit=5_000)
    assert folders(tmp_path) == {"a", "c"}
    assert keep(tmp_path, "a", limit=0)[2]
    assert folders(tmp_path) == {"a"}
    assert len(list(tmp_path.iterdir())) == 2  # with its lock


HOLDER = """
import sys, time
from pathlib import Path
from bitstorm.model import dataset
def write(folder):
    folder.mkdir()
    (folder / "part-0.parquet").write_text("theirs")
    if sys.argv[2] == "write":
        print("ready", flush=True); time.sleep(60)
    return {"said": "theirs"}
with dataset.held(Path(sys.argv[1]), {"name": "b"}, write, limit_bytes=2**20):
    print("ready", flush=True); time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Starts another process that writes or holds folder b until it is killed."""
    started = []

    def start(doing: str) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLDER, str(tmp_path), doing]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_another_process_holds_stays_until_it_is_killed(tmp_path, holder):
    process = holder("hold")
    keep(tmp_path, "a", limit=0)
    assert folders(tmp_path) == {"a", "b"}
    # Two at once on the same folder are fine.
    assert keep(tmp_path, "b", content="ours") == ("theirs", "theirs", True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    keep(tmp_path, "a", limit=0)
    assert folders(tmp_path) == {"a"}


def test_the_leftovers_of_a_killed_writer_go_and_those_of_a_living_one_stay(tmp_path, holder):
    process = holder("write")
    keep(tmp_path, "a")
    assert len(list(tmp_path.glob(".tmp-*"))) == 1
    process.send_signal(signal.SIGKILL)
    process.wait()
    keep(tmp_path, "a")
    assert list(tmp_path.glob(".tmp-*")) == []
    assert keep(tmp_path, "b", content="ours") == ("ours", "ours", False)


def test_of_several_that_write_the_same_folder_at_once_one_wins(tmp_path):
    program = """
import sys, time
from pathlib import Path
from bitstorm.model import dataset
def write(folder):
    folder.mkdir()
    time.sleep(0.3)
    (folder / "part-0.parquet").write_text(sys.argv[2])
    return {"said": sys.argv[2]}
with dataset.held(Path(sys.argv[1]), {"name": "a"}, write, limit_bytes=2**20) as held:
    print(held.reused, (held.folder / "part-0.parquet").read_text())
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path), name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "xyz"
    ]
    said = [process.communicate(timeout=60)[0].split() for process in running]
    assert len({content for _, content in said}) == 1
    assert said[0][1] in "xyz"
    assert keep(tmp_path, "a") == (said[0][1], said[0][1], True)
    assert not list(tmp_path.glob(".tmp-*"))


def test_the_locks_of_an_older_version_are_removed(tmp_path):
    (tmp_path / f"{dataset.key_of({'name': 'a'})}.lock").touch()
    keep(tmp_path, "a")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".lock",
        dataset.key_of({"name": "a"}),
    ]


def test_the_index_names_what_the_folder_was_made_from(tmp_path):
    keep(tmp_path, "a")
    record = json.loads((tmp_path / dataset.key_of({"name": "a"}) / dataset.INDEX).read_text())
    assert record["recipe"] == {"name": "a"}
    assert list(record["files"]) == ["part-0.parquet"]
