"""Checks an API answer; archives a refused one.

A wrong content type, JSON or shape refuses the whole answer; so does the value of a live price.
The points of a chart are checked one by one: a bad point is left out and never stops the good ones.

In both cases the raw answer is kept with the reason, so that a person can see it:
`rejects/answers/HASH.txt` and `HASH.json`; HASH is the start of the answer's SHA-256. The transport
has removed the key. The first megabyte of an answer is kept, and the newest two hundred answers.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from statistics import median
from typing import Any

from bitstorm.collect.coingecko.transport import Reply
from bitstorm.core import durable_io
from bitstorm.core.errors import BadAnswer, SourceError
from bitstorm.core.schema import GENESIS_MS, SECONDS_BELOW
from bitstorm.core.time import HOUR_MS, iso

FOLDER = "answers"
MOST_BYTES = 1 << 20
MOST_ANSWERS = 200

_SHORT = 16
_MOST_POINTS = 1_000
# A live price is compared with the last landed one only within this time: after a longer silence,
# or a lasting change, the new one is accepted.
_MEMORY_MS = 6 * HOUR_MS
# A point of a chart is compared with this many points on each side.
_NEIGHBOURS = 2


@dataclass(frozen=True)
class RefusedValue:
    """One value that is left out: `field` of the point at `timestamp` (as the source wrote it)."""

    timestamp: Any
    field: str
    value: Any
    rule: str
    reason: str


@dataclass
class Inspection:
    """An answer while it is read, and its refused values so far."""

    endpoint: str
    request: Mapping[str, str]
    reply: Reply
    refused: list[RefusedValue] = field(default_factory=list)

    @property
    def doubtful(self) -> bool:
        """Whether a price other than null was refused; null is the source's way to state none."""
        return any(bad.field == "price" and bad.rule != "price_present" for bad in self.refused)

    def refuse(self, timestamp: Any, name: str, value: Any, rule: str, reason: str) -> None:
        self.refused.append(RefusedValue(timestamp, name, value, rule, reason))


@dataclass(frozen=True)
class AnswerChecks:
    """The rules of one source, and the folder for refused answers (None: none is kept).

    A price can be at most `max_jump` times above or below its neighbours and at most
    `future_seconds` after now; None sets no bound. `previous` gives time (Unix ms) and price of
    the last landed observation, to compare a live price with.
    """

    rejects: Path | None = None
    max_jump: float | None = 10.0
    future_seconds: float | None = 300.0
    previous: Callable[[], tuple[int, float] | None] = lambda: None

    @contextmanager
    def archive_refused(
        self, endpoint: str, request: Mapping[str, str], reply: Reply, *, now_ms: int
    ) -> Iterator[Inspection]:
        """For the block that reads an answer: keep the answer where it or a point of it is refused.

        The error's message then names the place. `now_ms` is Unix ms.
        """
        seen = Inspection(endpoint, request, reply)
        try:
            yield seen
        except SourceError as error:
            error.args = (f"{error}{self._archive(seen, str(error), now_ms=now_ms)}",)
            raise
        if seen.refused:
            reason = f"{len(seen.refused)} values of the answer were left out"
            self._archive(seen, reason, now_ms=now_ms)

    def check_type(self, reply: Reply, host: str) -> None:
        """Raises BadAnswer for a content type that is not JSON's; an answer without one passes."""
        stated = reply.headers.get("content-type", "")
        kind = stated.partition(";")[0].strip().lower()
        if kind and not kind.endswith(("/json", "+json")):
            raise BadAnswer(
                f"{host} answers with {stated[:60]!r} instead of application/json, "
                f"{_beginning(reply.body)}; check source.base_url, and look for a proxy on the "
                "way to the source"
            )

    def latest_ms(self, reply: Reply, now_ms: int) -> int | None:
        """The latest accepted time (Unix ms) of a point, by the later of the two clocks.

        A slow clock of this machine must not refuse the source's points.
        """
        if self.future_seconds is None:
            return None
        return max(now_ms, _date_ms(reply) or 0) + round(self.future_seconds * 1000)

    def check_live(
        self, seen: Inspection, *, timestamp: int, price: float, host: str, now_ms: int
    ) -> None:
        """Raises BadAnswer for a live price from the future, or too far from the last one."""
        latest = self.latest_ms(seen.reply, now_ms)
        if latest is not None and timestamp > latest:
            raise BadAnswer(
                f"the price of {host} has the time {iso(timestamp)}, which lies ahead (now is "
                f"{iso(now_ms)}); check this machine's clock, or try again later"
            )
        before = None if self.max_jump is None else self.previous()
        if self.max_jump is None or before is None or abs(timestamp - before[0]) > _MEMORY_MS:
            return
        if _ratio(price, before[1]) > self.max_jump:
            raise BadAnswer(
                f"the price of {host} is {price!r}, the one of {iso(before[0])} was {before[1]!r}: "
                f"more than {self.max_jump:g} times apart; set source.max_jump higher if the "
                "price is right, or try again later"
            )

    def prices(
        self, pairs: Sequence[tuple[Any, Any]], seen: Inspection, *, now_ms: int
    ) -> dict[int, float]:
        """The good prices of a chart's (stamp, price) pairs by stamp, ascending; the rest is noted.

        The first good price counts where a stamp comes twice.
        """
        latest = self.latest_ms(seen.reply, now_ms)
        good: dict[int, float] = {}
        for stamp, price in pairs:
            rule, reason = _broken_rule(stamp, price, latest)
            if rule:
                seen.refuse(stamp, "price", price, rule, reason)
            else:
                good.setdefault(int(stamp), price)
        ordered = dict(sorted(good.items()))
        if self.max_jump is not None and len(ordered) > _NEIGHBOURS:
            for stamp, around in _jumps(ordered, self.max_jump):
                reason = (
                    f"the price {ordered[stamp]!r} is more than {self.max_jump:g} times away from "
                    f"{around!r}, the median of the points around it (source.max_jump)"
                )
                seen.refuse(stamp, "price", ordered.pop(stamp), "price_jump", reason)
        return ordered

    def optional(self, timestamp: Any, name: str, value: Any, seen: Inspection) -> float | None:
        """A cap, volume or change: a finite number, or None; anything else is noted."""
        if value is None or _is_finite(value):
            return None if value is None else float(value)
        rule, reason = f"{name}_readable", f"the {name} {_shown(value)} is not a finite number"
        seen.refuse(timestamp, name, value, rule, reason)
        return None

    def _archive(self, seen: Inspection, reason: str, *, now_ms: int) -> str:
        """Keep the answer and the reason; returns the place as the end of a message, or ""."""
        if self.rejects is None:
            return ""
        body = seen.reply.body
        sha256 = hashlib.sha256(body).hexdigest()
        record = {
            "reason": reason,
            "sha256": sha256,
            "bytes": len(body),
            "kept_bytes": min(len(body), MOST_BYTES),
            "endpoint": seen.endpoint,
            "request": dict(seen.request),
            "status": seen.reply.status,
            "content_type": seen.reply.headers.get("content-type"),
            "received_at_ms": now_ms,
            "refused": dict(Counter(bad.rule for bad in seen.refused)),
            "points": [
                {**asdict(bad), "timestamp": _plain(bad.timestamp), "value": _plain(bad.value)}
                for bad in seen.refused[:_MOST_POINTS]
            ],
        }
        folder = self.rejects / FOLDER
        raw = folder / f"{sha256[:_SHORT]}.txt"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            durable_io.replace(raw, body[:MOST_BYTES])
            durable_io.replace(
                raw.with_suffix(".json"), json.dumps(record, indent=2).encode() + b"\n"
            )
            _delete_oldest(folder)
        except OSError as error:
            # A full disk must not hide the refusal itself.
            return f"; the answer could not be kept in {folder} ({error.strerror})"
        return f"; the answer is kept in {raw}"


def newest_landed(landing: Path, *, coin: str) -> tuple[int, float] | None:
    """Time (Unix ms) and price of the newest row of the coin's batch that is last by name, or None.

    A name holds the time of the first row, so one file is enough; files of other names do not count
    (see `batches.batch_name`).
    """
    pattern = f"{coin}_prices_{'[0-9]' * 8}_{'[0-9]' * 6}*.csv"
    names = [path.name for path in landing.glob(pattern)] if landing.is_dir() else []
    newest: tuple[int, float] | None = None
    if names:
        with (landing / max(names)).open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                try:
                    point = int(row["timestamp"]), float(row["price"])
                except (KeyError, TypeError, ValueError):
                    continue  # a person's own file; ingest reports it
                if point[1] > 0 and (newest is None or point[0] > newest[0]):
                    newest = point
    return newest


def _broken_rule(stamp: Any, price: Any, latest: int | None) -> tuple[str, str]:
    """The rule that a point breaks and the reason; both empty for a good point."""
    if not _is_finite(stamp) or not GENESIS_MS <= stamp < SECONDS_BELOW * 1000:
        return "timestamp_readable", f"the stamp {_shown(stamp)} is not in Unix milliseconds"
    if latest is not None and stamp > latest:
        return "not_in_future", f"the time {iso(int(stamp))} lies after {iso(latest)}"
    if price is None:
        return "price_present", "the price is null"
    if not isinstance(price, float):
        return "price_readable", f"the price {_shown(price)} is not a number"
    if not math.isfinite(price):
        return "price_finite", f"the price {_shown(price)} is not finite"
    if price <= 0:
        return "price_positive", f"the price {_shown(price)} is not above zero"
    return "", ""


def _jumps(prices: Mapping[int, float], bound: float) -> list[tuple[int, float]]:
    """(stamp, median) of each price that is too far from the median of the prices around it."""
    stamps, values = list(prices), list(prices.values())
    width = min(2 * _NEIGHBOURS + 1, len(values))
    found = []
    for place, value in enumerate(values):
        start = min(max(place - _NEIGHBOURS, 0), len(values) - width)
        around = median(values[start : start + width])
        if _ratio(value, around) > bound:
            found.append((stamps[place], around))
    return found


def _ratio(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _date_ms(reply: Reply) -> int | None:
    """The server's clock by its `Date` header, Unix ms; None without one."""
    try:
        return round(parsedate_to_datetime(reply.headers["date"]).timestamp() * 1000)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _beginning(body: bytes) -> str:
    text = " ".join(body[:4096].decode("utf-8", errors="replace").split())
    return f"beginning {text[:60]!r}" if text else "and an empty body"


def _shown(value: Any) -> str:
    return repr(value)[:60]


def _plain(value: Any) -> Any:
    """A value that strict JSON can hold; whole numbers as the source writes them."""
    if not _is_finite(value):
        return None if value is None else _shown(value)
    return int(value) if value.is_integer() else value


def _delete_oldest(folder: Path) -> None:
    """Keep the newest MOST_ANSWERS."""
    notes = [path for path in folder.glob("*.json") if not path.name.startswith(".")]
    for note in sorted(notes, key=lambda path: path.stat().st_mtime_ns)[:-MOST_ANSWERS]:
        note.unlink(missing_ok=True)
        note.with_suffix(".txt").unlink(missing_ok=True)
