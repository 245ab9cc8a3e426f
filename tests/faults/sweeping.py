"""Runs a job with a strike at its first, second, … file-system call until it gets through.

`python sweeping.py SCENARIO KIND[,KIND …] FOLDER [reads]` prints one JSON object: for each kind how
many runs, and what went wrong in which. Each run is a fork of this process: everything is loaded
once.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
import pyarrow as pa

from bitstorm.core.schema import PRICES, Field, Table
from bitstorm.store import maintenance, snapshots
from bitstorm.store.append import append
from bitstorm.store.batch_writer import make_batch_writer
from bitstorm.store.petastorm_io import BitcoinSchema
from bitstorm.store.publish import republish
from faults.publishing import FEBRUARY, HOUR, JANUARY, MARCH, Batch, batch, job, rows_of, verified
from faults.striking import Strike

DEADLINE = 20.0
OLD = [batch("b", JANUARY, 5), batch("c", FEBRUARY, 4, price=300)]
NEW = [*OLD, batch("a", FEBRUARY + 2 * HOUR, 4, price=500), batch("d", MARCH, 2)]


class Scenario:
    """`before` builds what is there, `act` is struck and run again, `old` and `new` are the
    batches that the data set holds before and after it."""

    old: Sequence[Batch] = ()
    new: Sequence[Batch] = NEW

    def before(self, root: Path) -> None:
        if self.old:
            job(root, self.old)

    def act(self, root: Path) -> None:
        job(root, self.new)


class First(Scenario):
    pass


class Next(Scenario):
    old = OLD


class Copies(Next):
    """A file system without hard links between two files that are both in use."""

    def act(self, root: Path) -> None:
        link = os.link

        def refused(source: Any, target: Any, **options: Any) -> None:
            if str(target).endswith(".parquet"):
                raise OSError(18, "Invalid cross-device link")
            link(source, target, **options)

        os.link = refused  # type: ignore[assignment]
        super().act(root)


class Rollback(Scenario):
    old = NEW
    new = OLD

    def before(self, root: Path) -> None:
        job(root, OLD)
        job(root, NEW)

    def act(self, root: Path) -> None:
        now = snapshots.current(root)
        assert now is not None
        if now.manifest.operation != "rollback":
            target = next(root.glob("snapshots/00000001-*")).name
            old = snapshots.current(root, snapshot=target)
            assert old is not None
            republish(root, old, reason="a mistake")


class Garbage(Scenario):
    """gc of all but the newest snapshot."""

    old = NEW

    def before(self, root: Path) -> None:
        for count in (1, 2, 4):
            job(root, NEW[:count])
        (root / "snapshots" / "00000009-orphan").mkdir()
        (root / "snapshots" / "00000009-orphan" / "x").touch()

    def act(self, root: Path) -> None:
        maintenance.collect_garbage(root, keep=1, younger_than_s=0, now_s=time.time() + 5)


class Writer(Scenario):
    """A batch that `make_batch_writer` merges into a month of the parent and into a new one."""

    old = OLD
    ROWS = ((FEBRUARY + 1, 7.0), (FEBRUARY + HOUR + 1, 8.0), (MARCH, 9.0))

    def act(self, root: Path) -> None:
        with make_batch_writer(str(root), BitcoinSchema) as target:
            for piece in (self.ROWS[:1], self.ROWS[1:]):
                target.write(pd.DataFrame(piece, columns=["timestamp", "price"]))


class Append(Scenario):
    """Rows for a month of the parent, at a time that it has, and for a new month."""

    STEPS = Table(
        "Steps",
        (
            Field("timestamp", "int64", "", False),
            Field("step", "int32", "", False),
            PRICES.field("price"),
            PRICES.field("month"),
        ),
        key=("timestamp", "step"),
    )
    OLD = ((FEBRUARY + 1, 1, 7.0), (FEBRUARY + HOUR + 1, 1, 8.0))
    NEW = ((FEBRUARY + 1, 2, 6.0), (MARCH, 1, 9.0))

    def before(self, root: Path) -> None:
        self.add(root, self.OLD)

    def act(self, root: Path) -> None:
        self.add(root, (*self.OLD, *self.NEW))

    def add(self, root: Path, rows: Iterable[tuple[int, int, float]]) -> None:
        columns = map(list, zip(*rows, strict=True))
        table = pa.table(dict(zip(("timestamp", "step", "price"), columns, strict=True)))
        append(root, self.STEPS, table, lock_seconds=5)


SCENARIOS = {
    kind.__name__.lower(): kind for kind in (First, Next, Copies, Rollback, Garbage, Writer, Append)
}


def forked(act: Callable[[], object]) -> str:
    """ "" when `act` went well in a child, else how it ended."""
    reader, sender = os.pipe()
    child = os.fork()
    if child == 0:
        told = ""
        try:
            act()
        except BaseException:  # noqa: BLE001 - the child tells its parent and ends
            told = traceback.format_exc(limit=-4)
        os.write(sender, told[-3000:].encode())
        os._exit(1 if told else 0)
    os.close(sender)
    until = time.monotonic() + DEADLINE
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > until:
            os.kill(child, 9)
            os.waitpid(child, 0)
            os.close(reader)
            return "past its deadline"
        time.sleep(0.001)
    with os.fdopen(reader) as stream:
        text = stream.read()
    return "killed" if os.WIFSIGNALED(status) else text


def held(root: Path, *choices: Iterable[Batch]) -> None:
    """The data set is whole, and one of these; () stands for none."""
    if snapshots.current(root) is None:
        assert any(not list(choice) for choice in choices), "the data set is gone"
        return
    errors = []
    for choice in choices:
        try:
            verified(root, choice)
            return
        except AssertionError as error:
            errors.append(str(error))
    raise AssertionError(f"neither: {errors}")


def sweep(scenario: Scenario, kind: str, folder: Path, *, reads: bool) -> dict[str, object]:
    base = folder / "base"
    base.mkdir(parents=True)
    scenario.before(base / "prices")
    problems: list[str] = []
    ended: dict[str, int] = {}
    number = 0
    while True:
        number += 1
        assert number < 500, f"it never gets through: {ended}"
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(base, work, copy_function=_same_links({}))
        root = work / "prices"
        told = folder / "told"
        outcome = forked(partial(_struck, scenario, kind, root, number, told, reads))
        (folder / "filler").unlink(missing_ok=True)
        name = outcome.strip().splitlines()[-1].partition(":")[0] if outcome else "through"
        ended[name.rpartition(".")[2]] = ended.get(name.rpartition(".")[2], 0) + 1
        problem = forked(partial(_afterwards, root, scenario))
        if problem:
            calls = told.read_text().splitlines() if told.exists() else []
            problems.append(f"{kind} {number} {calls[number - 1 : number]}: {problem}")
        if not outcome and not _fell(told):
            return {"runs": number, "ended": ended, "problems": problems}


def _struck(
    scenario: Scenario, kind: str, root: Path, number: int, told: Path, reads: bool
) -> None:
    """The act under the `number`-th fault; `told` then holds the calls up to there."""
    told.unlink(missing_ok=True)
    if kind == "fsize":
        # No file may grow beyond: what `prlimit --fsize` and `ulimit -f` do.
        resource.setrlimit(resource.RLIMIT_FSIZE, (number * 128, resource.RLIM_INFINITY))
        scenario.act(root)
    elif kind == "tmpfs":
        free = os.statvfs(told.parent)
        with (told.parent / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, (free.f_bavail - number + 1) * free.f_bsize)
        scenario.act(root)
    else:
        with Strike(root, kind, number, reads=reads) as strike:
            try:
                scenario.act(root)
            finally:
                Strike._armed = None
                if strike.fell:
                    told.write_text("\n".join(strike.calls))


def _fell(told: Path) -> bool:
    return told.exists() and bool(told.read_text())


def _afterwards(root: Path, scenario: Scenario) -> None:
    """Old or new, whole; after the job has run again new; and the next job goes on from there."""
    if isinstance(scenario, Writer):
        old = [row for b in scenario.old for row in b.rows]
        _after_rows(root, scenario, old, scenario.ROWS)
        ledger = snapshots.read_ledger(snapshots.required(root))
        assert len(ledger) == len(scenario.old) + 1
        return
    if isinstance(scenario, Append):
        _after_rows(root, scenario, *([(t, p) for t, _, p in r] for r in (Append.OLD, Append.NEW)))
        return
    held(root, scenario.old, scenario.new)
    scenario.act(root)
    final = scenario.new if not isinstance(scenario, Garbage) else scenario.old
    found = verified_after_gc(root, final) if isinstance(scenario, Garbage) else None
    if found is None:
        held(root, final)
    assert not maintenance.verify(root).problems
    now = snapshots.current(root)
    assert now is not None
    if isinstance(scenario, First | Next):
        assert {t for t, _ in rows_of(now)} >= {t for b in scenario.old for t, _ in b.rows}
    # Nothing that a crash left behind stops the next run.
    more = [*final, batch("e", MARCH + 5 * HOUR, 1)]
    job(root, more)
    assert (root / "CURRENT").read_text().strip() == snapshots.required(root).id


def _after_rows(
    root: Path,
    scenario: Scenario,
    old: Iterable[tuple[int, float]],
    more: Iterable[tuple[int, float]],
) -> None:
    """The old rows, or all; all after the act, however often it runs."""

    def rows() -> list[tuple[int, float]]:
        found = snapshots.current(root)
        assert found is not None and snapshots.damaged_files(found) == []
        assert not maintenance.verify(root).problems
        return rows_of(found)

    old = sorted(old)
    new = sorted([*old, *more])
    assert rows() in (old, new)
    for _ in range(2):
        scenario.act(root)
        assert rows() == new


def verified_after_gc(root: Path, batches: Iterable[Batch]) -> object:
    found = snapshots.current(root)
    assert found is not None and snapshots.damaged_files(found) == []
    assert len(list((root / "manifests").glob("[0-9]*"))) == 1
    assert [p.name for p in (root / "snapshots").iterdir()] == [found.id]
    assert [p.name for p in (root / "lineage").iterdir()] == [found.id]
    return found


def _same_links(seen: dict[int, str]) -> Callable[[str, str], str]:
    """copytree's copy_function that keeps hard links among the copies."""

    def copy(source: str, target: str) -> str:
        inode = Path(source).stat().st_ino
        if inode in seen:
            os.link(seen[inode], target)
        else:
            shutil.copy2(source, target)
            seen[inode] = target
        return target

    return copy


if __name__ == "__main__":
    scenario, kinds, folder, *rest = sys.argv[1:]
    # Here, not in a fork: so that what is loaded at first use is loaded once.
    job(Path(folder) / "warm" / "prices", NEW)
    reports = {}
    for kind in kinds.split(","):
        own = Path(folder) / kind
        reports[kind] = sweep(SCENARIOS[scenario](), kind, own, reads="reads" in rest)
    print(json.dumps(reports))
