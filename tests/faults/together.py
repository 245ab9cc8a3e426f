"""Processes that write and read one data set at the same time.

`python together.py writer ROOT NAME COMMITS`   commits of rows of its own, by make_batch_writer
`python together.py unlocked ROOT NAME COMMITS` the same without the lock: the manifest decides
`python together.py reader ROOT STOP`           reads until STOP exists; prints how many passes
`python together.py cleaner ROOT STOP`          gc until STOP exists; prints how much it removed
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bitstorm.store import maintenance, snapshots
from faults.publishing import HOUR, JANUARY, Batch, commit, prices_digest, rows_of


def own_rows(name: str, number: int) -> tuple[tuple[int, float], ...]:
    """Times that no other commit has, in four months."""
    offset = int(hashlib.sha256(name.encode()).hexdigest()[:6], 16) % 100_000 * 36
    return tuple(
        (JANUARY + month * 30 * 24 * HOUR + offset + number, 100.0 + number) for month in range(4)
    )


def writer(root: Path, name: str, commits: int) -> None:
    import pandas as pd

    from bitstorm.store.batch_writer import make_batch_writer
    from bitstorm.store.petastorm_io import BitcoinSchema

    for number in range(commits):
        rows = pd.DataFrame(own_rows(name, number), columns=["timestamp", "price"])
        with make_batch_writer(str(root), BitcoinSchema, lock_seconds=240) as target:
            target.write(rows[:1])
            target.write(rows[1:])


def unlocked(root: Path, name: str, commits: int) -> None:
    for number in range(commits):
        assert commit(root, [Batch(f"{name}-{number}", own_rows(name, number))])


def reader(root: Path, stop: Path) -> None:
    passes, seen = 0, 0
    while True:
        last = stop.exists()
        found = snapshots.current(root)
        if found is not None:
            assert found.manifest.sequence >= seen, "a reader went back in time"
            seen = found.manifest.sequence
            rows = rows_of(found)
            assert len(rows) == found.manifest.rows
            digest = prices_digest((stamp, price, None, None, None) for stamp, price in rows)
            assert digest == found.manifest.digest, f"rows of no single manifest at {seen}"
            passes += 1
        if last:
            break
        # Else the readers take the time that the writer needs.
        time.sleep(0.05)
    print(passes)


def cleaner(root: Path, stop: Path) -> None:
    gone = 0
    while not stop.exists():
        # A pass of a reader takes a tenth of the two seconds that a snapshot is left for it.
        found = maintenance.collect_garbage(root, keep=1, younger_than_s=2, now_s=time.time())
        gone += len(found.snapshots)
        time.sleep(0.05)
    print(gone)


if __name__ == "__main__":
    role, root, name, *more = sys.argv[1:]
    if role in ("reader", "cleaner"):
        {"reader": reader, "cleaner": cleaner}[role](Path(root), Path(name))
    else:
        {"writer": writer, "unlocked": unlocked}[role](Path(root), name, int(more[0]))
