"""An ingest under faults: redone once, it holds just the valid observations, each once."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import prepared
from bitstorm.core import durable_io
from bitstorm.core.errors import BitstormError, NothingToDo, SnapshotDamaged
from bitstorm.core.schema import PRICES
from bitstorm.pipelines.indicators import indicators
from bitstorm.pipelines.ingest import ingest
from bitstorm.pipelines.replay import replay
from bitstorm.pipelines.retract import retract
from bitstorm.store import maintenance, snapshots
from bitstorm.store.seal import UNISCHEMA_KEY, arrow_schema
from bitstorm.utils import load_petastorm_batches_to_df
from faults.broken_batches import KINDS, Broken, drop
from faults.publishing import HOUR, JANUARY, prices_digest, rows_of
from faults.striking import Strike
from landed import collected, context_of

pytestmark = pytest.mark.slow

INGEST = "import sys; from bitstorm.cli import main; sys.exit(main(['ingest', *sys.argv[1:]]))"


def landed(context, made: dict[str, Broken]) -> None:
    for name, one in made.items():
        drop(context.workspace.landing, name, one)


def check(context, made: dict[str, Broken]) -> None:
    """The data set, the ledger and the rejects are what the batches say."""
    workspace = context.workspace
    wanted: dict[int, float] = {}
    for one in made.values():
        if one.rule is None and not one.waits:
            wanted.update(one.rows)
    found = snapshots.current(workspace.prices)
    if not wanted:
        assert found is None or found.manifest.rows == 0
    else:
        assert found is not None
        assert rows_of(found) == sorted(wanted.items())
        assert found.manifest.digest == prices_digest(
            (stamp, price, None, None, None) for stamp, price in wanted.items()
        )
        assert maintenance.verify(workspace.prices).problems == ()
        ledger = {tally["name"]: tally for tally in snapshots.read_ledger(found).values()}
        taken = {name: one for name, one in made.items() if one.rule is None and not one.waits}
        assert set(ledger) == set(taken)
        for name, one in taken.items():
            tally = ledger[name]
            assert (tally["read"], tally["refused"]) == (one.read, len(one.refused)), name
            assert tally["accepted"] + tally["duplicate"] == len(one.rows), name
        assert sum(tally["accepted"] for tally in ledger.values()) == len(wanted)
    refused: dict[str, list[str]] = {}
    for path in (workspace.rejects / "rows").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            refused.setdefault(record["file"], []).append(record["text"])
    assert refused == {
        name: one.refused for name, one in made.items() if one.refused and one.rule is None
    }
    whole = {}
    for path in (workspace.rejects / "batches").glob("*.reason.json"):
        record = json.loads(path.read_text())
        whole[record["batch"]] = record["rule"]
        assert path.with_name(path.name.removesuffix(".reason.json")).exists()
    assert sorted(whole.values()) == sorted(
        {one.content: one.rule for one in made.values() if one.rule is not None}.values()
    )


def drawn(rng: random.Random, kinds: list[str], first_slot: int = 1) -> dict[str, Broken]:
    return {
        f"{slot:02d} {kind}.csv": KINDS[kind](rng, slot)
        for slot, kind in enumerate(kinds, start=first_slot)
    }


def test_each_kind_of_broken_batch_is_taken_refused_or_left(spark_session, tmp_path):
    context = context_of(tmp_path)
    made = drawn(random.Random(1), list(KINDS))
    landed(context, made)
    first = ingest(context)
    assert first.unsettled_batches == 1
    check(context, made)
    again = ingest(context)
    assert again.idle and again.snapshot == first.snapshot
    check(context, made)


def struck_and_redone(tmp_path: Path, seed: int) -> None:
    """Two or three broken batches on top of one or none; an ingest that fails at a random call
    of the file system, or not at all; then once more."""
    rng = random.Random(seed)
    context = context_of(tmp_path)
    before = drawn(rng, ["good"]) if rng.random() < 0.7 else {}
    landed(context, before)
    if before:
        ingest(context)
    old = snapshots.current(context.workspace.prices)
    kinds = rng.sample(sorted(KINDS), rng.choice((2, 3)))
    made = {**before, **drawn(rng, kinds, first_slot=5)}
    landed(context, made)
    kind, number = rng.choice(("gone", "interrupt", "EIO", "full")), rng.randrange(1, 110)
    with Strike(context.workspace.root, kind, number) as strike:
        try:
            ingest(context)
        except (BitstormError, OSError, KeyboardInterrupt):
            assert strike.fell
    now = snapshots.current(context.workspace.prices)
    assert now is None or snapshots.damaged_files(now) == []
    if now != old:
        assert now is not None
        assert now.manifest.sequence == (1 if old is None else 2)
    elif now is not None and old is not None:
        assert rows_of(now) == rows_of(old)
    ingest(context)
    check(context, made)


def undone_under_a_strike(tmp_path: Path, seed: int) -> None:
    """A retract and a replay that fail at a random call of the file system; then once more."""
    rng = random.Random(seed)
    stamps = [JANUARY + n * HOUR for n in range(30)]
    good = {stamp: 100.0 + n for n, stamp in enumerate(stamps)}
    wrong = dict.fromkeys(stamps[:4], 5.0)
    later = {JANUARY + 40 * 24 * HOUR: 300.0}

    def text(rows: dict[int, float]) -> str:
        return "timestamp,price\n" + "".join(f"{t},{p!r}\n" for t, p in rows.items())

    context = context_of(tmp_path)
    landing = context.workspace.landing
    collected(landing, "wrong.csv", text(wrong), granularity_ms=1)
    early = {"fetched_at": stamps[0]}
    collected(landing, "good.csv", text({**good, **later}), **early)
    days = context_of(tmp_path, "ingest.future_seconds=180000")
    first = ingest(days)
    assert (first.accepted, first.duplicate, first.refused) == (30, 4, 1)
    late = context_of(tmp_path, "ingest.future_seconds=180000000")
    acts = [
        lambda: retract(
            context_of(tmp_path, "ingest.future_seconds=180000"), "wrong.csv", reason="x"
        ),
        lambda: replay(late),
    ]
    steps = [{**good, **wrong}, good, {**good, **later}]
    for act, old, new in zip(acts, steps, steps[1:], strict=False):
        kind, number = rng.choice(("gone", "interrupt", "EIO", "full")), rng.randrange(1, 60)
        with Strike(context.workspace.root, kind, number) as strike:
            try:
                act()
            except (BitstormError, OSError, KeyboardInterrupt):
                assert strike.fell
        rows = rows_of(snapshots.required(context.workspace.prices))
        assert rows in (sorted(old.items()), sorted(new.items()))
        with contextlib.suppress(NothingToDo):
            act()
        found = snapshots.required(context.workspace.prices)
        assert [t for t, _ in rows_of(found)] == sorted(new)
        assert dict(rows_of(found)) == pytest.approx(new)
        assert maintenance.verify(context.workspace.prices).problems == ()
    assert replay(late).idle
    assert list((context.workspace.rejects / "rows").glob("*.jsonl")) == []


def test_a_retract_and_a_replay_that_fail_anywhere_can_be_redone(spark_session, tmp_path):
    undone_under_a_strike(tmp_path, seed=0)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(1, 42))
def test_more_retracts_and_replays_that_fail(spark_session, tmp_path, seed):
    undone_under_a_strike(tmp_path, seed)


@pytest.mark.parametrize("seed", range(4))
def test_random_pairs_and_triples(spark_session, tmp_path, seed):
    struck_and_redone(tmp_path, seed)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(4, 220))
def test_more_random_pairs_and_triples(spark_session, tmp_path, seed):
    struck_and_redone(tmp_path, seed)


# In processes of their own: the JVM too is killed, or started elsewhere in the world.


def child(root: Path, **environment: str) -> subprocess.Popen:
    arguments = ["--workspace", str(root), "--json", "--quiet", "--set", "spark.master=local[2,4]"]
    return subprocess.Popen(
        [sys.executable, "-c", INGEST, *arguments, "--set", "spark.driver_memory=1g"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )


def finished(process: subprocess.Popen) -> dict:
    try:
        told, wrong = process.communicate(timeout=120)
    finally:
        kill(process)
    assert process.returncode == 0, wrong[-3000:]
    return json.loads(told)


def kill(process: subprocess.Popen) -> None:
    """The whole group, the JVM included, and wait until nobody of it is left."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        process.poll()
        time.sleep(0.02)
    else:
        pytest.fail("the process group does not end")
    process.communicate()


def killed_and_redone(tmp_path: Path, moments: list[float]) -> None:
    """A whole run under New York's clock; then kills at these shares of the time that it took."""
    made = drawn(random.Random(3), ["good", "crlf", "quote", "utf16", "edges"])
    base = context_of(tmp_path / "base")
    landed(base, drawn(random.Random(4), ["good"], first_slot=9))
    ingest(base)
    made = {**drawn(random.Random(4), ["good"], first_slot=9), **made}
    landed(base, made)
    zone = "America/New_York"
    clock = {"TZ": zone, "JAVA_TOOL_OPTIONS": f"-Duser.timezone={zone}"}

    def copied(name: str):
        shutil.copytree(base.workspace.root, tmp_path / name)
        return context_of(tmp_path / name)

    whole = copied("whole")
    began = time.monotonic()
    finished(child(whole.workspace.root, **clock))
    seconds = time.monotonic() - began
    # Every time and month is UTC, those around midnight and New York's own changes, too.
    check(whole, made)
    published = snapshots.required(whole.workspace.prices).manifest
    days = [one for one in published.files if one.month >= "2021-10"]
    assert [one.month for one in days] == ["2021-10", "2021-11"]
    for number, share in enumerate(moments):
        context = copied(str(number))
        old = snapshots.current(context.workspace.prices)
        process = child(context.workspace.root)
        time.sleep(share * seconds)
        kill(process)
        now = snapshots.required(context.workspace.prices)
        assert snapshots.damaged_files(now) == []
        assert now == old or now.manifest.digest == published.digest
        ingest(context)
        check(context, made)
        assert snapshots.required(context.workspace.prices).manifest.digest == published.digest
        shutil.rmtree(context.workspace.root)


@pytest.mark.faults
def test_new_yorks_clock_and_a_kill_of_spark_change_nothing(spark_session, tmp_path):
    rng = random.Random(5)
    killed_and_redone(tmp_path, [rng.uniform(low, low + 0.15) for low in (0.65,)])


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(4))
def test_spark_and_its_jvm_killed_at_twenty_moments(spark_session, tmp_path, seed):
    rng = random.Random(seed)
    killed_and_redone(tmp_path, [rng.uniform(0.35, 1.0) for _ in range(5)])


def test_a_task_that_fails_once_is_retried_without_lost_rows(tmp_path):
    """Each thread's first look at the batch fails with EIO, put in by the kernel's tracer."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: no call of the JVM can be made to fail")
    context = context_of(tmp_path / "workspace")
    made = drawn(random.Random(8), ["good"])
    landed(context, made)
    (batch,) = context.workspace.landing.glob("*.csv")
    told = tmp_path / "told"
    name = f"{durable_io.file_hash(batch)[:32]}.csv"
    staged = context.workspace.cache / "staging" / ("00" * 8) / name
    script = (
        'exec "$0" -f --seccomp-bpf -qq -o "$1" -P "$2" -e trace=openat '
        '-e inject=openat:error=EIO:when=1 "$3" -c "$4" ingest --workspace "$5" --json --quiet '
        '--set "spark.master=local[2,4]" --set spark.driver_memory=1g'
    )
    # The tracer has to know the folder before the process makes it.
    program = "import secrets; secrets.token_hex = lambda size: '00' * size\n"
    program += INGEST.replace("['ingest', *sys.argv[1:]]", "sys.argv[1:]")
    place = str(tmp_path / "workspace")
    process = subprocess.Popen(
        ["sh", "-c", script, strace, str(told), str(staged), sys.executable, program, place],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        output, wrong = process.communicate(timeout=180)
    finally:
        kill(process)
    if "ptrace" in wrong.lower() and "not permitted" in wrong.lower():
        pytest.skip("no process may be traced here")
    assert process.returncode == 0, wrong[-3000:]
    assert json.loads(output)["accepted"] == len(made[batch.name].rows)
    assert "(INJECTED)" in told.read_text()
    check(context, made)


def test_tasks_that_always_fail_publish_nothing(spark_session, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        context = context_of(disk / "workspace")
        made = drawn(random.Random(7), ["good", "crlf"])
        landed(context, made)
        (context.workspace.root / "prices").mkdir()
        free = os.statvfs(disk)
        with (disk / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, (free.f_bavail - 3) * free.f_bsize)
        with pytest.raises(Exception, match=r"(?i)no space|cannot be written|failed"):
            ingest(context)
        assert snapshots.current(context.workspace.prices) is None
        (disk / "filler").unlink()
        ingest(context)
        check(context, made)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# Damage and malice in what is stored.


@pytest.fixture
def filled(spark_session, ingested_workspace, workspace_copy):
    return prepared.context(workspace_copy(ingested_workspace))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def test_a_flipped_byte_in_prices_stops_indicators_and_ingest(filled):
    found = snapshots.required(filled.workspace.prices)
    flip(found.files[1])
    name = found.manifest.files[1].path
    with pytest.raises(SnapshotDamaged, match=name):
        indicators(filled)
    drop(
        filled.workspace.landing,
        "more.csv",
        Broken(f"timestamp,price\n{prepared.FIRST_MS + prepared.HOURS * HOUR},5\n".encode()),
    )
    with pytest.raises(SnapshotDamaged, match=name):
        ingest(filled)
    assert snapshots.current(filled.workspace.prices) == found
    (problem,) = maintenance.verify(filled.workspace.prices).problems
    assert name in problem and found.id in problem


def test_a_flipped_byte_in_indicators_stops_train(indicators_workspace, workspace_copy):
    from bitstorm.pipelines.train import train

    context = prepared.context(workspace_copy(indicators_workspace))
    found = snapshots.required(context.workspace.indicators)
    flip(found.files[0])
    with pytest.raises(SnapshotDamaged, match=found.manifest.files[0].path):
        train(context)
    (problem,) = maintenance.verify(context.workspace.indicators).problems
    assert found.manifest.files[0].path in problem


class _Poison:
    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self):
        # `open` is of builtins, which petastorm's restricted unpickler lets through.
        return open, (str(self._marker), "w")


def test_a_poisoned_common_metadata_is_never_unpickled(filled, tmp_path):
    marker = tmp_path / "marker"
    poison = pickle.dumps(_Poison(marker))
    pickle.loads(poison).close()
    marker.unlink()  # it is live
    found = snapshots.required(filled.workspace.prices)
    schema = arrow_schema(PRICES).with_metadata({UNISCHEMA_KEY: poison})
    pq.write_metadata(schema, found.folder / "_common_metadata")
    rows = len(prepared.hours())
    assert len(load_petastorm_batches_to_df(str(filled.workspace.prices))) == rows
    assert len(load_petastorm_batches_to_df(str(found.folder))) == rows
    indicators(filled)
    ingest(filled)
    maintenance.verify(filled.workspace.prices)
    assert not marker.exists()
