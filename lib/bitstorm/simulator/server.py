"""The simulated market, or one recorded chart, over real HTTP on loopback."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from bitstorm.core.errors import UsageError
from bitstorm.core.time import now_ms
from bitstorm.simulator import faults, response_cache
from bitstorm.simulator.answers import PREFIX, Ask, Service, admitted, answer
from bitstorm.simulator.error_bodies import Answer
from bitstorm.simulator.faults import Reply, Rule, Script
from bitstorm.simulator.limits import UNLIMITED, Limits, Plan, RateLimit
from bitstorm.simulator.market import Market

HEADER = "X-Bitstorm-Simulated"
LOOPBACK = "127.0.0.1"


class Simulator:
    """A CoinGecko-compatible server, to be used as a context manager or with `serve_until_stopped`.

    `clock` gives the moment of an answer in Unix ms; `plan` says which host it is, `keys` whose
    keys are good (None: any), `limits` how much they may ask (without bound; `limits.LIMITS` has
    the plans'). `script` holds the faults, rules of `faults.Rule` or as a file has them. The same
    question within the vendor's cache times gets the same answer. With `replay` the charts are the
    bytes of a recorded `market_chart` answer, unchanged, and the live price is that of its newest
    point. Every answer names its seed, or `replay-` and the recording's digest, in the header
    `X-Bitstorm-Simulated`. Raises UsageError for a recording or a script that is none, or when the
    port is taken.
    """

    def __init__(
        self,
        market: Market | None = None,
        *,
        replay: bytes | None = None,
        clock: Callable[[], int] = now_ms,
        plan: Plan = "keyless",
        keys: Collection[str] | None = None,
        limits: Limits = UNLIMITED,
        script: Sequence[Rule | Mapping[str, Any]] = (),
        port: int = 0,
    ) -> None:
        if (market is None) == (replay is None):
            raise ValueError("a simulator serves either a market or a replay")
        self._clock = clock
        self._plan: Plan = plan
        self._keys = keys
        self._meter = RateLimit(limits)
        self._edge = response_cache.ResponseCache()
        self._script = Script(faults.rules_from(list(script)))
        self._ended = threading.Event()
        self._guard = threading.Lock()
        self._made: Callable[[Ask, int, Service], Answer]
        if market is not None:
            self.mark = str(market.seed)
            self._made = lambda ask, now, service: answer(
                ask, market=market, now_ms=now, service=service
            )
        elif replay is not None:
            self.mark = f"replay-{hashlib.sha256(replay).hexdigest()[:8]}"
            recording = _Recording(replay)
            self._made = lambda ask, now, service: (
                recording.answer(ask) or Answer(404, b'{"error":"not in the recording"}')
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

    def respond(self, ask: Ask) -> Reply:
        """What goes out for one request, counted, limited, cached and spoilt, one at a time."""
        with self._guard:
            now = self._clock()
            rule = self._script.next(ask.path.removeprefix(PREFIX))
            limited = self._meter.refused(now)
            invented = None if rule is None else faults.replaced(rule, ask.query, now)
            taken, cached = invented or limited, False
            if taken is None:
                taken, cached = self._good(ask, rule, now)
            reply = Reply(taken) if rule is None else faults.struck(rule, taken)
            if reply.answer.status == 200 and not (cached and self._plan == "pro"):
                self._meter.spend(now)
            return reply if invented else replace(reply, truth=taken.body)

    def _good(self, ask: Ask, rule: Rule | None, now: int) -> tuple[Answer, bool]:
        """The answer without limits and faults but for the clock's, and whether it was kept."""
        moment = now if rule is None else now + round(rule.clock_skew_seconds * 1000)
        service = Service(self._plan, self._keys, self._meter.limits, self._meter.spent(now))
        refused = admitted(ask, now_ms=moment, service=service)
        if refused is not None:
            return refused, False
        window = response_cache.window_ms(ask.path.removeprefix(PREFIX), ask.query, self._plan)
        if not window or moment != now:
            return self._made(ask, moment, service), False
        question = response_cache.question(ask.path, ask.query)
        kept = self._edge.find(question, now)
        if kept is not None:
            found, made_ms = kept
            age = {"Age": str((now - made_ms) // 1000), "Cf-Cache-Status": "HIT"}
            return replace(found, headers={**found.headers, **age}), True
        made = self._made(ask, now, service)
        if made.status == 200:
            self._edge.keep(question, made, now_ms=now, window_ms=window)
            made = replace(made, headers={**made.headers, "Cf-Cache-Status": "MISS"})
        return made, False

    def pause(self, seconds: float) -> bool:
        """Wait, unless serving ends before; whether it goes on."""
        return not self._ended.wait(seconds) if seconds > 0 else not self._ended.is_set()

    def now_ms(self) -> int:
        return self._clock()

    def serve_until_stopped(self) -> None:
        """Serve in this thread until `stop` is called from another, or KeyboardInterrupt."""
        try:
            self._server.serve_forever(poll_interval=0.05)
        finally:
            self._server.server_close()

    def stop(self) -> None:
        """End serving; who asks on an open connection afterwards gets no answer."""
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
    def __init__(self, address: tuple[str, int], simulator: Simulator) -> None:
        self.simulator = simulator
        super().__init__(address, _Handler)

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
        if not simulator.pause(0):
            self.close_connection = True
            return
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        ask = Ask(url.path, dict(parse_qsl(url.query, keep_blank_values=True)), headers)
        reply = simulator.respond(ask)
        answered = reply.answer
        if not simulator.pause(reply.delay_s) or reply.dropped:
            self.close_connection = True
            return
        self.send_response(answered.status)
        named = {
            "Content-Type": "application/json; charset=utf-8",
            "Cache-Control": "public, max-age=30" if answered.status == 200 else "no-cache",
            "Vary": "Accept-Encoding, Origin",
            HEADER: simulator.mark,
            **answered.headers,
        }
        body = answered.body
        if reply.whole and len(body) > 1000 and "gzip" in headers.get("accept-encoding", ""):
            body = gzip.compress(body, compresslevel=1, mtime=0)
            named["Content-Encoding"] = "gzip"
        if reply.endless:
            named["Transfer-Encoding"] = "chunked"
        else:
            named["Content-Length"] = str(len(body))
        for name, value in named.items():
            self.send_header(name, value)
        self.end_headers()
        if reply.endless:
            self._without_end()
        elif reply.trickle_s > 0:
            self._drop_by_drop(body[: reply.sent], reply.trickle_s)
        else:
            self.wfile.write(body[: reply.sent])
        if not reply.whole:
            self.close_connection = True

    def _without_end(self) -> None:
        piece = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
        while self.server.simulator.pause(0):
            self.wfile.write(piece)

    def _drop_by_drop(self, body: bytes, seconds: float) -> None:
        for place in range(len(body)):
            self.wfile.write(body[place : place + 1])
            self.wfile.flush()
            if not self.server.simulator.pause(seconds):
                return

    def version_string(self) -> str:
        return "bitstorm-simulator"

    def date_time_string(self, timestamp: float | None = None) -> str:
        moment = self.server.simulator.now_ms() / 1000 if timestamp is None else timestamp
        return formatdate(moment, usegmt=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not written to stderr."""
