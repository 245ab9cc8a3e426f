"""A DataFrame as one CSV file: its text, its order, and what stays when it fails."""

from __future__ import annotations

import errno
import os

import pytest
from py4j.protocol import Py4JJavaError

from bitstorm.core.errors import StoreError, UsageError
from bitstorm.store.files import check_target, write_csv

pytestmark = pytest.mark.slow


def test_rows_keep_their_order_types_and_last_digits(spark_session, tmp_path):
    rows = [(n, n / 3, None if n % 2 else n * 0.1, n > 2) for n in range(5)]
    frame = spark_session.createDataFrame(rows, "t bigint, third double, tenth double, big boolean")
    path = tmp_path / "rows.csv"
    assert write_csv(frame.repartition(3).orderBy("t"), path) == 5
    assert path.read_bytes().decode() == (
        "t,third,tenth,big\n"
        "0,0.0,0.0,False\n"
        "1,0.3333333333333333,,False\n"
        "2,0.6666666666666666,0.2,False\n"
        "3,1.0,,True\n"
        "4,1.3333333333333333,0.4,True\n"
    )


def test_no_rows_are_a_header(spark_session, tmp_path):
    assert (
        write_csv(spark_session.createDataFrame([], "a bigint, b double"), tmp_path / "a.csv") == 0
    )
    assert (tmp_path / "a.csv").read_text() == "a,b\n"


def test_a_failure_half_way_leaves_only_the_older_file(spark_session, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("older")
    rows = spark_session.range(0, 100, 1, 2).selectExpr(
        "if(id = 99, raise_error('half way'), id) AS id"
    )
    with pytest.raises(Py4JJavaError, match="half way"):
        write_csv(rows, path)
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


def test_a_full_disk_is_told_in_a_sentence(spark_session, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write_csv(spark_session.range(3), tmp_path / "rows.csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["bars", "bars.csv.gz", "none/bars.csv", "folder.csv"])
def test_a_place_where_no_csv_can_be_is_refused(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError):
        check_target(tmp_path / name)
    check_target(tmp_path / "new.csv")
