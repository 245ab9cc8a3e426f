"""Signals: the first is noted, the second ends at once, and the block gives the handlers back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from bitstorm.core.errors import BrokenOff
from bitstorm.core.stopping import SIGNALS, Stop


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_noted_and_told_at_the_next_check(number):
    before = [signal.getsignal(one) for one in SIGNALS]
    stop = Stop()
    with stop.catch_signals():
        stop.check()
        os.kill(os.getpid(), number)
        with pytest.raises(BrokenOff, match=f"^stopped by {number.name}$"):
            stop.check()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_outside_of_the_main_thread_nothing_is_installed():
    before = [signal.getsignal(one) for one in SIGNALS]
    seen = []

    def inside():
        with Stop().catch_signals():
            seen.append([signal.getsignal(one) for one in SIGNALS])

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
