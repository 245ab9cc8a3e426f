"""The same data on local Sparks and on a standalone cluster of two workers on loopback; and what
the executors need for it. Bitstorm is only in the zip there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.cluster import Cluster, standalone

from bitstorm import open_workspace
from bitstorm.testing import shared_session
from cluster_session import MINUTES as MINUTES_GRID
from cluster_session import counts, digest
from landed import collected, drop
from packaged import Checkout, make_python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

SESSION = Path(__file__).with_name("cluster_session.py")
FIRST_MS, MINUTE = 1_704_067_200_000, 60_000
# More than a block of the indicators, in two months.
MINUTES = 70_000
# More sources than are searched in an array.
TINY = 70
ARROW = ("numpy*", "pandas*", "pyarrow*", "dateutil", "pytz*", "tzdata*", "six*")
NO_PYTHON = """#!/bin/sh
if [ -e '{forbidden}' ]; then
    echo "$*" >>'{calls}'
    exit 9
fi
exec '{python}' "$@"
"""


def lines(first: int, prices: np.ndarray) -> str:
    rows = (f"{FIRST_MS + (first + n) * MINUTE},{price}" for n, price in enumerate(prices))
    return "\n".join(["timestamp,price", *rows])


def drop_minutes(landing: Path) -> None:
    """Three batches that overlap, with a hole and two refused rows."""
    returns = np.random.default_rng(20).normal(0, 1e-4, MINUTES)
    prices = np.round(42_000 * np.exp(np.cumsum(returns)), 2)
    drop(landing, "a.csv", lines(0, prices[:30_000]))
    drop(landing, "b.csv", lines(29_990, prices[29_990:50_000] + 1) + "\n,5\n1,0")
    drop(landing, "c.csv.gz", lines(50_060, prices[50_060:]))


def drop_small(base: Path) -> None:
    """Batches of one good row and one whose volume is no number; and, to be ingested later, one
    that beats three of their prices."""
    landing = base / "small" / "landing"
    hours = FIRST_MS + 60 * MINUTE * np.arange(TINY)
    for number, hour in enumerate(hours):
        rows = f"{hour},{100 + number},1\n{hour + MINUTE},5,x"
        drop(landing, f"{number}.csv", f"timestamp,price,volume_24h\n{rows}")
    better = "\n".join(f"{hours[number]},{200 + number}" for number in (3, 4, 69))
    stated = {"source": "csv", "fetched_at": int(hours[-1])}
    collected(base, "later.csv", f"timestamp,price\n{better}", **stated)


@dataclass(frozen=True)
class Place:
    """The data, and a Python for the executors that fails while the file `forbidden` is there."""

    checkout: Checkout

    @property
    def base(self) -> Path:
        return self.checkout.base

    @property
    def forbidden(self) -> Path:
        return self.base / "forbidden"

    @property
    def calls(self) -> Path:
        return self.base / "calls"

    def make(self) -> None:
        self.checkout.prepare({}, SESSION)
        drop_minutes(self.base / "minutes" / "landing")
        drop_small(self.base)
        bare = make_python(self.base / "bare", *ARROW)
        program = self.base / "python"
        paths = {"forbidden": self.forbidden, "calls": self.calls, "python": bare}
        program.write_text(NO_PYTHON.format(**paths))
        program.chmod(0o755)
        self.forbidden.touch()

    def session(self, name: str, *options: str, trap: bool = False) -> dict[str, Any]:
        """What `cluster_session.py` writes about the minutes in a workspace of this name."""
        shutil.copytree(self.base / "minutes", self.base / name)
        output = self.base / f"{name}.json"
        words = [str(output), str(self.base), name, *([str(self.forbidden)] if trap else [])]
        environ = {"PYSPARK_PYTHON": str(self.base / "python")} if trap else {}
        done = self.checkout.submit(*options, SESSION.stem, *words, **environ)
        assert done.code == 0, done
        return dict(json.loads(output.read_text()))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = Place(Checkout(tmp_path_factory.mktemp("cluster")))
    found.make()
    return found


@pytest.fixture(scope="module")
def local_2(place: Place, pytestconfig: pytest.Config) -> dict[str, Any]:
    """What came of it in this process: the session of the tests has two threads."""
    shared_session(pytestconfig)
    shutil.copytree(place.base / "minutes", place.base / "local-2")
    workspace = open_workspace(place.base / "local-2", MINUTES_GRID, quiet=True)
    found: dict[str, Any] = {"ingested": counts(workspace.ingest())}
    workspace.indicators()
    return {**found, **{name: digest(workspace.path / name) for name in ("prices", "indicators")}}


@pytest.fixture(scope="module")
def cluster(place: Place) -> Iterator[Cluster]:
    with standalone(place.base / "standalone", memory="1g", cores=1, workers=2) as found:
        yield found


@pytest.fixture(scope="module")
def two(place: Place, cluster: Cluster, local_2: dict[str, Any]) -> dict[str, Any]:
    """Two executors; without a Python on them until the indicators, then with one that has numpy,
    pandas and pyarrow alone."""
    return place.session("two", "--master", cluster.url, trap=True)


@pytest.fixture(scope="module", params=["two", "one", "local-1"])
def session(request: pytest.FixtureRequest, place: Place) -> tuple[str, dict[str, Any]]:
    """The kind of Spark, and what came of it."""
    name = request.param
    if name == "local-1":
        return name, place.session(name, "--master", "local[1]")
    if name == "two":
        return name, request.getfixturevalue(name)
    master = request.getfixturevalue("cluster").url
    return name, place.session(name, "--master", master, "--conf", "spark.cores.max=1")


def test_every_spark_gives_the_same_rows(
    session: tuple[str, dict[str, Any]], local_2: dict[str, Any]
) -> None:
    _, found = session
    assert {name: found[name] for name in local_2} == local_2
    assert found["package"].endswith(".zip/bitstorm/__init__.py")


def test_a_local_spark_has_no_page_and_a_cluster_few_tasks(
    session: tuple[str, dict[str, Any]],
) -> None:
    name, found = session
    local = str(max(4, 2 * (os.cpu_count() or 1)))
    expected = (local, True) if name == "local-1" else ("8", False)
    assert (found["settings"]["spark.sql.shuffle.partitions"], found["ui"] is None) == expected


def test_prices_need_no_python_on_the_executors(two: dict[str, Any]) -> None:
    found = two["without_python"]
    nothing = {"duplicate": 0, "superseded": 0}
    assert found["first"] == {
        "read": 2 * TINY, "accepted": TINY, "refused": TINY, "replaced": 0, "rows": TINY, **nothing,
    }  # fmt: skip
    assert found["merged"] == {
        "read": 3, "accepted": 3, "refused": 0, "replaced": 3, "rows": TINY, **nothing,
    }  # fmt: skip
    assert found["replayed"] == {
        "read": TINY, "accepted": TINY, "refused": 0, "replaced": 0, "rows": 2 * TINY, **nothing,
    }  # fmt: skip
    assert found["retracted"] == {"removed": 3, "restored": 3}


def test_a_python_that_was_called_would_be_noticed(place: Place, two: dict[str, Any]) -> None:
    assert not two["called"]
    assert place.calls.read_text().startswith("-m pyspark.daemon")
    assert two["refused"].startswith("Spark failed: ")
    assert two["no_python"].startswith("a Python task failed on an executor (")


def test_tasks_seal_with_numpy_and_pyarrow(two: dict[str, Any]) -> None:
    assert two["sealed"] is True


def test_doctor_says_what_the_executors_have(two: dict[str, Any]) -> None:
    checks = {name: (state, text) for name, state, text in two["doctor"]}
    assert checks["spark"][0] == checks["executor"][0] == "ok"
    # The two are alike, on one host. Bitstorm's zip has no version.
    assert re.fullmatch(
        r"2 on \S+: Python 3\.\S+, bitstorm, numpy \S+, pandas \S+, pyarrow \S+",
        checks["executor"][1],
    )
    state, text = checks["commands"]
    assert state == "note"
    assert "run ingest, retract, stats, train, forecast, report, indicators, check-look" in text
    assert "backtest, tune lack arch, petastorm, pydantic, tensorflow: install" in text
