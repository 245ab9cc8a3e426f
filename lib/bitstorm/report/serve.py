"""The dashboard on loopback: one page, by waitress, made anew when the workspace changes.

A browser on this machine also shows pages of others, which must not read this one: requests count
only with a Host of this machine, and no other page may frame it. It listens on 127.0.0.1 alone.
"""

from __future__ import annotations

import html
import io
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bitstorm.core.errors import UsageError, first_line
from bitstorm.core.stopping import Stop

LOOPBACK = "127.0.0.1"
NAMES = (LOOPBACK, "localhost", "[::1]")
# How often the workspace is looked at, and after how long a page that failed is tried again.
LOOK_SECONDS, RETRY_SECONDS = 1.0, 30.0
_NAP_SECONDS = 0.25
# More would come near the usual limit of 1,024 open files; the next ones wait in the queue.
_CONNECTIONS = 500
_META = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
_HEADERS = (
    ("Cache-Control", "no-cache"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


@dataclass(frozen=True)
class Page:
    """A page: its HTML in UTF-8, and the tag that says which one it is, without quotes."""

    content: bytes
    tag: str

    @cached_property
    def policy(self) -> str:
        """Its own Content-Security-Policy; without one nothing may load."""
        found = _META.search(self.content[:100_000].decode("utf-8", "ignore"))
        return "default-src 'none'" if found is None else html.unescape(found[1])


class Current:
    """The last complete page. `follow` makes it anew when `fingerprint()` changes."""

    def __init__(
        self,
        make: Callable[[], Page],
        fingerprint: Callable[[], object],
        *,
        warn: Callable[[str], None],
    ) -> None:
        self._make, self._fingerprint, self._warn = make, fingerprint, warn
        self._seen = fingerprint()
        self.page = make()

    def look(self) -> bool:
        """Make the page anew where the workspace has changed. False where that fails: the old page
        stays, with a warning."""
        try:
            seen = self._fingerprint()
            if seen != self._seen:
                self.page = self._make()
        except Exception as error:  # noqa: BLE001 - of any library that reads or draws
            self._warn(f"the page stays as it was: {first_line(error)}")
            return False
        self._seen = seen
        return True

    def follow(self, ended: threading.Event) -> None:
        """Look again and again until `ended`."""
        wait = LOOK_SECONDS
        while not ended.wait(wait):
            wait = LOOK_SECONDS if self.look() else RETRY_SECONDS


class Server:
    """Serves the page at `url` while `run` runs: until a signal, or until `stop` notes one."""

    def __init__(self, current: Current, *, port: int) -> None:
        from waitress.server import create_server

        try:
            listening = socket.create_server((LOOPBACK, port))
        except OSError as error:
            raise UsageError(
                f"port {port} of {LOOPBACK} cannot be served ({error.strerror}); "
                "choose another --port, 0 takes any free one"
            ) from None
        self._current = current
        self.stop = Stop()
        self._sockets: dict[int, Any] = {}
        self._server = create_server(
            self._answer,
            map=self._sockets,
            sockets=[listening],
            ident="",
            asyncore_use_poll=True,
            connection_limit=_CONNECTIONS,
            max_request_header_size=16_384,
            max_request_body_size=1_024,
            # No worker waits for a slow reader: the page lies in memory once for all of them.
            outbuf_high_watermark=1 << 40,
        )

    @property
    def port(self) -> int:
        return int(self._server.effective_port)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/"

    def run(self, *, announce: Callable[[str], object] | None = None) -> None:
        """Serve, and follow the workspace; `announce` gets the URL when a signal ends it well."""
        from waitress import wasyncore

        with self.stop.catch_signals(), self._following():
            if announce is not None:
                announce(self.url)
            try:
                while self.stop.signal is None:
                    wasyncore.loop(_NAP_SECONDS, use_poll=True, map=self._sockets, count=1)
            finally:
                self._server.task_dispatcher.shutdown()
                wasyncore.close_all(self._sockets)

    @contextmanager
    def _following(self) -> Iterator[None]:
        ended = threading.Event()
        # A daemon: the end does not wait for a page in the making, which writes nothing.
        watch = threading.Thread(target=self._current.follow, args=(ended,), daemon=True)
        watch.start()
        try:
            yield
        finally:
            ended.set()

    def _answer(self, request: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """A WSGI application: the answer to one request."""
        if not self._is_own(request.get("HTTP_HOST", "")):
            return _refuse(request, start, "421 Misdirected Request")
        # The target as it came: no form of another path, or of another host, is this one.
        if request["REQUEST_URI"] != "/":
            return _refuse(request, start, "404 Not Found")
        if request["REQUEST_METHOD"] != "GET":
            return _refuse(request, start, "405 Method Not Allowed", ("Allow", "GET"))
        page = self._current.page
        tag = f'"{page.tag}"'
        policy = ("Content-Security-Policy", f"{page.policy}; frame-ancestors 'none'")
        headers = [*_HEADERS, ("ETag", tag), policy]
        known = request.get("HTTP_IF_NONE_MATCH", "")
        if tag in (one.strip().removeprefix("W/") for one in known.split(",")):
            start("304 Not Modified", headers)
            return []
        headers.append(("Content-Length", str(len(page.content))))
        start("200 OK", [*headers, ("Content-Type", "text/html; charset=utf-8")])
        # Not copied for each request: `BytesIO` shares the bytes until one writes.
        body: Iterable[bytes] = request["wsgi.file_wrapper"](io.BytesIO(page.content))
        return body

    def _is_own(self, host: str) -> bool:
        """Whether the Host header names this server: a page of another site, whose name was made to
        lead here (DNS rebinding), has that site's name."""
        ports = [f":{self.port}", *([""] if self.port == 80 else [])]
        return host.lower() in {f"{name}{port}" for name in NAMES for port in ports}


def _refuse(
    request: dict[str, Any], start: Callable[..., Any], status: str, *more: tuple[str, str]
) -> Iterable[bytes]:
    body = f"{status}\n".encode()
    form = ("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))
    policy = ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    start(status, [*_HEADERS, policy, *form, *more])
    return [] if request["REQUEST_METHOD"] == "HEAD" else [body]
