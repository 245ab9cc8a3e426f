"""A backfill lands every point of its span once, asks only for what is missing, and resumes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.collect import backfill as history
from bitstorm.collect.backfill import Backfilled, BackfillRequest, Planned, Progress
from bitstorm.collect.batches import known_batches
from bitstorm.collect.coingecko.client import CoinGecko
from bitstorm.collect.coingecko.transport import TransportOptions
from bitstorm.collect.live import collect_once
from bitstorm.core.errors import BadAnswer, HistoryTooOld, Unreachable, UsageError
from bitstorm.core.time import DAY_MS, HOUR_MS, Span, cut, minus
from bitstorm.simulator.market import Market, hourly
from collect.faulty_server import NOW_MS, Waits, answering, http
from simulator.watched import Simulator

BITCOIN: dict[str, Any] = {"coin": "bitcoin", "vs_currency": "usd"}


def backfill(
    client: CoinGecko,
    landing: Path,
    *,
    clock: Callable[[], int],
    progress: Callable[[Progress], None] = lambda progress: None,
    **wanted: Any,
) -> Backfilled:
    return history.backfill(
        client, landing, BackfillRequest(**wanted), clock=clock, progress=progress
    )


def plan_backfill(
    client: CoinGecko, landing: Path, *, clock: Callable[[], int], **wanted: Any
) -> Planned:
    return history.plan_backfill(client, landing, BackfillRequest(**wanted), clock=clock)


class World:
    """A simulator and a client on one clock that a test may set."""

    def __init__(self, simulator: Simulator, client: CoinGecko) -> None:
        self.simulator, self.client = simulator, client
        self.now_ms = NOW_MS

    def clock(self) -> int:
        return self.now_ms

    def ranges(self) -> list[tuple[int, int]]:
        """(from, to) in seconds of the ranges asked since the last time."""
        asked = [
            dict(part.split("=") for part in request.query.split("&"))
            for request in self.simulator.requests
            if request.path.endswith("/range")
        ]
        self.simulator.requests.clear()
        return [(int(query["from"]), int(query["to"])) for query in asked]


@contextmanager
def world_of(market: Market, plan: Any = "keyless") -> Iterator[World]:
    worlds: list[World] = []

    def clock() -> int:
        return worlds[0].now_ms if worlds else NOW_MS

    key = None if plan == "keyless" else "CG-x"
    with (
        Simulator(market, clock=clock, plan=plan) as simulator,
        CoinGecko(
            base_url=simulator.base_url,
            plan=plan,
            api_key=key,
            options=TransportOptions(clock=clock),
        ) as client,
    ):
        worlds.append(World(simulator, client))
        yield worlds[0]


@pytest.fixture
def world(market: Market) -> Iterator[World]:
    with world_of(market) as opened:
        yield opened


def landed(landing: Path) -> pd.DataFrame:
    """All rows of all batches, as they were written."""
    frames = [pd.read_csv(path) for path, _ in known_batches(landing)]
    return pd.concat(frames).sort_values("timestamp", ignore_index=True)


def expected(start: int, end: int) -> list[int]:
    return [int(s) for s in hourly(7, start, end) if start <= s < end]


def test_a_year_lands_every_hourly_point_once_with_its_price(
    world: World, market: Market, tmp_path: Path
) -> None:
    begun = time.process_time()
    result = backfill(world.client, tmp_path, **BITCOIN, days=364, clock=world.clock)
    assert time.process_time() - begun < 3
    rows = landed(tmp_path)
    start = -(-(NOW_MS - 364 * DAY_MS) // HOUR_MS) * HOUR_MS
    assert rows["timestamp"].tolist() == expected(start, NOW_MS)
    assert rows["price"].tolist() == market.price(rows["timestamp"].to_numpy()).tolist()
    assert result.points == len(rows)
    assert result.calls == result.slices == len(result.batches) == 5
    assert result.source == "simulated:7"


def test_more_than_a_year_without_a_paid_key_is_clamped(world: World, tmp_path: Path) -> None:
    result = backfill(world.client, tmp_path, **BITCOIN, days=1000, clock=world.clock)
    assert result.clamped
    assert 0 <= result.wanted.start - (NOW_MS - 364 * DAY_MS) < HOUR_MS
    assert not plan_backfill(world.client, tmp_path, **BITCOIN, days=30, clock=world.clock).clamped


def test_a_paid_key_reaches_back_further(market: Market, tmp_path: Path) -> None:
    with world_of(market, "pro") as world:
        result = backfill(world.client, tmp_path, **BITCOIN, days=700, clock=world.clock)
    assert not result.clamped
    assert landed(tmp_path)["timestamp"].min() < NOW_MS - 699 * DAY_MS


def test_a_second_call_asks_only_for_the_end(world: World, tmp_path: Path) -> None:
    backfill(world.client, tmp_path, **BITCOIN, days=200, clock=world.clock)
    before = sorted(tmp_path.iterdir())
    world.ranges()
    again = backfill(world.client, tmp_path, **BITCOIN, days=200, clock=world.clock)
    assert (again.slices, again.points, again.batches) == (1, 0, ())
    ((first, last),) = world.ranges()
    assert last - first == 2 * 86_400  # padded: a shorter range may come in another granularity
    assert sorted(tmp_path.iterdir()) == before


def test_later_runs_together_land_what_one_run_would(world: World, tmp_path: Path) -> None:
    for hours in (0, 1, 2, 3, 30, 31, 100):
        world.now_ms = NOW_MS + hours * HOUR_MS + hours * 60_000
        backfill(world.client, tmp_path, **BITCOIN, days=20, clock=world.clock)
    rows = landed(tmp_path)["timestamp"].tolist()
    start = (NOW_MS - 20 * DAY_MS) // HOUR_MS * HOUR_MS
    assert rows == expected(start, world.now_ms)


def test_a_broken_run_keeps_its_slices_and_the_next_goes_on(world: World, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise Stopped

    with pytest.raises(Stopped):
        backfill(world.client, tmp_path, **BITCOIN, days=300, clock=world.clock, progress=stop)
    assert len(list(known_batches(tmp_path))) == 2
    first = world.ranges()
    world.now_ms += 5 * 60_000
    result = backfill(world.client, tmp_path, **BITCOIN, days=300, clock=world.clock)
    second = world.ranges()
    # The newest slice's end is asked again; of the others none that has landed.
    assert not set(second) & set(first)
    assert result.slices == len(second) == 3
    rows = landed(tmp_path)["timestamp"].tolist()
    assert rows == expected((NOW_MS - 300 * DAY_MS) // HOUR_MS * HOUR_MS, world.now_ms)


def test_progress_counts_slices_and_points(world: World, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = backfill(
        world.client, tmp_path, **BITCOIN, days=200, clock=world.clock, progress=seen.append
    )
    assert [(p.done, p.total) for p in seen] == [(n, len(seen)) for n in range(1, len(seen) + 1)]
    assert seen[-1].points == result.points
    assert seen[-1].lacking == result.silent > 0
    assert [p.calls for p in seen] == [p.done for p in seen]
    assert [p.span.start for p in seen] == sorted((p.span.start for p in seen), reverse=True)


def test_until_ends_the_history_in_the_past_for_good(world: World, tmp_path: Path) -> None:
    until = NOW_MS - 100 * DAY_MS
    arguments = {**BITCOIN, "days": 10, "until_ms": until, "clock": world.clock}
    backfill(world.client, tmp_path, **arguments)
    rows = landed(tmp_path)["timestamp"].tolist()
    assert rows == expected((until - 10 * DAY_MS) // HOUR_MS * HOUR_MS, until)
    again = backfill(world.client, tmp_path, **arguments)
    assert (again.slices, again.calls) == (0, 0)


def test_more_days_later_fetch_only_the_older_ones(world: World, tmp_path: Path) -> None:
    until = NOW_MS - 10 * DAY_MS
    backfill(world.client, tmp_path, **BITCOIN, days=5, until_ms=until, clock=world.clock)
    world.ranges()
    backfill(world.client, tmp_path, **BITCOIN, days=9, until_ms=until, clock=world.clock)
    ((_, last),) = world.ranges()
    assert last * 1000 < until - 4 * DAY_MS
    rows = landed(tmp_path)["timestamp"].tolist()
    assert rows == expected((until - 9 * DAY_MS) // HOUR_MS * HOUR_MS, until)


def test_a_short_span_at_the_old_edge_is_padded_towards_now(world: World, tmp_path: Path) -> None:
    until = NOW_MS - 364 * DAY_MS + 5 * HOUR_MS
    backfill(world.client, tmp_path, **BITCOIN, days=1, until_ms=until, clock=world.clock)
    ((first, last),) = world.ranges()
    assert last - first == 2 * 86_400
    rows = landed(tmp_path)["timestamp"].tolist()
    assert rows == expected(-(-(NOW_MS - 364 * DAY_MS) // HOUR_MS) * HOUR_MS, until)


def test_another_source_in_the_same_landing_does_not_count(world: World, tmp_path: Path) -> None:
    backfill(world.client, tmp_path, **BITCOIN, days=30, clock=world.clock)
    with world_of(Market(8)) as other:
        result = backfill(other.client, tmp_path, **BITCOIN, days=30, clock=other.clock)
    assert result.points == pytest.approx(720, abs=20)


def test_live_batches_do_not_count_as_history(world: World, tmp_path: Path) -> None:
    collect_once(world.client, tmp_path, **BITCOIN, clock=world.clock)
    result = backfill(world.client, tmp_path, **BITCOIN, days=30, clock=world.clock)
    assert result.points == pytest.approx(720, abs=20)


def test_the_plan_alone_asks_for_no_prices(world: World, tmp_path: Path) -> None:
    plan = plan_backfill(world.client, tmp_path, **BITCOIN, days=300, clock=world.clock)
    assert plan.wanted == Span((NOW_MS - 300 * DAY_MS) // HOUR_MS * HOUR_MS, NOW_MS)
    assert world.ranges() == []
    assert list(tmp_path.iterdir()) == []


def test_days_that_make_no_sense_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 days"):
        backfill(world.client, tmp_path, **BITCOIN, days=0, clock=world.clock)
    with pytest.raises(HistoryTooOld, match="--until"):
        backfill(
            world.client,
            tmp_path,
            **BITCOIN,
            days=5,
            until_ms=NOW_MS - 400 * DAY_MS,
            clock=world.clock,
        )


def test_daily_points_where_hourly_were_asked_are_refused(tmp_path: Path) -> None:
    days = [[NOW_MS // DAY_MS * DAY_MS - n * DAY_MS, 1.5] for n in range(20, 0, -1)]
    body = str({"prices": days, "market_caps": [], "total_volumes": []}).replace("'", '"')
    pong = http("200 OK", b'{"gecko_says":"(V3) To the Moon!"}')
    with (
        answering([pong, http("200 OK", body.encode())]) as url,
        CoinGecko(base_url=url, options=TransportOptions(clock=lambda: NOW_MS)) as client,
        pytest.raises(BadAnswer, match="one in 1d"),
    ):
        backfill(client, tmp_path, **BITCOIN, days=20, clock=lambda: NOW_MS)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_dies_is_an_error_and_the_slices_stay(
    world: World, tmp_path: Path, waits: Waits
) -> None:
    def die(progress: Progress) -> None:
        world.simulator.stop()

    with (
        CoinGecko(
            base_url=world.simulator.base_url,
            options=TransportOptions(
                clock=world.clock, sleep=waits.sleep, monotonic=waits.monotonic
            ),
        ) as client,
        pytest.raises(Unreachable),
    ):
        backfill(client, tmp_path, **BITCOIN, days=200, clock=world.clock, progress=die)
    assert len(list(known_batches(tmp_path))) == 1


def test_a_slice_without_any_point_is_asked_for_again_later(tmp_path: Path) -> None:
    nothing = http("200 OK", b'{"prices":[],"market_caps":[],"total_volumes":[]}')
    pong = http("200 OK", b'{"gecko_says":"(V3) To the Moon!"}')
    until = NOW_MS - 100 * DAY_MS
    with (
        answering([pong, nothing, nothing]) as url,
        CoinGecko(base_url=url, options=TransportOptions(clock=lambda: NOW_MS)) as client,
    ):
        arguments = {**BITCOIN, "days": 3, "until_ms": until, "clock": lambda: NOW_MS}
        first = backfill(client, tmp_path, **arguments)
        assert (first.slices, first.points, first.batches) == (1, 0, ())
        # The 72 hours, and the one of which a part was wanted.
        assert (first.empty, first.silent, first.next_ms) == (0, 73, NOW_MS + HOUR_MS)
        (warning,) = first.warnings
        assert "has prices for 0 of" in warning
        again = backfill(client, tmp_path, **arguments)
        assert (again.slices, again.calls, again.idle, again.silent) == (0, 0, True, 73)
        arguments["clock"] = lambda: NOW_MS + HOUR_MS
        later = backfill(client, tmp_path, **arguments)
        assert (later.slices, later.empty, later.silent) == (1, 0, 73)
        assert later.next_ms == NOW_MS + 3 * HOUR_MS


def test_scattered_gaps_take_as_few_calls_as_slices_hold(world: World, tmp_path: Path) -> None:
    start = (NOW_MS - 200 * DAY_MS) // HOUR_MS * HOUR_MS
    hours = [Span(start + n * HOUR_MS, start + (n + 1) * HOUR_MS) for n in range(200 * 24)]
    # Every fifth hour is missing from the data set, and the last one, which is not over.
    known = [span for n, span in enumerate(hours) if n % 5]
    result = backfill(world.client, tmp_path, **BITCOIN, days=200, known=known, clock=world.clock)
    assert result.calls == result.slices <= 4
    wanted = {span.start for span in hours[::5]}
    rows = landed(tmp_path)["timestamp"]
    assert set(rows // HOUR_MS * HOUR_MS) <= wanted | {NOW_MS // HOUR_MS * HOUR_MS}
    at = [s for s in expected(start, NOW_MS) if s // HOUR_MS * HOUR_MS in wanted]
    assert [s for s in rows if s // HOUR_MS * HOUR_MS in wanted] == at


def test_an_hour_that_was_too_young_is_asked_for_again(world: World, tmp_path: Path) -> None:
    # Of two points in an hour the second comes after the first has been fetched and ingested.
    seen = expected(NOW_MS - 300 * DAY_MS, NOW_MS)
    first, second = next(
        (a, b) for a, b in pairwise(seen) if a // HOUR_MS == b // HOUR_MS and b - a > 300_000
    )
    hour = Span(first // HOUR_MS * HOUR_MS, first // HOUR_MS * HOUR_MS + HOUR_MS)
    world.now_ms = second - 120_000
    backfill(world.client, tmp_path, **BITCOIN, days=3, clock=world.clock)
    assert second not in set(landed(tmp_path)["timestamp"])
    world.now_ms = second + 3 * HOUR_MS
    known = [Span(hour.start - 2 * DAY_MS, hour.end)]
    backfill(world.client, tmp_path, **BITCOIN, days=3, known=known, clock=world.clock)
    rows = landed(tmp_path)["timestamp"].tolist()
    assert second in rows
    assert len(rows) == len(set(rows))


# The arithmetic of spans, against sets of whole moments

moments = st.integers(0, 60)
spans = st.tuples(moments, moments).map(lambda pair: Span(min(pair), max(pair)))


@given(spans, st.lists(spans, max_size=6))
def test_what_is_missing_is_what_nothing_covers(wanted: Span, covered: list[Span]) -> None:
    missing = minus([wanted], covered)
    held = {moment for span in covered for moment in range(*span)}
    assert sorted(m for span in missing for m in range(*span)) == sorted(set(range(*wanted)) - held)
    assert all(span.start < span.end for span in missing)


@given(spans.filter(lambda span: span.start < span.end), st.integers(1, 20))
def test_a_cut_loses_nothing_and_is_the_same_on_any_day(span: Span, every: int) -> None:
    pieces = cut(span, every=every)
    assert [m for piece in pieces for m in range(*piece)] == list(range(*span))
    assert all(piece.start % every == 0 for piece in pieces[1:])
    assert all(0 < piece.end - piece.start <= every for piece in pieces)
