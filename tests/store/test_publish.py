"""Two writers have one winner, and a crash leaves the old snapshot or the new one, whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bitstorm.core.errors import Overtaken
from bitstorm.core.file_system import Root, files_of
from bitstorm.core.object_store import ObjectStore
from bitstorm.store import maintenance, snapshots
from bitstorm.store import manifest as manifests
from bitstorm.store.publish import republish
from bitstorm.store.snapshots import Snapshot
from faults.publishing import (
    FEBRUARY,
    HOUR,
    JANUARY,
    MARCH,
    Batch,
    batch,
    commit,
    elsewhere,
    expected,
    job,
    publish,
    rows_of,
    unbroken,
    verified,
    whole,
)
from objects import Bucket, Crash, Objects
from s3_server import BUCKET, running

OLD = [batch("b", JANUARY, 5), batch("c", FEBRUARY, 4, price=300)]
NEW = [*OLD, batch("a", FEBRUARY + 2 * HOUR, 4, price=500), batch("d", MARCH, 2)]


@pytest.mark.slow
def test_of_two_writers_on_one_parent_one_wins(root: Root) -> None:
    """200 races; each writer has its own machine where the place is none."""
    machines = (root, elsewhere(root))
    parent: Snapshot | None = None
    for race in range(200):
        barrier = threading.Barrier(2)
        ended: list[Snapshot | Overtaken] = []

        def run(machine: Root, price: float, parent: Snapshot | None = parent) -> None:
            write = whole({JANUARY: price}, may_lose_keys=True)
            barrier.wait()  # noqa: B023
            try:
                ended.append(publish(machine, write, parent))  # noqa: B023
            except Overtaken as error:
                ended.append(error)  # noqa: B023

        prices = (race + 1.0, race + 1.5)
        threads = [
            threading.Thread(target=run, args=pair) for pair in zip(machines, prices, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (won,) = [end for end in ended if isinstance(end, Snapshot)]
        assert len(ended) == 2
        parent = snapshots.required(root)
        assert (parent.id, parent.manifest.sequence) == (won.id, race + 1)
        assert rows_of(parent) == rows_of(won)
        assert rows_of(parent)[0][1] in prices
    assert len(unbroken(root)) == 200
    assert maintenance.verify(root).problems == ()


def test_a_repeated_request_meets_its_own_manifest(tmp_path: Path) -> None:
    """A client repeats a request whose answer it has not got."""

    class Lossy(Objects):
        def create(self, name: str, content: bytes) -> None:
            super().create(name, content)
            super().create(name, content)

    root = Lossy(tmp_path / "prices")
    first = publish(root, whole({JANUARY: 1.0}))
    assert snapshots.current(root) == first


def test_a_new_machine_goes_on_from_what_is_there(tmp_path: Path) -> None:
    root = Objects(tmp_path / "prices")
    job(root, OLD)
    other = root.elsewhere()
    (other.folder.parent / other.name).mkdir()
    commit(other, NEW)
    verified(root, NEW)
    assert maintenance.verify(root).problems == ()


@pytest.mark.slow
def test_the_store_in_a_real_bucket(tmp_path: Path) -> None:
    """moto's S3 server: commits of two machines, a race, time travel and housekeeping."""
    with running():
        here, there = (
            ObjectStore(tmp_path / name / "prices", f"s3://{BUCKET}/prices")
            for name in ("here", "there")
        )
        for machine in (here, there):
            machine.folder.mkdir(parents=True)
        assert snapshots.current(here) is None
        commit(here, OLD)
        old = snapshots.required(there)
        commit(there, NEW)
        new = verified(here, NEW)
        with pytest.raises(Overtaken, match="snapshot 2 of prices"):
            publish(here, whole({MARCH: 1.0}, may_lose_keys=True), old)
        assert snapshots.required(there).id == snapshots.required(here).id == new.id
        republish(here, old, reason="a mistake")
        verified(there, OLD)
        assert maintenance.verify(there).problems == ()
        done = maintenance.collect_garbage(here, keep=1, younger_than_s=0, now_s=time.time() + 5)
        # The overtaken publish has left its files.
        assert set(done.snapshots) == {old.id, new.id} and len(done.orphans) == 1
        fresh = ObjectStore(tmp_path / "fresh" / "prices", here.url)
        verified(fresh, OLD)
        assert pq.read_table(snapshots.required(fresh).folder).num_rows == len(expected(OLD))


def first(root: Objects) -> None:
    commit(root, OLD)


def following(root: Objects) -> None:
    commit(root, NEW)


def rollback(root: Objects) -> None:
    if snapshots.required(root).manifest.operation != "rollback":
        old = manifests.read(root, 1)
        republish(root, Snapshot(root, old), reason="a mistake")


def garbage(root: Objects) -> None:
    maintenance.collect_garbage(root, keep=1, younger_than_s=0, now_s=time.time() + 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "after",
    [
        pytest.param(False, id="before"),
        # What the n-th operation leaves, a crash before the one after it has left, too.
        pytest.param(True, id="after", marks=pytest.mark.faults),
    ],
)
@pytest.mark.parametrize(
    ("act", "before", "old", "new"),
    [
        (first, [], [], OLD),
        (following, [OLD], OLD, NEW),
        (rollback, [OLD, NEW], NEW, OLD),
        (garbage, [OLD, NEW], [], NEW),
    ],
)
def test_a_crash_at_every_operation_leaves_old_or_new(
    tmp_path: Path,
    act: Callable[[Objects], None],
    before: list[list[Batch]],
    old: list[Batch],
    new: list[Batch],
    after: bool,
) -> None:
    base = Objects(tmp_path / "base" / "prices")
    base.folder.mkdir(parents=True)
    for batches in before:
        commit(base, batches)
    runs = 0
    while True:
        runs += 1
        bucket = Bucket(dict(base.bucket.objects), last=runs, after=after)
        folder = tmp_path / str(runs) / "prices"
        folder.mkdir(parents=True)
        root = Objects(folder, bucket)
        try:
            act(root)
        except Crash:
            crashed = True
        else:
            crashed = False
        bucket.last = None
        held(root.elsewhere(), old, new)
        # What the crash has left in the mirror and in the bucket stops nothing.
        act(root)
        held(root.elsewhere(), new)
        more = [*new, batch("e", MARCH + 5 * HOUR, 1)]
        commit(root, more)
        verified(root.elsewhere(), more)
        assert maintenance.verify(root).problems == ()
        assert files_of(root).read("CURRENT").decode().strip() == snapshots.required(root).id
        if not crashed:
            break
    assert runs > 5


def held(root: Objects, *choices: list[Batch]) -> None:
    """The data set is whole, and one of these."""
    now = snapshots.current(root)
    assert now is not None or [] in choices
    rows = {} if now is None else dict(rows_of(now))
    (found,) = [c for c in choices if {s for b in c for s, _ in b.rows} == rows.keys()]
    if now is not None:
        verified(root, found)
