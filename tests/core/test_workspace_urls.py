"""Every place where a path or a URL enters: a part that no file has is refused, never dropped."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from bitstorm.core.errors import BitstormError, WorkspaceError
from bitstorm.core.workspace import local_path
from bitstorm.interface import open_workspace
from bitstorm.store.files import save_to_csv
from bitstorm.utils import (
    BitcoinSchema,
    get_parquet_columns,
    load_all_csvs_from_folder,
    load_from_parquet,
    load_petastorm_batches_to_df,
    make_batch_writer,
    save_to_parquet_arrow,
)
from command import command

FRAME = pd.DataFrame({"timestamp": [1_704_067_200_000], "price": [42_000.0]})
ENTRIES: dict[str, Callable[[str], object]] = {
    "workspace": open_workspace,
    "batch writer": lambda url: make_batch_writer(url, BitcoinSchema),
    "parquet": lambda url: save_to_parquet_arrow(FRAME, url),
    "csv": lambda url: save_to_csv(FRAME, url),
    "load csvs": load_all_csvs_from_folder,
    "load": load_petastorm_batches_to_df,
    "stream": load_from_parquet,
    "columns": get_parquet_columns,
}
# What stands behind `file:`, with BASE for an existing folder, and a word of the sentence.
REFUSED = (
    ("//BASE/x#1/y", "after #"),
    ("//BASE/x?1", "after ?"),
    ("//BASE/x?", "after ?"),
    ("//BASE/x#", "after #"),
    ("//BASE/x;v=1", "after ;"),
    ("//BASE/x;v=1/y", "after ;"),
    ("//BASE/x?a=b#c", "after ?"),
    ("BASE/x#1", "after #"),
    ("//localhostBASE/x?1", "after ?"),
    ("//otherBASE/x", "the host other"),
    ("//127.0.0.2BASE/x", "the host 127.0.0.2"),
    ("//localhost:80BASE/x", "the host localhost:80"),
    ("//me:secret@otherBASE/x", "the host other"),
    ("//data/x", "the host data"),
    ("//~/x", "the host ~"),
    ("//[::1BASE/x", "is not a URL"),
    ("//BASE/x%FF", "is not a URL"),
    ("//BASE/%C3", "is not a URL"),
    ("//BASE/x%00y", "encoded character"),
    ("//BASE/x%0Ay", "encoded character"),
    ("//BASE/x%2Fy", "encoded character"),
    ("//BASE/x%2fy", "encoded character"),
    ("//BASE/x\ny", "control character"),
    ("//BASE/x\ty", "control character"),
    ("//BASE/x\0", "control character"),
    ("", "has no path"),
    ("//", "has no path"),
    ("//localhost", "has no path"),
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with two that a shortened path would name."""
    (tmp_path / "x").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("rest", "said"), REFUSED)
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_part_that_a_file_lacks_is_refused(entry: str, rest: str, said: str, base: Path) -> None:
    with pytest.raises(BitstormError) as raised:
        ENTRIES[entry](f"file:{rest.replace('BASE', str(base))}")
    sentence = str(raised.value)
    assert said in sentence and "expected a local path" in sentence
    assert "secret" not in sentence and "\n" not in sentence and "\0" not in sentence
    assert [path.name for path in base.rglob("*")] == ["x"]


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("url", ["s3://b/x", "hdfs://n/x", "http://h/x", " file:///x", "ab:x"])
def test_another_kind_of_url_is_refused(entry: str, url: str, base: Path) -> None:
    with pytest.raises(BitstormError, match="expected a local path"):
        ENTRIES[entry](url)
    assert [path.name for path in base.rglob("*")] == ["x"]


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///a/b", "/a/b"),
        ("file:/a/b", "/a/b"),
        ("FILE:///a/b", "/a/b"),
        ("file://localhost/a/b", "/a/b"),
        ("file://LocalHost/a/b", "/a/b"),
        ("file:///a%20b", "/a b"),
        ("file:///a%23%3F%3Bb", "/a#?;b"),
        ("file:///%C3%A9", "/é"),
        ("file:///é", "/é"),
        ("file:///100%", "/100%"),
        ("/a;b#c?d", "/a;b#c?d"),
        ("/a:b", "/a:b"),
        (Path("file:///a/b"), "/a/b"),
    ],
)
def test_the_path_of_a_good_location(url: str | Path, path: str) -> None:
    assert local_path(url, error=WorkspaceError) == Path(path)


@pytest.mark.parametrize("name", ["x#1", "x?1", "x#1/y", "file:///BASE/x%231"])
@pytest.mark.parametrize("entry", ["batch writer", "parquet", "load", "stream"])
def test_what_petastorm_misreads_is_refused(entry: str, name: str, base: Path) -> None:
    (base / "x#1").mkdir()
    FRAME.to_parquet(base / "x#1" / "data.parquet")
    (base / "x?1").symlink_to("x#1")
    (base / "x#1" / "y").symlink_to(".")
    with pytest.raises(BitstormError, match=r"petastorm cannot read .*# or \?"):
        ENTRIES[entry](name.replace("/BASE", str(base)))
    assert get_parquet_columns(name.replace("/BASE", str(base))) == ["timestamp", "price"]


@pytest.mark.parametrize("name", ["x;1", "100%", "x%20y", "a b", "é", "a*b", "a[1]", "{x}"])
def test_what_is_written_comes_back_by_any_name(name: str, base: Path) -> None:
    save_to_parquet_arrow(FRAME, name)
    assert load_petastorm_batches_to_df(name).equals(FRAME)


@pytest.mark.parametrize("name", ["file:///BASE/x?1", "file:///BASE/x#1/log", "s3://b/log"])
def test_a_log_file_is_no_other_url(name: str, base: Path) -> None:
    done = command("status", "--log-file", name.replace("/BASE", str(base)))
    assert done.code == 2 and "--log-file" in done.stderr
    assert [path.name for path in base.rglob("*")] == ["x"]
    assert command("backfill", "--days", "2", "--log-file", f"file://{base}/log").code == 0
    assert (base / "log").is_file()


def test_the_home_of_an_unknown_user_is_refused(base: Path) -> None:
    with pytest.raises(WorkspaceError, match="user without a home"):
        open_workspace("~nobody-at-all/x")


@pytest.mark.parametrize(
    ("name", "environ", "said"),
    [
        (b"w\xff", {}, "bytes that are not UTF-8"),
        ("wé".encode(), {"LC_ALL": "C", "PYTHONUTF8": "0"}, "LC_ALL=C.UTF-8"),
    ],
)
def test_a_name_that_java_reads_otherwise_is_refused(
    name: bytes, environ: dict[str, str], said: str, base: Path
) -> None:
    program = "import sys; from bitstorm.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "status", "--workspace", name],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr and len(done.stderr.splitlines()) == 1
