"""The served dashboard from outside, over real sockets on loopback: one page, and nothing else."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from bitstorm.core.errors import DataError, UsageError
from bitstorm.report.serve import Current, Page, Server

META = '<meta http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;; img-src x">'
POLICY = "default-src 'none'; img-src x; frame-ancestors 'none'"
# Larger than the buffers of a socket: whoever does not read it keeps a part of it waiting.
LARGE = META.encode() + bytes(range(256)) * 24_000


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Source:
    """A workspace in small: its state, and the page of this state."""

    def __init__(self, content: bytes = META.encode()) -> None:
        self.state, self.content, self.broken = 1, content, False
        self.warnings: list[str] = []

    def make(self) -> Page:
        if self.broken:
            raise DataError("a run is in progress")
        return Page(self.content, f"made-{self.state}")

    def current(self) -> Current:
        return Current(self.make, lambda: self.state, warn=self.warnings.append)


@contextlib.contextmanager
def serving(current: Current) -> Iterator[Server]:
    server = Server(current, port=0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop.handle(signal.SIGTERM, None)
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="module")
def source() -> Source:
    """Never changed: several tests share it, and its server."""
    return Source()


@pytest.fixture(scope="module")
def server(source: Source) -> Iterator[Server]:
    with serving(source.current()) as running:
        yield running


def connected(server: Server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=20)


def read_answer(stream: socket.socket, *, body: bool = True) -> Answer:
    with stream.makefile("rb") as file:
        status = int(file.readline().split()[1])
        lines = [line.decode().strip() for line in iter(file.readline, b"\r\n")]
        headers = dict(line.split(": ", 1) for line in lines)
        length = int(headers.get("Content-Length", 0)) if body else 0
        return Answer(status, headers, file.read(length))


def sent(server: Server, raw: bytes, *, body: bool = True) -> Answer:
    with connected(server) as stream:
        stream.sendall(raw)
        return read_answer(stream, body=body)


def request_of(
    server: Server,
    target: str = "/",
    *,
    method: str = "GET",
    host: str | None = None,
    version: str = "1.1",
    more: str = "",
) -> bytes:
    own = f"127.0.0.1:{server.port}"
    host = own if host is None else host.replace("PORT", str(server.port))
    target = target.replace("PORT", str(server.port))
    return f"{method} {target} HTTP/{version}\r\nHost: {host}\r\n{more}\r\n".encode()


def test_the_page_comes_whole_with_headers_that_protect_it(server: Server, source: Source) -> None:
    answer = sent(server, request_of(server))
    assert (answer.status, answer.body) == (200, source.content)
    date = answer.headers.pop("Date")
    assert date.endswith("GMT")
    assert answer.headers == {
        "Cache-Control": "no-cache",
        "Content-Length": str(len(source.content)),
        "Content-Security-Policy": POLICY,
        "Content-Type": "text/html; charset=utf-8",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Etag": '"made-1"',
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def test_a_page_without_a_policy_may_load_nothing() -> None:
    assert Page(b"<html>", "1").policy == "default-src 'none'"


@pytest.mark.parametrize("known", ['"made-1"', 'W/"made-1"', '"other", "made-1"'])
def test_a_page_that_is_known_is_not_sent_again(server: Server, known: str) -> None:
    answer = sent(server, request_of(server, more=f"If-None-Match: {known}\r\n"))
    assert (answer.status, answer.headers["Etag"], answer.body) == (304, '"made-1"', b"")


@pytest.mark.parametrize("known", ['"made-0"', "made-1", ""])
def test_another_tag_gets_the_page(server: Server, source: Source, known: str) -> None:
    answer = sent(server, request_of(server, more=f"If-None-Match: {known}\r\n"))
    assert (answer.status, answer.body) == (200, source.content)


@pytest.mark.parametrize(
    "target",
    [
        "//", "/?", "/?x", "/#x", "/index.html", "/../etc/passwd", "/%2e%2e/etc/passwd", "/%2F",
        "/./", "/%00", "*", "etc/passwd", "http://evil.example/", "http://127.0.0.1:PORT/",
        "file:///etc/passwd", "/dashboard.html", "/metrics.json",
    ],
)  # fmt: skip
def test_no_other_target_leads_anywhere(server: Server, target: str) -> None:
    answer = sent(server, request_of(server, target))
    assert (answer.status, answer.body) == (404, b"404 Not Found\n")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD"])
def test_only_get_is_a_method(server: Server, method: str) -> None:
    answer = sent(server, request_of(server, method=method), body=method != "HEAD")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert META.encode() not in answer.body


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:PORT", "127.0.0.1", "127.0.0.1:1", "localhost", "", "PORT",
        "127.0.0.1.evil.example:PORT", "127.0.0.1:PORT@evil.example", "localhost.:PORT",
        "127.0.0.1:PORT\r\nHost: evil.example", "127.1:PORT", "0.0.0.0:PORT", "[::1]",
    ],
)  # fmt: skip
def test_a_request_for_another_host_is_refused(server: Server, host: str) -> None:
    answer = sent(server, request_of(server, host=host))
    assert (answer.status, answer.body) == (421, b"421 Misdirected Request\n")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:PORT", "localhost:PORT", "LocalHost:PORT", "[::1]:PORT"]
)
def test_every_name_of_this_machine_is_served(server: Server, host: str) -> None:
    assert sent(server, request_of(server, host=host)).status == 200


def test_http_1_0_is_served_and_closed_but_needs_a_host(server: Server, source: Source) -> None:
    with connected(server) as stream:
        stream.sendall(request_of(server, version="1.0"))
        answer = read_answer(stream)
        assert (answer.status, answer.body) == (200, source.content)
        assert stream.recv(1) == b""
    assert sent(server, b"GET / HTTP/1.0\r\n\r\n").status == 421


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ],
)
def test_what_is_no_request_is_refused(
    server: Server, source: Source, raw: bytes, status: int
) -> None:
    answer = sent(server, raw)
    assert answer.status == status
    assert source.content not in answer.body
    assert sent(server, request_of(server)).body == source.content


def test_two_hundred_requests_at_once_get_the_whole_page() -> None:
    source = Source(LARGE)
    with serving(source.current()) as server, ThreadPoolExecutor(200) as clients:
        start = threading.Barrier(200)

        def ask(_: int) -> bool:
            start.wait(20)
            return sent(server, request_of(server)).body == LARGE

        assert all(clients.map(ask, range(200)))


def test_slow_clients_do_not_keep_others_waiting() -> None:
    source = Source(LARGE)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(source.current()))
        half = request_of(server)[:-2]
        for slow in range(60):
            stream = stack.enter_context(connected(server))
            # Some stop in the middle of the headers, some ask again and again, and none reads.
            stream.sendall(half if slow % 2 else request_of(server) * (1 + slow))
        readers = [stack.enter_context(connected(server)) for _ in range(10)]
        for stream in readers:
            stream.sendall(request_of(server))
            assert stream.recv(1) == b"H"
        assert sent(server, request_of(server)).body == LARGE
        # One byte at a time is slow, and still the right ones.
        rest = b"".join(stream.recv(1) for stream in readers)
        assert rest == b"T" * len(readers)


def test_a_client_that_goes_in_the_middle_leaves_the_server_up(
    server: Server, source: Source
) -> None:
    for _ in range(20):
        with connected(server) as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            stream.sendall(request_of(server))
    assert sent(server, request_of(server)).body == source.content


def test_the_old_page_stays_until_a_new_one_is_made() -> None:
    source = Source()
    current = source.current()
    with serving(current) as server:
        first = sent(server, request_of(server))
        assert current.look()
        assert current.page.tag == "made-1"
        source.state, source.broken = 2, True
        assert not current.look()
        assert source.warnings == ["the page stays as it was: a run is in progress"]
        assert sent(server, request_of(server)) == first
        source.broken, source.content = False, b"new"
        assert current.look()
        answer = sent(server, request_of(server, more='If-None-Match: "made-1"\r\n'))
        assert (answer.status, answer.headers["Etag"], answer.body) == (200, '"made-2"', b"new")


def test_a_change_during_the_making_makes_it_again() -> None:
    source = Source()
    current = source.current()

    def make_and_change() -> Page:
        source.state += 1
        return Page(b"", f"made-{source.state}")

    source.state = 2
    source.make = make_and_change  # type: ignore[method-assign]
    moving = Current(source.make, lambda: source.state, warn=source.warnings.append)
    assert current.page.tag == "made-1"
    assert moving.page.tag == "made-3"
    assert moving.look()
    assert moving.page.tag == "made-4"


def test_a_first_page_that_cannot_be_made_is_an_error() -> None:
    source = Source()
    source.broken = True
    with pytest.raises(DataError, match="in progress"):
        source.current()


def test_a_taken_port_is_refused_in_words(server: Server, source: Source) -> None:
    with pytest.raises(UsageError, match=rf"port {server.port} of 127\.0\.0\.1 .*--port"):
        Server(source.current(), port=server.port)
