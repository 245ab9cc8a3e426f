"""moto's S3 on loopback, for the tests: a real server, but not Amazon's.

It keeps objects in memory, answers `If-None-Match: *` with 412 where the name is taken, and checks
no credentials. `rules` change requests as other servers would answer them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import pytest

BUCKET = "bitstorm-tests"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "anyone",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
Answer = Callable[[dict[str, Any], Any], Iterable[bytes] | None]


class Server:
    """`requests` are method and path of each request; a rule answers one, or returns None."""

    def __init__(self, application: Any) -> None:
        self._application, self._lock = application, threading.Lock()
        self.requests: list[str] = []
        self.rules: list[Answer] = []
        self.url = ""

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        self.requests.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        for rule in self.rules:
            answer = rule(environ, start)
            if answer is not None:
                return answer
        # S3 looks and writes in one step; moto does not, so two requests at once could both win.
        with self._lock:
            answered: Iterable[bytes] = self._application(environ, start)
        return answered


@contextmanager
def running() -> Iterator[Server]:
    """The server with an empty bucket. Skips the test without moto or s3fs."""
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    import fsspec
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *_: object) -> None:
            pass

    server = Server(moto.DomainDispatcherApplication(moto.create_backend_app))
    listener = make_server("127.0.0.1", 0, server, threaded=True, request_handler=Quiet)
    server.url = f"http://127.0.0.1:{listener.port}"
    thread = threading.Thread(target=listener.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": server.url}.items():
            patch.setenv(name, value)
        # moto keeps what an earlier server of this process had.
        urlopen(Request(f"{server.url}/moto-api/reset", method="POST")).close()
        client = fsspec.filesystem("s3", use_listings_cache=False)
        client.mkdir(BUCKET)
        try:
            yield server
        finally:
            client.clear_instance_cache()
            listener.shutdown()
            thread.join()


def refusal(environ: dict[str, Any], start: Any, status: str, code: str) -> list[bytes]:
    """An error of S3."""
    text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [text]
