"""Workers that train one network together: they add up their gradients over the driver.

Each worker sends its numbers as doubles. The `Hub` in the driver adds them in the order of ranks
and sends everyone the same sum, so all workers take the same step, and a resumed training has the
same bits. No worker takes a step without the driver, so a killed driver leaves none that still
writes. A link needs the hub's key, and nothing that comes over it is unpickled.
"""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any

import numpy as np

from bitstorm.core.errors import BitstormError, BrokenOff, DataError, ModelError
from bitstorm.core.stopping import Stop

Address = tuple[str, int]

_SUM, _REPORT, _DONE, _FAILED = b"s", b"r", b"d", b"f"
_ERRORS = {error.__name__: error for error in (BrokenOff, DataError, ModelError)}
_NAP_SECONDS = 0.2


class Ended(Exception):
    """The work ended early; the text is a reason, in a clause."""


class Team:
    """The worker `rank` (from 0) of `size`, with its link to the hub."""

    def __init__(self, rank: int = 0, size: int = 1, link: Connection | None = None) -> None:
        self.rank, self.size, self._link = rank, size, link

    def share(self, count: int) -> slice:
        """The places of this worker among `count` windows. The shares of all workers are disjoint,
        complete, in order, and differ by one window at most."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def add(self, arrays: Sequence[np.ndarray], number: float) -> float:
        """Replace each value of the arrays by its sum over all workers; the sum of the numbers.
        Raises BrokenOff where another worker or the driver has ended."""
        if self._link is None:
            return number
        flat = np.concatenate([[number], *(values.ravel() for values in arrays)], dtype=np.float64)
        try:
            self._link.send_bytes(_SUM + flat.tobytes())
            sums = np.frombuffer(self._link.recv_bytes())
        except (EOFError, OSError) as error:
            raise BrokenOff("another worker or the driver has ended") from error
        at = 1
        for values in arrays:
            values[...] = sums[at : at + values.size].reshape(values.shape)
            at += values.size
        return float(sums[0])

    def report(self, what: Mapping[str, Any]) -> None:
        """Send the driver how far the work is."""
        self._send(_REPORT, json.dumps(what))

    def done(self, outcome: Mapping[str, Any]) -> None:
        """End the work well."""
        self._send(_DONE, json.dumps(outcome))

    def failed(self, error: Exception) -> None:
        """End the work with an error."""
        self._send(_FAILED, f"{type(error).__name__} {error}")

    def _send(self, kind: bytes, text: str) -> None:
        # A link that is closed ends the next `add`.
        with suppress(OSError):
            assert self._link is not None
            self._link.send_bytes(kind + text.encode())


ALONE = Team()


@contextmanager
def joined(address: Address, key: bytes, *, rank: int, size: int) -> Iterator[Team]:
    """The team of the hub at this address, for the block. The driver hears of an error in it; the
    block swallows Bitstorm's own."""
    with Client(address, authkey=key) as link:
        link.send_bytes(str(rank).encode())
        team = Team(rank, size, link)
        try:
            yield team
        except BitstormError as error:
            team.failed(error)
        except Exception as error:
            team.failed(error)
            raise


class Hub:
    """The driver's side of a team of `size` workers, which reach it at `address` with `key`."""

    def __init__(self, host: str, size: int) -> None:
        self.key, self._size = secrets.token_bytes(32), size
        self._links: dict[Connection, int] = {}
        self._listener = Listener((host, 0), backlog=size, authkey=self.key)
        self.port = int(self._listener.address[1])
        self._host, self._open = host, True
        threading.Thread(target=self._accept, name="bitstorm-hub", daemon=True).start()

    def _accept(self) -> None:
        while self._open:
            with suppress(OSError, EOFError, ValueError, AuthenticationError):
                link = self._listener.accept()
                self._links[link] = int(link.recv_bytes())

    def serve(
        self, job: Future[None], stop: Stop, report: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """Add up until all workers are done; the outcome of rank 0.

        Raises Ended after a signal, where a worker is killed, and where `job`, which runs them, has
        ended; else the error of a worker.
        """
        outcomes: dict[int, dict[str, Any]] = {}
        parts: dict[Connection, np.ndarray] = {}
        while len(outcomes) < self._size:
            if stop.signal is not None:
                raise Ended(f"stopped by {stop.signal}")
            ready = wait([*self._links], _NAP_SECONDS)
            if not ready and job.done():
                raise Ended(str(job.exception() or "its workers have ended"))
            for link in ready:
                assert isinstance(link, Connection)
                kind, content = self._received(link)
                if kind == _SUM:
                    parts[link] = np.frombuffer(content)
                elif kind == _REPORT:
                    report(json.loads(content))
                elif kind == _DONE:
                    outcomes[self._links.pop(link)] = json.loads(content)
                else:
                    raise self._failure(link, content.decode())
            if len(parts) == self._size:
                self._answer(parts)
                parts.clear()
        return outcomes[0]

    def close(self) -> None:
        """Close all links, which ends the workers that are left."""
        self._open = False
        # The thread waits for a link, also after the listener is closed.
        with suppress(OSError):
            socket.create_connection((self._host, self.port)).close()
        self._listener.close()
        for link in self._links:
            link.close()

    def _received(self, link: Connection) -> tuple[bytes, bytes]:
        try:
            message = link.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._gone(link) from error
        return message[:1], message[1:]

    def _answer(self, parts: Mapping[Connection, np.ndarray]) -> None:
        ordered = sorted(parts, key=lambda link: self._links[link])
        total = sum(parts[link] for link in ordered)
        assert isinstance(total, np.ndarray)
        for link in ordered:
            try:
                link.send_bytes(total.tobytes())
            except OSError as error:
                raise self._gone(link) from error

    def _gone(self, link: Connection) -> Ended:
        name = self._name(link)
        return Ended(f"{name} was killed, or had too little memory")

    def _failure(self, link: Connection, text: str) -> Exception:
        name, _, message = text.partition(" ")
        if name in _ERRORS:
            return _ERRORS[name](message)
        return Ended(f"{self._name(link)} failed with {name}: {message}")

    def _name(self, link: Connection) -> str:
        return f"worker {self._links[link] + 1} of {self._size}"
