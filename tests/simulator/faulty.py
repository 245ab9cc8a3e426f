"""The simulator with limits and credits of a plan, and with faults by script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bitstorm.simulator.answers import PREFIX, Request
from bitstorm.simulator.server import Handler, Simulator
from simulator import faults
from simulator.faults import Reply, Rule, Script
from simulator.limits import UNLIMITED, Limits, RateLimit


class FaultySimulator(Simulator):
    """`limits` says how much a client may ask, `script` which answers go wrong."""

    def __init__(
        self,
        *arguments: Any,
        limits: Limits = UNLIMITED,
        script: Sequence[Rule | Mapping[str, Any]] = (),
        **options: Any,
    ) -> None:
        self._rate_limit = RateLimit(limits)
        self._script = Script(map(Rule.model_validate, script))
        super().__init__(*arguments, **options)

    def reply(self, ask: Request) -> Reply:
        """What goes out for one request: counted, limited, and spoilt by the script's rule."""
        with self._guard:
            now = self.now_ms()
            self.service = replace(self.service, **self._rate_limit.shown(now))
            rule = self._script.next(ask.path.removeprefix(PREFIX))
            limited = self._rate_limit.refused(now)
            invented = None if rule is None else faults.replaced(rule, ask.query, now)
            skew = 0 if rule is None else round(rule.clock_skew_seconds * 1000)
            taken = invented or limited
            if taken is None:
                taken = self.new_answer(ask, now + skew) if skew else self.answer(ask, now)
            reply = Reply(taken) if rule is None else faults.struck(rule, taken)
            kept = taken.headers.get("Cf-Cache-Status") == "HIT"
            if reply.answer.status == 200 and not (kept and self.service.plan == "pro"):
                self._rate_limit.spend(now)
            return reply if invented else replace(reply, truth=taken.body)


class FaultyHandler(Handler):
    """Sends a `Reply`: late, slowly, in part, without end, or not at all."""

    def answer(self, ask: Request) -> None:
        simulator = self.server.simulator
        assert isinstance(simulator, FaultySimulator)
        reply = simulator.reply(ask)
        if not simulator.pause(reply.delay_s) or reply.dropped:
            self.close_connection = True
        elif reply.endless:
            self.send_head(reply.answer, {"Transfer-Encoding": "chunked"})
            piece = b"%x\r\n%s\r\n" % (1 << 20, b" " * (1 << 20))
            while simulator.pause(0):
                self.wfile.write(piece)
            self.close_connection = True
        elif reply.whole and not reply.trickle_s:
            self.send(reply.answer)
        else:
            self.send_head(reply.answer, {"Content-Length": str(len(reply.answer.body))})
            self._send_slowly(reply)
            self.close_connection = not reply.whole

    def _send_slowly(self, reply: Reply) -> None:
        body = reply.answer.body[: reply.sent]
        if not reply.trickle_s:
            self.wfile.write(body)
            return
        for place in range(len(body)):
            self.wfile.write(body[place : place + 1])
            self.wfile.flush()
            if not self.server.simulator.pause(reply.trickle_s):
                return


FaultySimulator.handler = FaultyHandler
