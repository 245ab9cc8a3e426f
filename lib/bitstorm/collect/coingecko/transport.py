"""GET requests that end: time-outs, retries within a deadline, a cap on bodies, a hidden key."""

from __future__ import annotations

import http.client
import json
import math
import random
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import NoReturn
from urllib.parse import quote, urlsplit

import requests
import urllib3

from bitstorm.collect.coingecko import route
from bitstorm.collect.coingecko.error_responses import error_details
from bitstorm.collect.coingecko.rate_limit import RateLimit
from bitstorm.core.errors import BadAnswer, EnvironmentProblem, RateLimited, Unreachable, UsageError
from bitstorm.core.time import now_ms

MAX_BODY_BYTES = 64 * 2**20
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

_PIECE = 65536
# First waits in seconds when the server names none; they double, up to the longest.
_FAULT_WAIT, _LIMIT_WAIT, _LONGEST_WAIT = 1.0, 5.0, 60.0
# A shorter wait gets no line on the terminal.
_REPORTED_WAIT = 2.0


@dataclass(frozen=True)
class Reply:
    """A whole answer: `headers` with lower-case names, `body` decompressed; the key is removed."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class _Fault(Exception):
    """A failed try that is worth another. `served`: its answer began with a 200; `sent`: the
    request may have left this machine."""

    def __init__(self, problem: str, *, served: bool = False, sent: bool = True) -> None:
        super().__init__(problem)
        self.served, self.sent = served, sent


@dataclass(frozen=True)
class TransportOptions:
    """Times are in seconds; `deadline` covers one `get` with all its tries and waits.

    `rate_limit` holds the calls to our own limits; the deadline stands still while it waits.
    `report` gets a line about each long wait. `clock` gives Unix ms.
    """

    connect_timeout: float = 5.0
    read_timeout: float = 60.0
    deadline: float = 300.0
    retries: int = 5
    rate_limit: RateLimit | None = None
    report: Callable[[str], None] = lambda text: None
    clock: Callable[[], int] = now_ms
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic


class Transport:
    """Requests to one `host` (and port); `calls` counts them.

    `secret` is removed from every answer, so that no message or file can repeat it.
    """

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        secret: str | None,
        options: TransportOptions,
    ) -> None:
        self.host = urlsplit(base_url).netloc.rpartition("@")[2]
        self.calls = 0
        self._base_url = base_url
        self._options = options
        # The key itself, its form in JSON, and its form in a URL.
        self._secrets = (
            {secret, json.dumps(secret)[1:-1], quote(secret, safe="")} if secret else set()
        )
        self._session = requests.Session()
        # A proxy of the environment cannot reach a server on this machine.
        self._session.trust_env = not route.is_loopback(base_url)
        self._session.headers.clear()
        self._session.headers.update(headers)

    def close(self) -> None:
        self._session.close()

    def get(self, path: str, params: Mapping[str, str]) -> Reply:
        """The first answer without a passing fault, whatever its status.

        Retries connection faults, broken bodies, 408, 429 and server errors. Raises RateLimited or
        Unreachable when tries or time run out, BadAnswer for a redirect or a body that is too big,
        EnvironmentProblem for a variable that lets no request out, and the errors of
        `RateLimit.take`.
        """
        if self._session.trust_env:
            route.check_route(self._base_url)
        options = self._options
        until = options.monotonic() + options.deadline
        tries = 0
        while True:
            tries += 1
            server_says: float | None = None
            status = 0
            until += self._wait_for_own_limit()
            try:
                reply = self._get_once(path, params, until)
            except _Fault as fault:
                problem = str(fault)
                if not fault.served:
                    self._give_back(unused=not fault.sent)
            except (UsageError, EnvironmentProblem):
                self._give_back(unused=True)
                raise
            else:
                if reply.status != 200:
                    self._give_back()
                if reply.status not in TRANSIENT:
                    return reply
                status = reply.status
                words = error_details(reply.body).message
                problem = f"HTTP {status}" + (f', "{words}"' if words else "")
                server_says = server_wait(reply.headers, options.clock())
            wait = default_wait(tries, status=status) if server_says is None else server_says
            left = until - options.monotonic()
            if tries > options.retries or wait >= left:
                self._give_up(status, problem, tries, server_says, left)
            self._wait(wait, f"{self.host}: {problem}")

    def _wait_for_own_limit(self) -> float:
        """Wait until our own limit allows a call; returns the seconds that this took."""
        limit = self._options.rate_limit
        if limit is None:
            return 0.0
        began = self._options.monotonic()
        wait = limit.take()
        if wait > 0:
            calls = limit.limits.calls_per_minute
            try:
                self._wait(wait, f"our limit is {calls} calls a minute (source.calls_per_minute)")
            except BaseException:
                limit.give_back(unused=True)  # interrupted before the call
                raise
        return self._options.monotonic() - began

    def _give_back(self, *, unused: bool = False) -> None:
        if self._options.rate_limit is not None:
            self._options.rate_limit.give_back(unused=unused)

    def _wait(self, seconds: float, why: str) -> None:
        if seconds >= _REPORTED_WAIT:
            self._options.report(f"    waiting {math.ceil(seconds)} s: {why}")
        self._options.sleep(seconds)

    def _get_once(self, path: str, params: Mapping[str, str], until: float) -> Reply:
        options = self._options
        left = until - options.monotonic()
        if left <= 0:
            raise _Fault("the deadline is over", sent=False)
        self.calls += 1
        try:
            response = self._session.get(
                self._base_url + path,
                params=dict(params),
                timeout=(min(options.connect_timeout, left), min(options.read_timeout, left)),
                stream=True,
                allow_redirects=False,
            )
        except OSError as error:  # those of requests, and what it lets through
            if isinstance(error, ValueError):
                raise UsageError(
                    f"source.base_url is not a usable address ({type(error).__name__}); "
                    "expected one such as https://api.coingecko.com/api/v3"
                ) from None
            sent = not any(isinstance(link, _UNSENT) for link in _chain(error))
            raise _Fault(_cause(error), sent=sent) from None
        with response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            for form in self._secrets:
                headers = {name: value.replace(form, "*") for name, value in headers.items()}
            if response.is_redirect:
                target = urlsplit(headers.get("location", "")).netloc.rpartition("@")[2]
                raise BadAnswer(
                    f"{self.host} redirects to {target or 'another path'}; redirects are not "
                    "followed: set source.base_url to the right address"
                )
            proxy = self._proxy()
            if response.status_code == 407 and proxy:
                raise EnvironmentProblem(
                    f"the proxy {proxy} wants a login; put it into the variable: "
                    "http://NAME:PASSWORD@host:port"
                )
            body = self._body(response, until)
            for form in self._secrets:
                body = body.replace(form.encode(), b"*")
            return Reply(response.status_code, headers, body)

    def _body(self, response: requests.Response, until: float) -> bytes:
        """The body, read in pieces, so that the deadline stops a slow server too."""
        served = response.status_code == 200
        body = bytearray()
        try:
            while piece := response.raw.read1(_PIECE, decode_content=True):
                body += piece
                if len(body) > MAX_BODY_BYTES:
                    raise BadAnswer(
                        f"the answer of {self.host} is larger than {MAX_BODY_BYTES >> 20} MiB; a "
                        "market chart is smaller: check source.base_url"
                    )
                if self._options.monotonic() > until:
                    raise _Fault("the answer is too slow for the deadline", served=served)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise _Fault(f"the answer breaks off ({_cause(error)})", served=served) from None
        return bytes(body)

    def _give_up(
        self, status: int, problem: str, tries: int, server_says: float | None, left: float
    ) -> NoReturn:
        times = "after 1 try" if tries == 1 else f"after {tries} tries"
        if status == 429:
            wait = ""
            if server_says is not None:
                wait = f" and wants a wait of {math.ceil(server_says)} s"
                if server_says >= left:
                    wait += f", more than source.deadline_seconds leaves ({max(left, 0):.0f} s)"
            raise RateLimited(
                f"{self.host} refuses for too many requests{wait} ({times}: {problem}); "
                "try again later, or use a plan with a higher limit",
                retry_after=server_says,
            )
        proxy = self._proxy()
        through, check = (f" through the proxy {proxy}", "that proxy, ") if proxy else ("", "")
        raise Unreachable(
            f"{self.host} gives no usable answer{through} ({times}: {problem}); check {check}the "
            "network and source.base_url, or try again later"
        )

    def _proxy(self) -> route.Variable | None:
        return route.proxy_of(self._base_url) if self._session.trust_env else None


def server_wait(headers: Mapping[str, str], now_ms: int) -> float | None:
    """Seconds to wait by `retry-after`, else by `x-ratelimit-reset`; None without a readable one.

    The first is seconds or an HTTP date, the second is like `2026-03-09 03:28:00 +0000`.
    """
    for name, seconds in (("retry-after", _retry_after), ("x-ratelimit-reset", _reset)):
        with suppress(KeyError, ValueError, OverflowError):
            return max(0.0, seconds(headers[name].strip(), now_ms / 1000))
    return None


def default_wait(tries: int, *, status: int) -> float:
    """Seconds to wait after so many tries when the server names none: doubled, jittered."""
    first = _LIMIT_WAIT if status == 429 else _FAULT_WAIT
    longest: float = min(_LONGEST_WAIT, first * 2.0 ** (tries - 1))
    return longest * random.uniform(0.5, 1.0)


def _retry_after(text: str, now_s: float) -> float:
    if text.isascii() and text.isdigit():
        return float(text)
    return parsedate_to_datetime(text).timestamp() - now_s


def _reset(text: str, now_s: float) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S %z").timestamp() - now_s


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


# No request had been sent when one of these was raised.
_UNSENT = (
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    urllib3.exceptions.ProxyError,
    ssl.SSLError,
)


def _chain(error: BaseException) -> list[BaseException]:
    """The error and all that it was raised from."""
    chain = [error]
    for link in chain:
        inner = (getattr(link, "reason", None), link.__cause__, link.__context__, *link.args)
        chain += [e for e in inner if isinstance(e, BaseException) and e not in chain]
    return chain


def _cause(error: BaseException) -> str:
    """Why a connection failed, without any URL or header."""
    chain = _chain(error)
    known = (w for kind, w in _CAUSES if any(isinstance(link, kind) for link in chain))
    words = next(known, type(chain[-1]).__name__)
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain):
        words += f" {route.trust()}"
    if any(isinstance(link, urllib3.exceptions.ProxyError) for link in chain):
        refused = (str(link) for link in chain if str(link).startswith("Tunnel connection failed"))
        words = f"the proxy: {next(refused, words)}"
    return words
