"""Time travel, provenance, undoing and housekeeping, through real ingests."""

from __future__ import annotations

import os
import subprocess
import time

import pandas as pd
import pytest

from bitstorm.cli.render_data import history_lines
from bitstorm.core.errors import NothingToDo, SnapshotDamaged, SnapshotMissing, UsageError
from bitstorm.pipelines import history
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.pipelines.retract import retract
from bitstorm.store import manifest as manifests
from bitstorm.store import snapshots
from landed import HOUR, collected, context_of

pytestmark = pytest.mark.slow

START = 1_609_459_200_000
DAY = 24 * HOUR


def text(rows):
    return "timestamp,price\n" + "".join(f"{t},{p}\n" for t, p in rows)


def stored(context, snapshot=None):
    found = snapshots.required(context.workspace.prices, snapshot=snapshot)
    if not found.files:
        return {}
    frame = pd.read_parquet(found.folder)
    return dict(zip(frame["timestamp"], frame["price"], strict=True))


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Where the workspace of `context` is made once, to be copied for each test."""
    return tmp_path_factory.mktemp("history") / "workspace"


@pytest.fixture
def context(spark_session, tmp_path, template):
    """Three ingests: daily rows, then better hourly ones over one of them, then a bad batch."""
    if not template.exists():
        made = context_of(template)
        landing = made.workspace.landing
        daily = [(START, 1), (START + 40 * DAY, 2)]
        collected(landing, "daily.csv", text(daily), granularity_ms=DAY)
        ingest(made)
        collected(landing, "hourly.csv", text([(START, 10), (START + HOUR, 11)]))
        ingest(made)
        wrong = [(START + HOUR, 99), (START + 2 * HOUR, 99), (START + 40 * DAY, 99)]
        collected(landing, "wrong.csv", text(wrong), granularity_ms=60_000)
        ingest(made)
    # -a keeps what is linked between snapshots linked in the copy.
    subprocess.run(["cp", "-a", template, tmp_path / "workspace"], check=True)
    return context_of(tmp_path / "workspace")


def test_retracting_a_batch_brings_back_what_it_had_displaced(context):
    before = {START: 10, START + HOUR: 99, START + 2 * HOUR: 99, START + 40 * DAY: 99}
    assert stored(context) == before
    result = retract(context, "wrong.csv", reason="a test feed")
    after = {START: 10, START + HOUR: 11, START + 40 * DAY: 2}
    assert stored(context) == after
    assert (result.removed, result.restored, result.absent_batches) == (3, 2, 0)
    # As if it had never been there: the digest is that of the second ingest.
    second = manifests.read(context.workspace.prices, 2)
    assert snapshots.required(context.workspace.prices).manifest.digest == second.digest
    assert ingest(context).idle
    with pytest.raises(NothingToDo, match="a test feed"):
        retract(context, "wrong.csv", reason="again")
    history.verify(context)


def test_a_batch_is_named_by_name_or_hash_with_a_reason(context):
    with pytest.raises(UsageError, match="no ingested batch"):
        retract(context, "unknown.csv", reason="x")
    with pytest.raises(UsageError, match="--reason"):
        retract(context, "daily.csv", reason=" ")
    sha256 = next(iter(manifests.read(context.workspace.prices, 1).batches))
    (context.workspace.landing / "wrong.csv").unlink()
    result = retract(context, sha256[:10], reason="by hash")
    assert (result.name, result.removed, result.absent_batches) == ("daily.csv", 0, 1)


def test_every_row_can_be_traced_to_batch_and_line(context):
    found = history.trace(context, START + 2 * HOUR)
    assert (found.name, found.line) == ("wrong.csv", 3)
    assert history.trace(context, START).name == "hourly.csv"
    with pytest.raises(SnapshotMissing, match="no row"):
        history.trace(context, START + 1)


def test_rollback_is_a_new_commit_with_the_old_rows_and_progress(context):
    first = manifests.read(context.workspace.prices, 1)
    result = history.rollback(context, first.id, reason="start over")
    assert (result.sequence, result.snapshot) == (4, first.id)
    assert stored(context) == {START: 1, START + 40 * DAY: 2}
    with pytest.raises(NothingToDo):
        history.rollback(context, first.id, reason="")
    again = ingest(context)
    assert again.batches == 2
    third = manifests.read(context.workspace.prices, 3)
    assert snapshots.required(context.workspace.prices).manifest.digest == third.digest
    operations = [c.operation for c in history.history(context)]
    assert operations == ["ingest", "rollback", "ingest", "ingest", "ingest"]


def test_an_old_snapshot_can_be_read_and_computed_on(context):
    first = manifests.read(context.workspace.prices, 1).id
    assert stored(context, first) == {START: 1, START + 40 * DAY: 2}
    travelled = context_of(context.workspace.root, snapshot=first)
    computed = indicators(travelled)
    assert (computed.prices, computed.rows) == (first, 2)


def test_a_truncated_newest_manifest_is_an_error_with_advice(context):
    root = context.workspace.prices
    path = root / manifests.name_of(3)
    path.write_bytes(path.read_bytes()[:200])
    for read in (ingest, indicators):
        with pytest.raises(SnapshotDamaged, match="rollback"):
            read(context)
    with pytest.raises(SnapshotDamaged, match="00000003"):
        history.verify(context)
    second = manifests.read(root, 2).id
    history.rollback(context, second, reason="the newest manifest is damaged")
    assert snapshots.required(root).id == second
    assert ingest(context).batches == 1


def test_verify_names_a_flipped_byte_and_its_snapshots(context):
    root = context.workspace.prices
    old, new = manifests.read(root, 1), manifests.read(root, 2)
    february = next(f for f in new.files if f.month == "2021-02")
    path = root / "snapshots" / new.id / february.path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotDamaged, match="month=2021-02") as damaged:
        history.verify(context)
    assert old.id in str(damaged.value) and new.id in str(damaged.value)
    with pytest.raises(SnapshotDamaged, match="month=2021-02"):
        indicators(context_of(context.workspace.root, snapshot=new.id))


def test_gc_keeps_the_newest_and_the_young_and_removes_the_rest(context):
    root = context.workspace.prices
    orphan = root / "snapshots" / "00000009-0123456789ab"
    orphan.mkdir()
    (orphan / "x.parquet").write_bytes(b"x" * 10)
    kept = history.collect_garbage(context, keep=1, hours=24)
    assert kept["prices"].snapshots == () and orphan.exists()

    old = time.time() - 10
    os.utime(orphan, (old, old))
    before = stored(context)
    first, second, third = (manifests.read(root, n).id for n in (1, 2, 3))
    removed = history.collect_garbage(context, keep=1, hours=0)["prices"]
    assert removed.snapshots == (first, second)
    assert "snapshots/00000009-0123456789ab" in removed.orphans
    assert sorted(p.name for p in (root / "snapshots").iterdir()) == [third]
    assert stored(context) == before
    history.verify(context)
    with pytest.raises(SnapshotMissing):
        snapshots.current(root, snapshot=first)
    collected(context.workspace.landing, "next.csv", text([(START + 3 * DAY, 5)]))
    assert ingest(context).accepted == 1


def test_the_history_shows_every_id_whole(context):
    commits = history.history(context)
    lines = history_lines(commits)
    assert [c.snapshot in line for c, line in zip(commits, lines, strict=True)] == [True] * 3
