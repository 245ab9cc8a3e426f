"""The simulated market, or one recorded chart, over real HTTP on loopback."""

from __future__ import annotations

import gzip
import json
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl, urlsplit

from bitstorm.core.durable_io import bytes_hash
from bitstorm.core.errors import UsageError
from bitstorm.core.time import DAY_MS, HOUR_MS, MINUTE_MS, now_ms
from bitstorm.simulator.answers import (
    PREFIX,
    Answer,
    Plan,
    Request,
    Service,
    access_refusal,
    answer,
)
from bitstorm.simulator.market import Market

HEADER = "X-Bitstorm-Simulated"
LOOPBACK = "127.0.0.1"


class Simulator:
    """A CoinGecko-compatible server: a context manager, or `serve_until_stopped`.

    `clock` gives the moment of an answer in Unix ms; `plan` names the host, `keys` the accepted
    keys (None: any). Within the vendor's cache times the same question gets the same answer. With
    `replay` every chart has the unchanged bytes of a recorded `market_chart` answer, and the live
    price is its newest point. The header `X-Bitstorm-Simulated` of every answer names the seed, or
    `replay-` and the recording's hash. Raises UsageError for a wrong recording or a taken port.
    """

    handler: ClassVar[type[Handler]]

    def __init__(
        self,
        market: Market | None = None,
        *,
        replay: bytes | None = None,
        clock: Callable[[], int] = now_ms,
        plan: Plan = "keyless",
        keys: Collection[str] | None = None,
        port: int = 0,
    ) -> None:
        if (market is None) == (replay is None):
            raise ValueError("a simulator serves either a market or a replay")
        self.now_ms = clock
        self.service = Service(plan, keys)
        self._cache = ResponseCache()
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self._market = market
        self._recording = None if replay is None else _Recording(replay)
        self.mark = str(market.seed) if market else f"replay-{bytes_hash(replay or b'')[:8]}"
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

    def respond(self, request: Request) -> Answer:
        """The answer to one request. Requests are answered one at a time."""
        with self._guard:
            return self.answer(request, self.now_ms())

    def answer(self, request: Request, now_ms: int) -> Answer:
        """The answer at `now_ms` (Unix ms), a cached one within the cache times."""
        refused = access_refusal(request, now_ms=now_ms, service=self.service)
        if refused is not None:
            return refused
        endpoint = request.path.removeprefix(PREFIX)
        window = window_ms(endpoint, request.query, self.service.plan)
        if not window:
            return self.new_answer(request, now_ms)
        key = question(request.path, request.query)
        cached = self._cache.find(key, now_ms)
        if cached is not None:
            found, made_ms = cached
            age = {"Age": str((now_ms - made_ms) // 1000), "Cf-Cache-Status": "HIT"}
            return replace(found, headers={**found.headers, **age})
        new = self.new_answer(request, now_ms)
        if new.status == 200:
            self._cache.keep(key, new, now_ms=now_ms, window_ms=window)
            new = replace(new, headers={**new.headers, "Cf-Cache-Status": "MISS"})
        return new

    def new_answer(self, request: Request, now_ms: int) -> Answer:
        """The answer at `now_ms` (Unix ms) without the cache."""
        if self._market is not None:
            return answer(request, market=self._market, now_ms=now_ms, service=self.service)
        recorded = self._recording.answer(request) if self._recording else None
        return recorded or Answer(404, b'{"error":"not in the recording"}')

    def pause(self, seconds: float) -> bool:
        """Wait, at most until serving ends; returns whether it continues."""
        return not self._ended.wait(seconds)

    def serve_until_stopped(self) -> None:
        """Serve in this thread until `stop` is called from another, or KeyboardInterrupt."""
        try:
            self._server.serve_forever(poll_interval=0.05)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        """Stop serving; a later request on an open connection gets no answer."""
        self._ended.set()
        self._server.shutdown()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self.serve_until_stopped, name="bitstorm-simulator", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
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

    def answer(self, request: Request) -> Answer | None:
        match request.path.removeprefix(PREFIX).strip("/").split("/"):
            case ["ping"]:
                body: Any = {"gecko_says": "(V3) To the Moon!"}
            case ["coins", _, "market_chart"] | ["coins", _, "market_chart", "range"]:
                return Answer(200, self._body)
            case ["simple", "price"]:
                currency = request.query.get("vs_currencies", "usd")
                fields = {
                    currency: self._price,
                    f"{currency}_market_cap": self._cap,
                    f"{currency}_24h_vol": self._volume,
                    f"{currency}_24h_change": None,
                    "last_updated_at": int(self._stamp) // 1000,
                }
                body = {request.query.get("ids", "bitcoin"): fields}
            case _:
                return None
        return Answer(200, json.dumps(body, separators=(",", ":")).encode())


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], simulator: Simulator) -> None:
        self.simulator = simulator
        super().__init__(address, simulator.handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A disconnected client is no error; a fault of this server is.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One packet for headers and body: the second of two would wait for the receipt of the first.
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    timeout = 120
    server: _Server

    def do_GET(self) -> None:
        if not self.server.simulator.pause(0):
            self.close_connection = True
            return
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(url.path, dict(parse_qsl(url.query, keep_blank_values=True)), headers)
        self.answer(request)

    def answer(self, request: Request) -> None:
        self.send(self.server.simulator.respond(request))

    def send(self, answer: Answer) -> None:
        """Send the whole answer, compressed if the client accepts it."""
        body, form = answer.body, {}
        if len(body) > 1000 and "gzip" in self.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            form["Content-Encoding"] = "gzip"
        self.send_head(answer, {**form, "Content-Length": str(len(body))})
        self.wfile.write(body)

    def send_head(self, answer: Answer, form: Mapping[str, str]) -> None:
        """Send status and headers; `form` are the headers about the body's encoding."""
        self.send_response(answer.status)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Cache-Control": "public, max-age=30" if answer.status == 200 else "no-cache",
            "Vary": "Accept-Encoding, Origin",
            HEADER: self.server.simulator.mark,
            **answer.headers,
            **form,
        }
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def version_string(self) -> str:
        return "bitstorm-simulator"

    def date_time_string(self, timestamp: float | None = None) -> str:
        moment = self.server.simulator.now_ms() / 1000 if timestamp is None else timestamp
        return formatdate(moment, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not written to stderr."""


Simulator.handler = Handler


_MOST = 256


class ResponseCache:
    """Answers by question; times are Unix ms."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Answer, int, int]] = {}

    def find(self, question: str, now_ms: int) -> tuple[Answer, int] | None:
        """The cached answer and its moment, or None."""
        kept = self._kept.get(question)
        return kept[:2] if kept is not None and kept[1] <= now_ms < kept[2] else None

    def keep(self, question: str, answer: Answer, *, now_ms: int, window_ms: int) -> None:
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[question] = (answer, now_ms, now_ms + window_ms)


def question(path: str, query: Mapping[str, str]) -> str:
    """The identity of a request: path and parameters in any order, without the key."""
    parameters = sorted(item for item in query.items() if not item[0].endswith("api_key"))
    return f"{path}?{parameters}"


def window_ms(endpoint: str, query: Mapping[str, str], plan: Plan) -> int:
    """The cache time (ms) of an endpoint (a path without the root), by the vendor's pages.

    The shorter time where the pages disagree (`market_chart`) or are silent (`/coins/markets`).
    """
    if endpoint == "/simple/price":
        return 20_000 if plan == "pro" else MINUTE_MS
    if endpoint.endswith("/range"):
        first, last = query.get("from", ""), query.get("to", "")
        if not (first.isdecimal() and last.isdecimal()):
            return 0
        length = (int(last) - int(first)) * 1000
        if length <= DAY_MS:
            return 30_000
        return 30 * MINUTE_MS if length <= 90 * DAY_MS else 12 * HOUR_MS
    if endpoint.endswith("/market_chart"):
        return 30_000
    if endpoint.endswith("/ohlc"):
        return 15 * MINUTE_MS
    return 45_000 if endpoint == "/coins/markets" else 0
