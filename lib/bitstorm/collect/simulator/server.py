"""The simulated market, or one recorded chart, over real HTTP on loopback."""

from __future__ import annotations

import gzip
import hashlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from bitstorm.collect.simulator.answers import PREFIX, Answer, Ask, Plan, admitted, answer
from bitstorm.collect.simulator.market import Market
from bitstorm.errors import UsageError
from bitstorm.instants import now_ms

HEADER = "X-Bitstorm-Simulated"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Request:
    """One request as it came: `headers` with lower-case names, `query` as raw text."""

    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    status: int


class Simulator:
    """A CoinGecko-compatible server, to be used as a context manager or with `serve_until_stopped`.

    `clock` gives the moment of an answer in Unix ms; `plan` says which host it is. With `replay`
    the charts are the bytes of a recorded `market_chart` answer, unchanged, and the live price is
    that of its newest point. Every answer names its seed, or `replay-` and the recording's digest,
    in the header `X-Bitstorm-Simulated`. Raises UsageError for a recording that is none, or when
    the port is taken.
    """

    def __init__(
        self,
        market: Market | None = None,
        *,
        replay: bytes | None = None,
        clock: Callable[[], int] = now_ms,
        plan: Plan = "keyless",
        port: int = 0,
    ) -> None:
        if (market is None) == (replay is None):
            raise ValueError("a simulator serves either a market or a replay")
        self.requests: list[Request] = []
        self._clock = clock
        self._plan = plan
        self._respond: Callable[[Ask], Answer]
        if market is not None:
            self.mark = str(market.seed)
            self._respond = lambda ask: answer(ask, market=market, now_ms=clock(), plan=plan)
        elif replay is not None:
            self.mark = f"replay-{hashlib.sha256(replay).hexdigest()[:8]}"
            recording = _Recording(replay)
            self._respond = lambda ask: (
                admitted(ask, now_ms=clock(), plan=plan)
                or recording.answer(ask)
                or Answer(404, b'{"error":"not in the recording"}')
            )
        try:
            self._server = _Server((LOOPBACK, port), self)
        except OSError as error:
            raise UsageError(
                f"port {port} of {LOOPBACK} cannot be served ({error.strerror}); "
                "choose another --port, 0 takes any free one"
            ) from None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        return f"http://{LOOPBACK}:{self._server.server_address[1]}{PREFIX}"

    @property
    def source(self) -> str:
        """What a client of this server sees as the source of its prices."""
        return f"simulated:{self.mark}"

    def respond(self, ask: Ask) -> Answer:
        return self._respond(ask)

    def now_ms(self) -> int:
        return self._clock()

    def serve_until_stopped(self) -> None:
        """Serve in this thread until `stop` is called from another, or KeyboardInterrupt."""
        try:
            self._server.serve_forever(poll_interval=0.05)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        """End serving; open connections are closed and their threads joined."""
        self._server.shutdown()

    def __enter__(self) -> Simulator:
        self._thread = threading.Thread(
            target=self.serve_until_stopped, name="bitstorm-simulator", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()


class _Recording:
    """A recorded `market_chart` answer and the live price that follows from it."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        try:
            chart = json.loads(body)
            self._stamp, self._price = max(chart["prices"])
            self._cap = dict(chart["market_caps"])[self._stamp]
            self._volume = dict(chart["total_volumes"])[self._stamp]
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                "the file to replay is not a recorded market chart "
                f"({type(error).__name__}: {error}); expected the JSON of an answer with prices, "
                "market_caps and total_volumes"
            ) from None

    def answer(self, ask: Ask) -> Answer | None:
        match ask.path.removeprefix(PREFIX).strip("/").split("/"):
            case ["ping"]:
                body: Any = {"gecko_says": "(V3) To the Moon!"}
            case ["coins", _, "market_chart"] | ["coins", _, "market_chart", "range"]:
                return Answer(200, self._body)
            case ["simple", "price"]:
                currency = ask.query.get("vs_currencies", "usd")
                fields = {
                    currency: self._price,
                    f"{currency}_market_cap": self._cap,
                    f"{currency}_24h_vol": self._volume,
                    f"{currency}_24h_change": None,
                    "last_updated_at": int(self._stamp) // 1000,
                }
                body = {ask.query.get("ids", "bitcoin"): fields}
            case _:
                return None
        return Answer(200, json.dumps(body, separators=(",", ":")).encode())


class _Server(ThreadingHTTPServer):
    # Threads are joined on closing, which is why open connections are kept: to end them first.
    daemon_threads = False

    def __init__(self, address: tuple[str, int], simulator: Simulator) -> None:
        self.simulator = simulator
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        with self._guard:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was faster
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away in the middle is no matter for stderr; a fault in here is.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body leave in one piece: two small ones would wait for each other's receipt.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    timeout = 120
    server: _Server

    def do_GET(self) -> None:
        simulator = self.server.simulator
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        ask = Ask(url.path, dict(parse_qsl(url.query, keep_blank_values=True)), headers)
        reply = simulator.respond(ask)
        simulator.requests.append(Request(url.path, url.query, headers, reply.status))
        body = reply.body
        self.send_response(reply.status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header(
            "Cache-Control", "public, max-age=30" if reply.status == 200 else "no-cache"
        )
        self.send_header("Vary", "Accept-Encoding, Origin")
        self.send_header(HEADER, simulator.mark)
        if len(body) > 1000 and "gzip" in headers.get("accept-encoding", ""):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def version_string(self) -> str:
        return "bitstorm-simulator"

    def date_time_string(self, timestamp: float | None = None) -> str:
        moment = self.server.simulator.now_ms() / 1000 if timestamp is None else timestamp
        return formatdate(moment, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in `Simulator.requests`, not written to stderr."""
