"""What the filters leave out, and what they let through."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from bitstorm.core.third_party_noise import without_third_party_warnings

LIB = str(Path(__file__).parents[2] / "lib")


@pytest.mark.parametrize(
    ("module", "category", "text"),
    [
        ("petastorm.reader", FutureWarning, "old"),
        ("petastorm.workers_pool.dummy_pool", ResourceWarning, "unclosed file <x.parquet>"),
        ("socket", ResourceWarning, "unclosed <socket.socket fd=5, laddr=('127.0.0.1', 1)>"),
        ("tqdm.auto", Warning, "IProgress not found"),
    ],
)
def test_what_a_user_cannot_change_is_left_out(
    module: str, category: type[Warning], text: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with without_third_party_warnings():
            warnings.warn_explicit(text, category, f"{module}.py", 1, module)


@pytest.mark.parametrize(
    ("module", "category", "text"),
    [
        ("bitstorm.store.files", UserWarning, "a.csv is skipped"),
        ("bitstorm.store.files", ResourceWarning, "unclosed file <a.csv>"),
        ("socket", ResourceWarning, "unclosed <socket.socket fd=5, raddr=('203.0.113.5', 443)>"),
        ("notebook", FutureWarning, "old"),
    ],
)
def test_warnings_of_ours_and_of_the_user_are_shown(
    module: str, category: type[Warning], text: str
) -> None:
    with pytest.warns(category), without_third_party_warnings():
        warnings.warn_explicit(text, category, f"{module}.py", 1, module)


@pytest.mark.slow
def test_commands_show_no_third_partys_warning(tmp_path: Path) -> None:
    workspace = ("--workspace", str(tmp_path / "workspace"))
    for command in (["backfill", "--days", "5"], ["ingest"], ["indicators"]):
        done = subprocess.run(
            [sys.executable, "-W", "default", "-m", "bitstorm.cli", *command, *workspace],
            capture_output=True,
            text=True,
            cwd=LIB,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr
