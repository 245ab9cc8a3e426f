"""Gaps of data set and batches: reported in their state, filled, and not asked for twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bitstorm.cli.render_data import gaps_lines
from bitstorm.collect.batches import known_batches
from bitstorm.context import Context
from bitstorm.core.time import DAY_MS, HOUR_MS
from bitstorm.pipelines import backfill as pipeline
from bitstorm.pipelines.gaps import find_gaps
from bitstorm.simulator.market import Market, hourly
from bitstorm.store import snapshots
from bitstorm.store.batch_writer import make_batch_writer
from bitstorm.store.petastorm_io import BitcoinSchema
from bitstorm.store.snapshots import stored_slots
from landed import context_of
from simulator.watched import Simulator

NOW = 1_795_400_123_456  # 2026-11-23T02:15:23.456Z
FIRST = NOW // HOUR_MS * HOUR_MS - 10 * DAY_MS
MARKET = Market(7)


def clock() -> int:
    return NOW


def hour(n: int) -> int:
    return FIRST + n * HOUR_MS


def store(context: Context, times: np.ndarray) -> None:
    """Hourly observations of these times in the data set, as a collector would have them."""
    with make_batch_writer(context.workspace.prices, BitcoinSchema, fetched_at=NOW) as writer:
        prices = MARKET.price(times).astype(np.float32)
        writer.write(pd.DataFrame({"timestamp": times, "price": prices}))


def landed(context: Context) -> list[int]:
    frames = [pd.read_csv(path) for path, _ in known_batches(context.workspace.landing)]
    return sorted(pd.concat(frames)["timestamp"]) if frames else []


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Context, Simulator]]:
    with Simulator(MARKET, clock=clock) as simulator:
        yield context_of(tmp_path, f"source.base_url={simulator.base_url}"), simulator


def ranges(simulator: Simulator) -> int:
    count = sum(request.path.endswith("/range") for request in simulator.requests)
    simulator.requests.clear()
    return count


def collected(*, without: range = range(0)) -> np.ndarray:
    """An observation of each hour up to now, two minutes before its end."""
    return np.array([hour(n) + 58 * 60_000 for n in range(240) if n not in without])


def test_an_outage_of_six_hours_is_reported_then_filled(served: tuple[Context, Simulator]) -> None:
    context, simulator = served
    store(context, collected(without=range(100, 106)))
    before = find_gaps(context, clock=clock)
    assert (before.expected, before.present, before.missing, before.unasked) == (240, 234, 6, 6)
    (gap,) = before.gaps
    assert (gap.start_ms, gap.end_ms, gap.missing) == (hour(100), hour(106), 6)
    assert gap.state == "open"

    plan = pipeline.plan(context, gaps_only=True, clock=clock)
    assert (plan.calls, plan.points) == (1, 6)
    assert (ranges(simulator), landed(context)) == (0, [])

    result = pipeline.backfill(context, gaps_only=True, clock=clock)
    assert ranges(simulator) == result.calls == 1
    wanted = hourly(7, hour(100), hour(106))
    assert landed(context) == wanted.tolist()
    assert result.points == len(wanted)

    after = find_gaps(context, clock=clock)
    empty = 6 - len({int(s) // HOUR_MS for s in wanted})
    assert (after.missing, after.unasked) == (empty, 0)
    assert pipeline.backfill(context, gaps_only=True, clock=clock).idle
    assert ranges(simulator) == 0


def empty_hour() -> int:
    """An hour of the ten days for which the simulated source has no point."""
    hours = {int(s) // HOUR_MS for s in hourly(7, FIRST, NOW)}
    return next(n for n in range(2, 235) if hour(n) // HOUR_MS not in hours)


def test_an_empty_hour_is_confirmed_and_not_asked_for_again(
    served: tuple[Context, Simulator],
) -> None:
    context, simulator = served
    n = empty_hour()
    store(context, collected(without=range(n, n + 1)))
    result = pipeline.backfill(context, gaps_only=True, clock=clock)
    # No new point, so no batch that could tell: the record does.
    assert (result.points, result.empty, result.silent, result.batches) == (0, 0, 1, ())
    (gap,) = find_gaps(context, clock=clock).gaps
    assert (gap.start_ms, gap.state) == (hour(n), "silent")
    assert (gap.asked_ms, gap.next_ms) == (NOW, NOW + HOUR_MS)
    shown = "\n".join(gaps_lines(find_gaps(context, clock=clock)))
    assert "no price yet" in shown and "2026-11-23T03:15:24Z" in shown
    assert ranges(simulator) == 1
    assert pipeline.backfill(context, gaps_only=True, clock=clock).idle
    assert ranges(simulator) == 0

    later = NOW + HOUR_MS
    result = pipeline.backfill(context, gaps_only=True, clock=lambda: later)
    assert (result.empty, result.silent) == (1, 0)
    gap = next(g for g in find_gaps(context, clock=lambda: later).gaps if g.start_ms == hour(n))
    assert (gap.state, gap.asked_ms, gap.next_ms) == ("empty", later, None)
    ranges(simulator)
    pipeline.backfill(context, gaps_only=True, clock=lambda: later)
    assert all(f"from={hour(n) // 1000}" not in request.query for request in simulator.requests)
    assert "confirmed empty" in "\n".join(gaps_lines(find_gaps(context, clock=lambda: later)))


def test_stored_hours_are_not_asked_for_without_their_batches(
    served: tuple[Context, Simulator],
) -> None:
    context, _ = served
    store(context, collected())
    plan = pipeline.plan(context, days=12, clock=clock)
    # Two days before the stored ones, and the minutes after them.
    assert sum(one.points for one in plan.slices) == 48
    pipeline.backfill(context, days=12, clock=clock)
    wanted = hourly(7, FIRST - 2 * DAY_MS, FIRST).tolist()
    wanted += hourly(7, hour(240), NOW - 15_000).tolist()
    assert landed(context) == wanted


def test_a_batch_lost_before_its_ingest_is_asked_for_again(
    served: tuple[Context, Simulator],
) -> None:
    context, _ = served
    until = hour(200)
    first = pipeline.backfill(context, days=8, until_ms=until, clock=clock)
    assert pipeline.backfill(context, days=8, until_ms=until, clock=clock).idle
    landing = context.workspace.landing
    before = landed(context)
    for path in first.batches:
        path.unlink()
    again = pipeline.backfill(context, days=8, until_ms=until, clock=clock)
    assert again.points == first.points
    assert landed(context) == before
    assert (landing / ".served.json").exists()


def test_ingested_and_removed_batches_are_not_asked_for(served: tuple[Context, Simulator]) -> None:
    context, simulator = served
    until = hour(200)
    first = pipeline.backfill(context, days=8, until_ms=until, clock=clock)
    store(context, np.array(landed(context)))
    for path in first.batches:
        path.unlink()
        path.with_name(path.name + ".json").unlink()
    ranges(simulator)
    assert pipeline.backfill(context, days=8, until_ms=until, clock=clock).idle
    assert {gap.state for gap in find_gaps(context, clock=lambda: until).gaps} <= {"silent"}
    assert ranges(simulator) == 0


def test_what_only_a_batch_had_is_not_empty_nor_asked_for(
    served: tuple[Context, Simulator],
) -> None:
    context, _ = served
    until = hour(230)
    pipeline.backfill(context, days=9, until_ms=until, clock=clock)
    times = np.array(landed(context))
    refused = range(150, 153)
    kept = np.array([t for t in times if (t - FIRST) // HOUR_MS not in refused])
    store(context, kept)
    # As `ingest` leaves it: the batches are known, and some of their rows were refused.
    batches = {
        sidecar.sha256: {"name": path.name}
        for path, sidecar in known_batches(context.workspace.landing)
    }
    ledgered(context, batches)
    found = find_gaps(context, clock=lambda: until)
    refusals = [gap for gap in found.gaps if gap.state == "refused"]
    assert sum(gap.missing for gap in refusals) == len(
        {(t - FIRST) // HOUR_MS for t in times} & set(refused)
    )
    assert {gap.state for gap in found.gaps} <= {"refused", "silent"}
    assert found.unasked == 0


def ledgered(context: Context, batches: dict[str, dict[str, str]]) -> None:
    """The newest snapshot again, with these batches in its ledger."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bitstorm.core import durable_io
    from bitstorm.store import manifest as manifests

    snapshot = snapshots.current(context.workspace.prices)
    assert snapshot is not None
    path = context.workspace.root / "prices" / "lineage" / snapshot.id / snapshots.LEDGER
    path.parent.mkdir(exist_ok=True)
    rows = pq.read_table(path).to_pylist() if path.exists() else []
    rows += [{"batch": sha, **tally} for sha, tally in batches.items()]
    pq.write_table(pa.Table.from_pylist(rows), path)
    record = json.loads((context.workspace.root / "prices" / manifests.name_of(1)).read_bytes())
    now = {"sha256": durable_io.file_hash(path), "size": path.stat().st_size}
    record["ledger"] = {**(record["ledger"] or {}), **now}
    files = {
        name: tuple(manifests.File(**f) for f in record[name]) for name in ("files", "lineage")
    }
    made = manifests.Manifest(**{**record, **files, "hash": ""}).with_hash()
    (context.workspace.root / "prices" / manifests.name_of(1)).write_bytes(made.to_bytes())


def test_what_is_older_than_the_plan_reaches_is_not_open(served: tuple[Context, Simulator]) -> None:
    context, _ = served
    old = FIRST - 400 * DAY_MS
    store(context, np.array([old + 60_000, hour(0) + 60_000, hour(239) + 60_000]))
    found = find_gaps(context, clock=clock)
    states = {gap.state: gap for gap in found.gaps}
    assert states["unreachable"].start_ms == old + HOUR_MS
    reach = -(-(NOW - 364 * DAY_MS) // HOUR_MS) * HOUR_MS
    assert states["unreachable"].end_ms == reach
    assert found.expected == found.present + found.missing == (410 * 24)


def test_of_a_file_nothing_is_expected_after_its_last_row(tmp_path: Path) -> None:
    context = context_of(tmp_path, "source.mode=csv")
    store(context, np.array([hour(0), hour(1), hour(5)]))
    found = find_gaps(context, clock=lambda: NOW + 900 * DAY_MS)
    assert [(gap.missing, gap.state) for gap in found.gaps] == [(3, "unreachable")]
    assert found.unasked == 0


def test_slots_are_the_same_however_the_files_are_cut(tmp_path: Path) -> None:
    context = context_of(tmp_path)
    times = np.array([hour(n) + 1 for n in range(-24 * 60, 24 * 10) if n % 7])
    store(context, times)
    snapshot = snapshots.current(context.workspace.prices)
    assert snapshot is not None and len(snapshot.files) > 1
    for step in (HOUR_MS, DAY_MS, 60_000):
        held = {
            e for s in stored_slots(snapshot, step) for e in range(s.start + step, s.end + 1, step)
        }
        assert held == {int(-(-t // step) * step) for t in times}
    assert find_gaps(context_of(tmp_path / "none"), clock=clock).expected == 0
