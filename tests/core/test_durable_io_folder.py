"""Private folders: one process each, gone with the block, and those of killed processes swept."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitstorm.core.durable_io import private_folder

DAYS_AGO = time.time() - 2 * 86_400
HOLDER = """
import sys, time
from pathlib import Path
from bitstorm.core.durable_io import private_folder
with private_folder(Path(sys.argv[1])) as folder:
    folder.mkdir()
    print(folder, flush=True)
    time.sleep(600)
"""


def held(root: Path) -> tuple[subprocess.Popen[str], Path]:
    """Another process with a folder of its own, begun days ago."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    folder = Path(process.stdout.readline().strip())
    os.utime(folder.with_suffix(".lock"), (DAYS_AGO, DAYS_AGO))
    return process, folder


def test_the_folder_goes_with_its_block_however_that_ends(tmp_path):
    with private_folder(tmp_path) as folder:
        folder.mkdir()
        (folder / "part-0.parquet").write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), private_folder(tmp_path) as folder:
        folder.mkdir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_have_two_folders(tmp_path):
    with private_folder(tmp_path) as one, private_folder(tmp_path) as other:
        assert one != other


@pytest.mark.slow
def test_a_living_process_keeps_its_folder_a_killed_one_not(tmp_path):
    process, folder = held(tmp_path)
    with process:
        try:
            with private_folder(tmp_path):
                assert folder.is_dir()
        finally:
            process.kill()
    assert folder.is_dir()
    with private_folder(tmp_path):
        assert not folder.exists()
    assert list(tmp_path.iterdir()) == []
