"""GET requests that end: time-outs, retries within a deadline, a cap on bodies, no key in sight."""

from __future__ import annotations

import http.client
import json
import math
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import NoReturn
from urllib.parse import quote, urlsplit

import requests
import urllib3

from bitstorm.collect.coingecko.error_responses import said
from bitstorm.collect.coingecko.rate_limit import RateLimit
from bitstorm.core.errors import BadAnswer, RateLimited, Unreachable, UsageError
from bitstorm.core.time import now_ms

MAX_BODY_BYTES = 64 * 2**20
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

_PIECE = 65536
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# First waits in seconds when the server names none; they double, up to the longest.
_FAULT_WAIT, _LIMIT_WAIT, _LONGEST_WAIT = 1.0, 5.0, 60.0
# Shorter waits are not worth a line on the terminal.
_TOLD_WAIT = 2.0


@dataclass(frozen=True)
class Reply:
    """A whole answer: `headers` with lower-case names, `body` decompressed; no key is in them."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Fault(Exception):
    """A try that failed in a way that may pass; `served` when its answer began with a 200."""

    def __init__(self, problem: str, *, served: bool = False) -> None:
        super().__init__(problem)
        self.served = served


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


@dataclass(repr=False, eq=False)
class Transport:
    """One host. Times in seconds; `deadline` is for one `get` with all its tries and waits.

    `sleep` and `monotonic` are replaceable for tests; `clock` (Unix ms) is what a server's
    `x-ratelimit-reset` is measured against. `meter` holds the calls to our own limits: its waits
    are not the server's, so the deadline stands still meanwhile. `tell` hears of waits; `secret`
    is taken out of every answer, so that nothing further on can repeat it. `calls` counts requests.
    """

    base_url: str
    headers: Mapping[str, str]
    connect_timeout: float
    read_timeout: float
    deadline: float
    retries: int
    meter: RateLimit | None = None
    tell: Callable[[str], None] | None = None
    secret: str | None = None
    clock: Callable[[], int] = now_ms
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    calls: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._base_url = self.base_url.rstrip("/")
        secret = self.secret
        # As it is, as JSON writes it, and as a URL does.
        self._secrets = (
            {secret, json.dumps(secret)[1:-1], quote(secret, safe="")} if secret else set()
        )
        self._session = requests.Session()
        # A proxy of the environment is for other hosts than this machine's own.
        self._session.trust_env = not is_loopback(self.base_url)
        self._session.headers.clear()
        self._session.headers.update(self.headers)

    @property
    def host(self) -> str:
        """Host and port, without whatever else the URL may hold."""
        return urlsplit(self._base_url).netloc.rpartition("@")[2]

    def close(self) -> None:
        self._session.close()

    def get(self, path: str, params: Mapping[str, str]) -> Reply:
        """The first answer that is not a passing fault, whatever its status.

        Retries connection faults, broken bodies, 408, 429 and server errors. Raises RateLimited or
        Unreachable when tries or time run out, BadAnswer for a redirect or a body that is too big,
        and what the meter raises.
        """
        until = self.monotonic() + self.deadline
        for tried in range(self.retries + 1):
            asked: float | None = None
            status = 0
            until += self._own_limit()
            try:
                reply = self._once(path, params, until)
            except _Fault as fault:
                problem = str(fault)
                if not fault.served:
                    self._give_back()
            else:
                if reply.status != 200:
                    self._give_back()
                if reply.status not in TRANSIENT:
                    return reply
                status = reply.status
                words = said(reply.body).message
                problem = f"HTTP {status}" + (f', "{words}"' if words else "")
                asked = wait_asked(reply.headers, self.clock())
            wait = own_wait(tried, status=status) if asked is None else asked
            left = until - self.monotonic()
            if tried == self.retries or wait >= left:
                self._give_up(status, problem, tried + 1, asked, left)
            self._wait(wait, f"{self.host}: {problem}")
        raise AssertionError("the loop returns or raises")

    def _own_limit(self) -> float:
        """Wait for a token of our own bucket; the seconds that it took."""
        if self.meter is None:
            return 0.0
        began = self.monotonic()
        wait = self.meter.take()
        if wait > 0:
            limit = self.meter.limits.calls_per_minute
            try:
                self._wait(wait, f"our limit is {limit} calls a minute (source.calls_per_minute)")
            except BaseException:
                self._give_back()  # interrupted: the call is not made
                raise
        return self.monotonic() - began

    def _give_back(self) -> None:
        if self.meter is not None:
            self.meter.give_back()

    def _wait(self, seconds: float, why: str) -> None:
        if self.tell is not None and seconds >= _TOLD_WAIT:
            self.tell(f"    waiting {math.ceil(seconds)} s: {why}")
        self.sleep(seconds)

    def _once(self, path: str, params: Mapping[str, str], until: float) -> Reply:
        left = until - self.monotonic()
        if left <= 0:
            raise _Fault("the deadline is over")
        self.calls += 1
        try:
            response = self._session.get(
                self._base_url + path,
                params=dict(params),
                timeout=(min(self.connect_timeout, left), min(self.read_timeout, left)),
                stream=True,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            if isinstance(error, ValueError):
                raise UsageError(
                    f"source.base_url is no address that can be asked ({type(error).__name__}); "
                    "expected such as https://api.coingecko.com/api/v3"
                ) from None
            raise _Fault(_cause(error)) from None
        with response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            for form in self._secrets:
                headers = {name: value.replace(form, "*") for name, value in headers.items()}
            if response.is_redirect:
                target = urlsplit(headers.get("location", "")).netloc.rpartition("@")[2]
                raise BadAnswer(
                    f"{self.host} redirects to {target or 'another path'}, which is not followed; "
                    "set source.base_url to the right address"
                )
            body = self._body(response, until)
            for form in self._secrets:
                body = body.replace(form.encode(), b"*")
            return Reply(response.status_code, headers, body)

    def _body(self, response: requests.Response, until: float) -> bytes:
        """The body piece by piece: a server that trickles is held to the deadline as well."""
        pieces: list[bytes] = []
        size = 0
        try:
            while piece := response.raw.read1(_PIECE, decode_content=True):
                pieces.append(piece)
                size += len(piece)
                if size > MAX_BODY_BYTES:
                    raise BadAnswer(
                        f"the answer of {self.host} is larger than {MAX_BODY_BYTES >> 20} MiB, "
                        "which no market chart is; check source.base_url"
                    )
                if self.monotonic() > until:
                    raise _Fault(
                        "the answer is too slow for the deadline",
                        served=response.status_code == 200,
                    )
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise _Fault(
                f"the answer breaks off ({_cause(error)})", served=response.status_code == 200
            ) from None
        return b"".join(pieces)

    def _give_up(
        self, status: int, problem: str, tries: int, asked: float | None, left: float
    ) -> NoReturn:
        times = "once" if tries == 1 else f"{tries} times"
        if status == 429:
            told = ""
            if asked is not None:
                told = f" and wants a wait of {math.ceil(asked)} s"
                if asked >= left:
                    told += f", more than source.deadline_seconds leaves ({max(left, 0):.0f} s)"
            raise RateLimited(
                f"{self.host} refuses for too many requests{told} (asked {times}; {problem}); "
                "try again later, or use a plan with a higher limit",
                retry_after=asked,
            )
        raise Unreachable(
            f"{self.host} gives no usable answer (asked {times}; last: {problem}); check the "
            "network and source.base_url, or try again later"
        )


def wait_asked(headers: Mapping[str, str], now_ms: int) -> float | None:
    """Seconds that the server asks to wait: `retry-after`, else `x-ratelimit-reset`, else None.

    The first is seconds or an HTTP date, the second is like `2026-03-09 03:28:00 +0000`. What
    cannot be read counts as not said.
    """
    text = headers.get("retry-after")
    if text is not None:
        try:
            return max(0.0, _retry_after(text.strip(), now_ms))
        except (ValueError, OverflowError):
            pass
    text = headers.get("x-ratelimit-reset")
    if text is not None:
        try:
            moment = datetime.strptime(text.strip(), "%Y-%m-%d %H:%M:%S %z")
        except ValueError:
            return None
        return max(0.0, moment.timestamp() - now_ms / 1000)
    return None


def own_wait(tried: int, *, status: int) -> float:
    """Seconds to wait when the server names none, after `tried` tries before: doubled, jittered."""
    first = _LIMIT_WAIT if status == 429 else _FAULT_WAIT
    longest: float = min(_LONGEST_WAIT, first * 2.0**tried)
    return longest * random.uniform(0.5, 1.0)


def _retry_after(text: str, now_ms: int) -> float:
    if text.isascii() and text.isdigit():
        return float(text)
    return parsedate_to_datetime(text).timestamp() - now_ms / 1000


_CAUSES: tuple[tuple[type[BaseException], str], ...] = (
    (urllib3.exceptions.NameResolutionError, "its name is not known"),
    (ssl.SSLCertVerificationError, "its certificate is not trusted"),
    (ConnectionRefusedError, "connection refused"),
    (ConnectionResetError, "connection reset"),
    (urllib3.exceptions.NewConnectionError, "no connection"),
    (urllib3.exceptions.ConnectTimeoutError, "no connection in time"),
    (urllib3.exceptions.ReadTimeoutError, "no answer in time"),
    (http.client.RemoteDisconnected, "closed without an answer"),
    (http.client.IncompleteRead, "shorter than announced"),
    (urllib3.exceptions.DecodeError, "not the compression it says"),
)


def _cause(error: BaseException) -> str:
    """Why a connection failed, in words that hold no URL and no header."""
    chain = [error]
    for link in chain:
        inner = (getattr(link, "reason", None), link.__cause__, link.__context__, *link.args)
        chain += [e for e in inner if isinstance(e, BaseException) and e not in chain]
    for kind, words in _CAUSES:
        if any(isinstance(link, kind) for link in chain):
            return words
    return type(chain[-1]).__name__
