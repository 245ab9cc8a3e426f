"""The team: fair shares, sums in the order of ranks, and an end that all hear of."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from multiprocessing import AuthenticationError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitstorm.core.errors import BrokenOff, DataError
from bitstorm.core.stopping import Stop
from bitstorm.model.team import ALONE, Ended, Hub, Team, joined


@given(st.integers(0, 1_000), st.integers(1, 12))
def test_shares_are_disjoint_complete_and_equal(count, size):
    shares = [[*range(count)][Team(rank, size).share(count)] for rank in range(size)]
    assert [place for share in shares for place in share] == [*range(count)]
    lengths = [len(share) for share in shares]
    assert max(lengths) - min(lengths) <= 1


def together(
    size: int, work: Callable[[Team], object], stop: Stop | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Each worker in a thread; the outcome of rank 0, and the reports."""
    reports: list[dict[str, Any]] = []
    with closing(Hub("localhost", size)) as hub, ThreadPoolExecutor(size) as pool:

        def worker(rank: int) -> None:
            with joined(("localhost", hub.port), hub.key, rank=rank, size=size) as team:
                work(team)

        def job() -> None:
            for ended in [pool.submit(worker, rank) for rank in range(size)]:
                ended.result()

        with ThreadPoolExecutor(1) as runner:
            try:
                running = runner.submit(job)
                return hub.serve(running, stop or Stop(), reports.append), reports
            finally:
                hub.close()


def test_sums_are_those_of_doubles_in_the_order_of_ranks():
    # Added in another order, these have another last bit.
    parts = np.random.default_rng(4).normal(size=(3, 50)).astype(np.float32) * [[1e6], [1], [1e-6]]
    found: dict[int, list[np.ndarray]] = {}
    turn = [threading.Event() for _ in range(4)]
    turn[3].set()

    def work(team: Team) -> None:
        # The last rank sends first.
        turn[team.rank + 1].wait()
        kernel, bias = parts[team.rank][:48].reshape(6, 8).copy(), parts[team.rank][48:].copy()
        turn[team.rank].set()
        loss = team.add([kernel, bias], 0.5 + team.rank)
        found[team.rank] = [kernel.ravel(), bias, np.array([loss])]
        if team.rank == 0:
            team.report({"epoch": 1})
        team.done({"rank": team.rank})

    assert together(3, work) == ({"rank": 0}, [{"epoch": 1}])
    total = (parts[0] + parts[1]) + parts[2]
    for kernel, bias, loss in found.values():
        assert np.array_equal(np.concatenate([kernel, bias]), total)
        assert loss == 4.5
    assert found.keys() == {0, 1, 2}
    assert ALONE.add([], 7.0) == 7.0


def test_the_driver_raises_the_error_of_a_worker():
    heard: list[str] = []

    def failing(error: Exception) -> Callable[[Team], None]:
        def work(team: Team) -> None:
            if team.rank == 1:
                raise error
            with pytest.raises(BrokenOff) as raised:
                team.add([], 1.0)
            heard.append(str(raised.value))

        return work

    with pytest.raises(DataError, match=r"^no windows$"):
        together(2, failing(DataError("no windows")))
    with pytest.raises(BrokenOff, match=r"^the disk is full: resume$"):
        together(2, failing(BrokenOff("the disk is full: resume")))
    with pytest.raises(Ended, match=r"^worker 2 of 2 failed with KeyError: 'x'$"):
        together(2, failing(KeyError("x")))
    assert heard == ["another worker or the driver has ended"] * 3


def test_a_closed_link_a_signal_or_an_ended_job_ends_the_team():
    def lost(team: Team) -> None:
        if team.rank == 1:
            assert team._link is not None
            team._link.close()
        else:
            team.add([], 1.0)

    with pytest.raises(Ended, match=r"^worker 2 of 2 was killed, or had too little memory$"):
        together(2, lost)
    stopped = Stop()
    stopped.handle(signal.SIGTERM, None)
    with pytest.raises(Ended, match=r"^stopped by SIGTERM$"):
        together(2, lambda team: team.add([], 1.0), stopped)
    job: Future[None] = Future()
    job.set_exception(RuntimeError("no package"))
    with closing(Hub("localhost", 2)) as hub, pytest.raises(Ended, match=r"^no package$"):
        hub.serve(job, Stop(), print)


def test_without_the_key_there_is_no_link():
    with closing(Hub("localhost", 1)) as hub:
        with (
            pytest.raises((AuthenticationError, EOFError, OSError)),
            joined(("localhost", hub.port), b"guessed", rank=0, size=1),
        ):
            pass
        assert hub._links == {}
