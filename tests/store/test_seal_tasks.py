"""A seal's months checked in threads and as Spark tasks: the same records, digests and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bitstorm.core.errors import SealBroken
from bitstorm.core.schema import PRICES
from bitstorm.store import seal
from bitstorm.store.seal import Sealed, in_threads, seal_folder
from bitstorm.store.seal_tasks import in_tasks, on_cluster
from faults.publishing import FEBRUARY, HOUR, JANUARY, MARCH, SCHEMA, lineage_rows, price_rows, put

pytestmark = pytest.mark.slow

MONTHS = {"2021-01": JANUARY, "2021-02": FEBRUARY, "2021-03": MARCH}


@pytest.fixture
def parent(tmp_path: Path) -> dict[str, list[Path]]:
    """The parent's files: the first hour of each month."""
    folder = tmp_path / "parent"
    return {m: [put(folder, m, price_rows({start: 1.0}))] for m, start in MONTHS.items()}


@pytest.fixture
def draft(tmp_path: Path) -> Path:
    """Three months in `data` and `lineage`, February in two files."""
    paths = []
    for month, start in MONTHS.items():
        for place in range(2 if month == "2021-02" else 1):
            times = [start + n * HOUR for n in range(place * 30, 30 + place * 30)]
            rows = price_rows({time: 1.0 + time % 7 for time in times})
            paths.append(put(tmp_path / "data", month, rows, f"part-{place}.parquet"))
            owners = lineage_rows(dict.fromkeys(times, "b"))
            put(tmp_path / "lineage", month, owners, f"part-{place}.parquet")
    listed = [path.relative_to(tmp_path / "data").as_posix() for path in paths]
    seal.write_metadata(tmp_path / "data", listed, PRICES, SCHEMA)
    return tmp_path


def sealed(draft: Path, parent: dict[str, list[Path]], each_month: seal.EachMonth) -> Sealed:
    return seal_folder(
        draft / "data",
        PRICES,
        inherited={},
        lineage=(draft / "lineage", {}),
        before=parent,
        where="test 1",
        each_month=each_month,
    )


def test_tasks_give_the_records_and_digests_of_threads(spark_session, draft, parent):
    def in_spark(table: Any, months: Sequence[seal.Month]) -> Any:
        return in_tasks(spark_session, table, months)

    found = sealed(draft, parent, in_spark)
    assert found == sealed(draft, parent, in_threads)
    assert [file.rows for file in found.files] == [30, 30, 30, 30]
    assert sorted(found.digests) == list(MONTHS)
    # Where no cluster is, threads of the driver check.
    assert found == sealed(draft, parent, on_cluster(spark_session))
    assert found == sealed(draft, parent, on_cluster(None))


def lost_row(draft: Path, parent: dict[str, list[Path]]) -> None:
    put(draft, "2021-02", price_rows({FEBRUARY + 1: 1.0}), "part-9.parquet")
    parent["2021-02"].append(draft / "month=2021-02" / "part-9.parquet")


def unlike_lineage(draft: Path, parent: dict[str, list[Path]]) -> None:
    put(draft / "lineage", "2021-03", lineage_rows({MARCH: "b"}))


def cut_lineage(draft: Path, parent: dict[str, list[Path]]) -> None:
    path = draft / "lineage" / "month=2021-01" / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:-5])


def wrong_price(draft: Path, parent: dict[str, list[Path]]) -> None:
    put(draft / "data", "2021-03", price_rows({MARCH: -1.0}))
    put(draft / "lineage", "2021-01", lineage_rows({JANUARY: "b"}))


@pytest.mark.parametrize("harm", [lost_row, unlike_lineage, cut_lineage, wrong_price])
def test_tasks_refuse_in_the_words_of_threads(spark_session, draft, parent, harm):
    harm(draft, parent)
    said = []
    for way in (in_threads, lambda *work: in_tasks(spark_session, *work)):
        with pytest.raises(SealBroken) as raised:
            sealed(draft, parent, way)
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert "\n" not in said[0] and "2021-0" in said[0]
