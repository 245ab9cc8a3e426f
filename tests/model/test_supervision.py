"""Batches under supervision: in order, ahead of time, and never waited for without an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from bitstorm.errors import BrokenOff
from bitstorm.model import supervision
from bitstorm.model.supervision import Stop, Supervised


def supervised(source, *, stop=None, deadline_seconds=20.0, ahead=4):
    return Supervised(source, stop=stop or Stop(), deadline_seconds=deadline_seconds, ahead=ahead)


def still_drawing() -> bool:
    return any(thread.name == supervision.THREAD for thread in threading.enumerate())


def test_every_item_comes_once_and_in_order_and_then_the_end_again_and_again():
    with supervised(iter(range(1000))) as stream:
        assert list(stream) == list(range(1000))
        for _ in range(2):
            with pytest.raises(StopIteration):
                next(stream)
    assert not still_drawing()


def test_it_draws_ahead_but_no_further_than_it_may():
    drawn = []
    with supervised(drawn.append(n) or n for n in range(100)) as stream:
        assert next(stream) == 0
        until = time.monotonic() + 5
        while len(drawn) < 6 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)
        # One is handed over, four lie ready, and one is in the hand.
        assert len(drawn) == 6
    assert not still_drawing()


def test_the_first_error_is_raised_with_its_cause_and_at_once_ever_after():
    def source():
        yield 1
        raise OSError("part-00000.parquet is gone")

    with supervised(source()) as stream:
        assert next(stream) == 1
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(BrokenOff, match=r"part-00000\.parquet is gone") as broken:
                next(stream)
            assert isinstance(broken.value.__cause__, OSError)
            assert time.monotonic() - began < 1


def test_an_error_behind_a_full_queue_comes_after_what_was_drawn_before_it():
    def source():
        yield from range(4)
        raise ValueError("a worker failed")

    with supervised(source(), ahead=2) as stream:
        time.sleep(0.3)
        assert [next(stream) for _ in range(4)] == [0, 1, 2, 3]
        with pytest.raises(BrokenOff, match="a worker failed"):
            next(stream)


def test_a_source_that_hangs_is_given_up_after_the_deadline():
    hung = threading.Event()

    def source():
        yield 1
        hung.wait()

    began = time.monotonic()
    with supervised(source(), deadline_seconds=0.5) as stream:
        assert next(stream) == 1
        with pytest.raises(BrokenOff, match=r"no batch came for 0\.5 s"):
            next(stream)
        with pytest.raises(BrokenOff, match=r"no batch came"):
            next(stream)
        assert 0.5 <= stream.waited < 2
    assert time.monotonic() - began < 5
    hung.set()


def test_a_source_is_closed_in_its_thread_when_nobody_wants_more():
    ended = []

    def source():
        try:
            while True:
                yield 1
        finally:
            ended.append(threading.current_thread().name)

    with supervised(source()) as stream:
        next(stream)
    assert ended == [supervision.THREAD]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_wait_for_a_source_that_hangs(number):
    hung = threading.Event()

    def source():
        yield 1
        hung.wait()

    stop = Stop()
    handlers = [signal.getsignal(n) for n in supervision.SIGNALS]
    with stop.installed(lambda name: None), supervised(source(), stop=stop) as stream:
        next(stream)
        threading.Timer(0.3, os.kill, (os.getpid(), number)).start()
        began = time.monotonic()
        with pytest.raises(BrokenOff, match=f"stopped by {number.name}"):
            next(stream)
        assert time.monotonic() - began < 2
    assert [signal.getsignal(n) for n in supervision.SIGNALS] == handlers
    hung.set()


def test_a_second_signal_is_not_asked_to_wait():
    stop = Stop()
    with stop.installed(lambda name: None):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal == "SIGTERM"


def test_a_main_thread_that_does_not_come_back_is_told_of_from_another(monkeypatch):
    monkeypatch.setattr(supervision, "GRACE_SECONDS", 0.2)
    told = []
    with Stop().installed(lambda name: told.append((name, threading.current_thread().name))):
        os.kill(os.getpid(), signal.SIGTERM)
        until = time.monotonic() + 5
        while not told and time.monotonic() < until:
            time.sleep(0.01)
    assert told == [("SIGTERM", "bitstorm-signals")]


LEAVING = """
    import sys, threading
    from bitstorm import cli
    from bitstorm.errors import BrokenOff
    from bitstorm.model.supervision import Stop, Supervised

    @cli.bitstorm.command()
    @cli._options
    def hang(invocation):
        # Not a daemon: what Python would wait for, for ever.
        def source():
            other = threading.Thread(target=threading.Event().wait)
            other.start()
            yield other.join()

        with Supervised(source(), stop=Stop(), deadline_seconds=0.2) as stream:
            next(stream)

    cli.main(["hang"])
"""


def test_a_command_ends_though_a_reader_hangs():
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LEAVING)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr == ("bitstorm: no batch came for 0.2 s (training.deadline_seconds)\n")
    assert time.monotonic() - began < 20
