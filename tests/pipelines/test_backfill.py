"""Silence of the source: one answer proves nothing, two can. What stays missing is fetched again at
growing intervals, or at once with --again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bitstorm.cli.render_data import gaps_lines
from bitstorm.collect.backfill import Backfilled
from bitstorm.collect.batches import known_batches
from bitstorm.context import Context
from bitstorm.core.errors import UsageError
from bitstorm.core.time import DAY_MS, HOUR_MS
from bitstorm.pipelines import backfill as pipeline
from bitstorm.pipelines.gaps import find_gaps
from bitstorm.simulator.answers import Request
from bitstorm.simulator.market import Market, hourly
from landed import collected, context_of
from simulator.faults import Reply
from simulator.watched import Simulator

NOW = 1_795_400_123_456  # 2026-11-23T02:15:23.456Z
DAYS = 12
START = NOW // HOUR_MS * HOUR_MS - DAYS * DAY_MS
Lost = Callable[[int], bool]


def hour(n: int) -> int:
    return START + n * HOUR_MS


class Source(Simulator):
    """A simulated market whose charts lack the points that `lost` names by their stamp."""

    def __init__(self) -> None:
        self.time = NOW
        self.lost: Lost = never
        super().__init__(Market(7), clock=lambda: self.time)

    def reply(self, ask: Request) -> Reply:
        reply = super().reply(ask)
        if ask.path.endswith("/range") and reply.answer.status == 200:
            chart = {
                name: [point for point in points if not self.lost(point[0])]
                for name, points in json.loads(reply.answer.body).items()
            }
            reply = replace(reply, answer=replace(reply.answer, body=json.dumps(chart).encode()))
        return reply

    def ranges(self) -> list[tuple[int, int]]:
        """From and to (Unix ms) of the charts requested since the last time."""
        queries = [
            dict(part.split("=") for part in request.query.split("&"))
            for request in self.requests
            if request.path.endswith("/range")
        ]
        self.requests.clear()
        return [(int(query["from"]) * 1000, int(query["to"]) * 1000) for query in queries]


class World:
    """A workspace and its source on one clock."""

    def __init__(self, folder: Path, source: Source) -> None:
        self.source = source
        self.context: Context = context_of(folder, f"source.base_url={source.base_url}")

    def clock(self) -> int:
        return self.source.time

    def backfill(self, lost: Lost | None = None, *, after: float = 0, **wanted: Any) -> Backfilled:
        """A run `after` hours, of which the answers lack what `lost` names."""
        self.source.time += round(after * HOUR_MS)
        self.source.lost = lost or never
        span = {} if {"days", "from_ms", "gaps_only"} & {*wanted} else {"from_ms": START}
        return pipeline.backfill(self.context, clock=self.clock, **{**span, **wanted})

    def landed(self) -> list[int]:
        frames = [pd.read_csv(path) for path, _ in known_batches(self.context.workspace.landing)]
        return sorted(pd.concat(frames)["timestamp"]) if frames else []

    def states(self) -> dict[int, str]:
        """The state of each missing hour, by its number after START."""
        return {
            (end - START) // HOUR_MS - 1: gap.state
            for gap in find_gaps(self.context, clock=self.clock).gaps
            for end in range(gap.start_ms + HOUR_MS, gap.end_ms + 1, HOUR_MS)
        }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Source() as source:
        yield World(tmp_path, source)


def never(stamp: int) -> bool:
    return False


def all_of(stamp: int) -> bool:
    return True


def hours(first: int, last: int) -> Lost:
    """The points of these hours after START."""
    return lambda stamp: hour(first) < stamp <= hour(last)


def true_points(until: int) -> list[int]:
    return [int(stamp) for stamp in hourly(7, START, until - 60_000)]


def truly_empty(until: int) -> set[int]:
    """The numbers of the whole hours that the source has no point for."""
    full = {-(-stamp // HOUR_MS) for stamp in true_points(until)}
    return {n for n in range((until - START) // HOUR_MS - 1) if hour(n + 1) // HOUR_MS not in full}


EMPTY = truly_empty(NOW)
FULL = DAYS * 24


def test_the_sample_has_empty_hours_inside() -> None:
    assert EMPTY and min(EMPTY) > 2 and max(EMPTY) < FULL - 30


# Name, points that the first answer lacks, whether that is worth a warning.
FIRST_ANSWERS: dict[str, tuple[Lost, bool]] = {
    "empty arrays": (all_of, True),
    "one point at the end": (hours(-99, FULL - 3), True),
    "one point at the beginning": (lambda stamp: stamp > hour(-23), True),
    "one point in the middle": (lambda stamp: not hour(99) < stamp <= hour(100), True),
    "cut after a half": (lambda stamp: stamp > hour(FULL // 2), True),
    "begun in the middle": (lambda stamp: stamp < hour(FULL // 2), True),
    "the last five hours": (lambda stamp: stamp > hour(FULL - 5), False),
    "the first five hours": (lambda stamp: stamp < hour(5), False),
    "thirty hours inside": (hours(40, 70), True),
    "three hours inside": (hours(40, 43), False),
    "one hour inside": (hours(41, 42), False),
    "every tenth point": (lambda stamp: stamp // HOUR_MS % 10 == 0, True),
    "all but every fourth": (lambda stamp: stamp // HOUR_MS % 4 != 0, True),
    "two holes": (lambda stamp: hours(20, 24)(stamp) or hours(200, 204)(stamp), False),
}


@pytest.mark.parametrize("name", FIRST_ANSWERS)
def test_what_one_answer_lacks_comes_with_the_next(world: World, name: str) -> None:
    lost, worth_a_warning = FIRST_ANSWERS[name]
    first = world.backfill(lost)
    kept = [stamp for stamp in true_points(NOW) if not lost(stamp)]
    assert (first.empty, first.points) == (0, len(kept))
    assert world.landed() == kept
    assert first.silent > 0 and first.next_ms == NOW + HOUR_MS
    assert bool(first.warnings) is worth_a_warning
    assert {*world.states().values()} <= {"silent", "open"}
    # Also where the first price comes later, or none came.
    assert len(world.states()) >= first.silent
    # The sidecar states no hour as final that had no point.
    for _, sidecar in known_batches(world.context.workspace.landing):
        final = sum(end - start for start, end in sidecar.request["served_ms"])
        assert final <= len({-(-stamp // HOUR_MS) for stamp in kept}) * HOUR_MS

    second = world.backfill(after=1)
    until = world.clock()
    assert world.landed() == true_points(until)
    # An hour that both answers lacked between prices is confirmed, no other.
    assert set(world.states()) == truly_empty(until)
    assert second.warnings == ()

    world.backfill(after=1)
    world.backfill(after=1)
    states = world.states()
    assert {n: state for n, state in states.items() if n < FULL - 2} == dict.fromkeys(
        EMPTY, "empty"
    )
    world.source.ranges()
    world.backfill(after=0.1)
    ((start, _),) = world.source.ranges()
    assert start > hour(FULL - 48)  # only the new end


HOLES = {
    "an hour": (40, 41, True),
    "three hours": (40, 43, True),
    "23 hours": (40, 63, True),
    "24 hours": (40, 64, True),
    "25 hours": (40, 65, False),
    "30 hours": (40, 70, False),
    "without a price before": (-99, 5, False),
    "without a price after": (FULL - 6, FULL + 99, False),
    "all": (-99, FULL + 99, False),
}


@pytest.mark.parametrize("name", HOLES)
def test_two_answers_confirm_a_short_hole_between_prices(world: World, name: str) -> None:
    first, last, confirmed = HOLES[name]
    # Hours of the hole whose edges are full, so that its length is the stated one.
    assert not {first - 1, last} & EMPTY
    lost = hours(first, last)
    inside = {n for n in range(max(first, 0), min(last, FULL - 1)) if hour(n + 1) <= NOW - HOUR_MS}
    assert world.backfill(lost).empty == 0
    again = world.backfill(lost, after=0.99)
    assert again.empty == 0 and {world.states()[n] for n in inside} == {"silent"}
    found = world.backfill(lost, after=0.01)
    states = world.states()
    assert {states[n] for n in inside} == {"empty" if confirmed else "silent"}
    if confirmed:
        assert found.empty == len({*inside, *EMPTY})
        (gap,) = [
            g for g in find_gaps(world.context, clock=world.clock).gaps
            if g.start_ms <= hour(first) < g.end_ms
        ]  # fmt: skip
        assert (gap.asked_ms, gap.next_ms) == (NOW + HOUR_MS, None)


@pytest.mark.parametrize(("most", "confirmed"), [(0, 0), (1, 1), (29, 1), (30, 31), (48, 31)])
def test_the_setting_bounds_what_is_confirmed(tmp_path: Path, most: int, confirmed: int) -> None:
    def lost(stamp: int) -> bool:
        return hours(40, 70)(stamp) or hours(100, 101)(stamp)

    with Source() as source:
        world = World(tmp_path, source)
        world.context = context_of(
            tmp_path, f"source.base_url={source.base_url}", f"backfill.confirm_hours={most}"
        )
        until = {"until_ms": hour(130)}
        world.backfill(lost, **until)
        empty = len({n for n in EMPTY if n < 130 and not 40 <= n < 70}) if most else 0
        assert world.backfill(lost, after=1, **until).empty == confirmed + empty


def test_a_long_hole_costs_at_most_a_request_a_day(world: World) -> None:
    lost = hours(40, 70)
    requests = []
    for n in range(0, 24 * 5):
        world.source.ranges()
        result = world.backfill(lost, after=1 if n else 0)
        if any(start <= hour(70) for start, _ in world.source.ranges()):
            requests.append(n)
        else:
            assert result.next_ms is not None and result.next_ms > world.clock()
        assert result.calls == 1  # beside the new end it costs nothing
    # The second answer is the first after a pause of an hour; then 2, 4, 8, 16 and 24 hours.
    assert requests == [0, 1, 3, 7, 15, 31, 55, 79, 103]
    (gap,) = [g for g in find_gaps(world.context, clock=world.clock).gaps if g.start_ms == hour(40)]
    assert gap.missing == 30
    assert (gap.asked_ms, gap.next_ms) == (NOW + 103 * HOUR_MS, NOW + 127 * HOUR_MS)


def test_a_clock_that_was_ahead_stops_no_request(world: World) -> None:
    lost = hours(40, 70)
    world.backfill(lost, until_ms=hour(200))
    world.source.time += 900 * DAY_MS
    world.backfill(lost, from_ms=world.clock() - DAY_MS)
    world.source.time -= 899 * DAY_MS
    assert world.backfill(until_ms=hour(200)).points >= 29
    assert world.landed()[:30] == true_points(hour(200))[:30]


def poisoned(world: World) -> None:
    """A workspace of an earlier version, which believed an answer with one point."""
    stamp = true_points(NOW)[-30]
    landing = world.context.workspace.landing
    request = {
        "endpoint": "/coins/{id}/market_chart/range",
        "served_ms": [[START, NOW - HOUR_MS]],
        "young_ms": [[NOW - HOUR_MS, NOW]],
    }
    name = "bitcoin_prices_20261111_020000_hourly.csv"
    text = f"timestamp,price\n{stamp},40000.0\n"
    collected(landing, name, text, first_ms=stamp, last_ms=stamp, request=request)
    hour_of = [-(-stamp // HOUR_MS) * HOUR_MS - HOUR_MS, -(-stamp // HOUR_MS) * HOUR_MS]
    origins = {
        "simulated:7, bitcoin, usd": {"spans": [[START, NOW - HOUR_MS]], "filled": [hour_of]}
    }
    (landing / ".served.json").write_text(json.dumps({"format": 1, "origins": origins}))


def test_again_heals_what_an_earlier_version_believed(world: World) -> None:
    poisoned(world)
    believed = world.backfill(after=0.1)
    assert believed.points <= 1 and len(world.landed()) <= 2
    plan = pipeline.plan(world.context, from_ms=START, again=True, clock=world.clock)
    assert plan.points >= FULL
    # A plan changes nothing.
    assert world.backfill(until_ms=hour(FULL - 2)).idle
    healed = world.backfill(again=True)
    assert healed.points > FULL - 10
    assert world.landed() == true_points(world.clock())
    assert {*world.states().values()} == {"silent"}
    world.backfill(after=1)
    assert {n: s for n, s in world.states().items() if n < FULL} == dict.fromkeys(EMPTY, "empty")


def test_again_for_a_span_requests_its_hours_alone(world: World) -> None:
    poisoned(world)
    result = world.backfill(again=True, from_ms=hour(100) + 60_000, until_ms=hour(150))
    ((start, end),) = world.source.ranges()
    assert (start, end) == (hour(100), hour(150))
    wanted = [stamp for stamp in true_points(NOW) if hour(100) <= stamp <= hour(150)]
    assert result.points == len(wanted)
    assert [s for s in world.landed() if hour(100) <= s <= hour(150)] == wanted
    assert {n for n in world.states() if 100 <= n < 150} == {n for n in EMPTY if 100 <= n < 150}
    assert world.backfill(until_ms=hour(FULL - 2)).idle


def test_again_for_gaps_requests_what_is_confirmed_empty(world: World) -> None:
    lost = hours(40, 43)
    for after in (0, 1):
        world.backfill(lost, after=after)
    assert {world.states()[n] for n in (40, 41, 42)} == {"empty"}
    assert world.backfill(after=1, gaps_only=True, until_ms=hour(200)).idle
    result = world.backfill(gaps_only=True, again=True, until_ms=hour(200))
    assert result.points == len([s for s in true_points(NOW) if lost(s)])
    assert world.landed() == true_points(NOW + HOUR_MS)


@pytest.mark.parametrize("finished", [1, 2, 3])
def test_a_stopped_again_goes_on_with_a_plain_backfill(
    world: World, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    world.context = context_of(
        world.context.workspace.root,
        f"source.base_url={world.source.base_url}",
        "backfill.slice_days=3",
    )
    poisoned(world)
    world.source.ranges()
    whole = len(pipeline.plan(world.context, from_ms=START, again=True, clock=world.clock).slices)

    class Stopped(Exception):
        pass

    def stop(at: Any) -> str:
        if at.done == finished:
            raise Stopped
        return ""

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "progress_text", stop)
        with pytest.raises(Stopped):
            world.backfill(again=True)
    assert len(world.source.ranges()) == finished
    rest = world.backfill()
    assert rest.slices == len(world.source.ranges())
    # The newest slice has an end that is always fetched again.
    assert rest.slices == whole - finished + 1
    assert world.landed() == true_points(NOW)


def test_hours_that_the_data_set_holds_are_not_silent(world: World) -> None:
    # The source lacks 30 hours that a live collector has.
    from bitstorm.store.batch_writer import make_batch_writer
    from bitstorm.store.petastorm_io import BitcoinSchema

    times = np.array([hour(n) + 58 * 60_000 for n in range(40, 70)])
    with make_batch_writer(world.context.workspace.prices, BitcoinSchema) as writer:
        prices = Market(7).price(times).astype(np.float32)
        writer.write(pd.DataFrame({"timestamp": times, "price": prices}))
    until = {"until_ms": hour(200)}
    world.backfill(hours(40, 70), **until)
    world.backfill(hours(40, 70), after=1, **until)
    assert not {*range(40, 70)} & {*world.states()}
    assert world.backfill(hours(40, 70), after=48, **until).idle


def test_gaps_before_the_first_price_are_listed(world: World) -> None:
    world.backfill(all_of, from_ms=hour(200))
    found = find_gaps(world.context, clock=world.clock)
    assert (found.present, found.age_ms) == (0, None)
    # The newest slots are too young to be silent.
    assert found.missing == found.expected == FULL - 200
    shown = "\n".join(gaps_lines(found))
    assert "newest price  none" in shown and "2026-11-23T03:15:24Z" in shown


def test_a_start_and_days_exclude_each_other(world: World) -> None:
    with pytest.raises(UsageError, match="expected one of them"):
        world.backfill(days=3, from_ms=START)
    with pytest.raises(UsageError, match="expected a time before"):
        world.backfill(from_ms=NOW + HOUR_MS)


@pytest.mark.slow  # a workspace for each write step
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_fault_at_any_write_loses_and_doubles_no_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    steps = {name: getattr(os, name) for name in ("replace", "link")}
    for strike in range(1, 100):
        calls = [0]

        def step(name: str, *paths: Any, at: int = strike, calls: list[int] = calls) -> None:
            calls[0] += 1
            if calls[0] == at and not done:
                raise OSError(errno.EIO, "struck")
            steps[name](*paths)
            if calls[0] == at:
                raise OSError(errno.EIO, "struck")

        with Source() as source:
            world = World(tmp_path / str(strike), source)
            world.context = context_of(
                tmp_path / str(strike),
                f"source.base_url={source.base_url}",
                "backfill.slice_days=8",
            )
            with monkeypatch.context() as patch:
                for name in steps:
                    patch.setattr(os, name, partial(step, name))
                with contextlib.suppress(OSError):
                    world.backfill(hours(40, 43))
            assert world.landed() == [s for s in world.landed() if s in true_points(NOW)]
            world.backfill(hours(40, 43))
            lacking = [s for s in true_points(NOW) if not hours(40, 43)(s)]
            assert world.landed() == lacking
            assert {*world.states().values()} == {"silent"}
            world.backfill(after=1)
            assert world.landed() == true_points(NOW + HOUR_MS)
        if calls[0] < strike:
            break
    # Two slices: the silence, the sidecar, the rows, and what was answered.
    assert strike > 8
