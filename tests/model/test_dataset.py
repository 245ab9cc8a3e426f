"""The private folder of a training's blocks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bitstorm.model import dataset
from model import blocked

DAYS_AGO = time.time() - 2 * 86_400
HOLDER = """
import sys, time
from pathlib import Path
from bitstorm.model import dataset
with dataset._private_folder(Path(sys.argv[1])) as folder:
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
    with dataset._private_folder(tmp_path) as folder:
        folder.mkdir()
        (folder / "part-0.parquet").write_bytes(b"1")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), dataset._private_folder(tmp_path) as folder:
        folder.mkdir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_have_two_folders(tmp_path):
    with dataset._private_folder(tmp_path) as one, dataset._private_folder(tmp_path) as other:
        assert one != other


@pytest.mark.slow
def test_a_living_process_keeps_its_folder_a_killed_one_not(tmp_path):
    process, folder = held(tmp_path)
    with process:
        try:
            with dataset._private_folder(tmp_path):
                assert folder.is_dir()
        finally:
            process.kill()
    assert folder.is_dir()
    with dataset._private_folder(tmp_path):
        assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


def test_local_blocks_are_read_as_they_were_given():
    spec = blocked.frame_of(look_back=3, features=("price", "rsi"), size=8)
    chance = np.random.default_rng(1)
    given = [
        {
            "block": np.array([block]),
            "price": chance.random((1, spec.length)).astype(np.float32),
            "rsi": np.where(chance.random((1, spec.length)) < 0.3, np.nan, 1.5),
        }
        for block in (7, 8, 12)
    ]
    with dataset.local_blocks(spec, given) as stored:
        read = list(stored.columns())
        assert len(stored.converter) == 3
    assert not stored.folder.exists()
    for columns, expected in zip(read, given, strict=True):
        for name, values in expected.items():
            assert columns[name].dtype == values.dtype
            np.testing.assert_array_equal(columns[name], values)
