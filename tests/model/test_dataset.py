"""Blocks as a data set, without Spark."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitstorm.model import dataset
from model import blocked


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "with a space"])
def test_the_converter_names_the_files_themselves(spark_session, tmp_path, name):
    """Executors on other hosts read them; a link in the driver's temporary folder is not there."""
    spec = blocked.frame_of(look_back=3, features=("price",), size=8)
    rows = spark_session.range(0, 5, 1, 2).toDF("block")
    with dataset.write_blocks(spark_session, spec, rows, root=tmp_path / name) as stored:
        assert len(stored.converter) == 5
        places = [Path(url.removeprefix("file://")) for url in stored.converter.file_urls]
        assert places == sorted(stored.folder.glob("*.parquet"))
    assert not any(path.exists() for path in places)
