"""Batches as they come when something went wrong, each with what must become of it.

Every kind is told by its name and drawn from a seeded generator; `rows` are the observations that
the data set must hold of it, worked out here and not by the library.
"""

from __future__ import annotations

import json
import os
import random
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from faults.publishing import HOUR, JANUARY


@dataclass
class Broken:
    """`refused` are the texts of refused rows, `rule` that of a batch refused as a whole;
    `waits` is a batch that must not be taken yet."""

    content: bytes
    rows: dict[int, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    rule: str | None = None
    waits: bool = False
    sidecar: str | None = None

    @property
    def read(self) -> int:
        return len(self.rows) + len(self.refused)


def _rows(rng: random.Random, slot: int, count: int = 12) -> dict[int, float]:
    """Times that no other slot has, over three months; prices that a float32 holds exactly."""
    stamps = rng.sample(range(0, 85 * 24), count)
    return {JANUARY + stamp * HOUR + slot: rng.randrange(1, 1 << 20) / 16 for stamp in stamps}


def _text(rows: dict[int, float], *, end: str = "\n", header: str = "timestamp,price") -> str:
    return end.join([header, *(f"{stamp},{price}" for stamp, price in rows.items())]) + end


def _with_bad(rows: dict[int, float], bad: list[str]) -> Broken:
    lines = _text(rows).splitlines()
    at = max(1, len(lines) // 2)  # never before the header
    lines[at:at] = bad
    return Broken(("\n".join(lines) + "\n").encode(), rows, bad)


def _iso(stamp: int) -> str:
    moment = datetime.fromtimestamp(stamp // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{stamp % 1000:03d}Z"


def _edges(slot: int) -> Broken:
    """The last and first millisecond of days that New York's clocks change, and of months."""
    days = ["2021-03-14", "2021-03-15", "2021-11-07", "2021-11-08", "2021-11-01", "2021-04-01"]
    rows: dict[int, float] = {}
    for number, day in enumerate(days):
        midnight = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000
        # The slot keeps the prices of the same times equal in every batch.
        rows[midnight - 1] = 100.0 + number
        rows[midnight] = 200.0 + number
    lines = ["timestamp,price"]
    for number, (stamp, price) in enumerate(rows.items()):
        lines.append(f"{_iso(stamp) if (number + slot) % 2 else stamp},{price}")
    return Broken(("\n".join(lines) + f"\n{' ' * slot}\n").encode(), rows)


def _cut(rows: dict[int, float]) -> Broken:
    return Broken((_text(rows) + "16094").encode(), rows, ["16094"])


def _utf16(rows: dict[int, float]) -> Broken:
    return Broken(_text(rows).encode("utf-16"), rule="batch_utf8")


KINDS: dict[str, Callable[[random.Random, int], Broken]] = {
    "good": lambda rng, slot: _good(rng, slot),
    "extra": lambda rng, slot: Broken(
        f"timestamp,price,colour\n{JANUARY + slot},1,2\n".encode(), rule="columns_known"
    ),
    "missing": lambda rng, slot: Broken(
        f"timestamp,market_cap\n{JANUARY + slot},1\n".encode(), rule="columns_present"
    ),
    "repeated": lambda rng, slot: Broken(
        f"timestamp,price,price_usd\n{JANUARY + slot},1,1\n".encode(), rule="columns_unique"
    ),
    "bom": lambda rng, slot: _encoded(_rows(rng, slot), "utf-8-sig", "\n"),
    "bom alone": lambda rng, slot: Broken(b"\xef\xbb\xbf", rule="batch_readable"),
    "crlf": lambda rng, slot: _encoded(_rows(rng, slot), "utf-8", "\r\n"),
    "utf16": lambda rng, slot: _utf16(_rows(rng, slot)),
    "nul": lambda rng, slot: _with_bad(_rows(rng, slot, 40), [f"{JANUARY + slot},5\0"]),
    "quote": lambda rng, slot: _with_bad(_rows(rng, slot), [f'{JANUARY + slot},"5']),
    "bytes": lambda rng, slot: _latin(_rows(rng, slot), slot),
    "cut": lambda rng, slot: _cut(_rows(rng, slot)),
    "wrong hash": lambda rng, slot: Broken(
        _text(_rows(rng, slot)).encode(), rule="sidecar_hash", sidecar="0" * 64
    ),
    "growing": lambda rng, slot: Broken(_text(_rows(rng, slot)).encode(), waits=True),
    "empty": lambda rng, slot: Broken(b"", rule="batch_readable"),
    "header": lambda rng, slot: Broken(f"timestamp,price\n{chr(10) * slot}".encode()),
    "all bad": lambda rng, slot: _with_bad({}, [f"never{slot},1", f"{JANUARY},dear"]),
    "edges": lambda rng, slot: _edges(slot),
}


def _good(rng: random.Random, slot: int) -> Broken:
    rows = _rows(rng, slot)
    content = _text(rows).encode()
    return Broken(content, rows, sidecar=sha256(content).hexdigest())


def _encoded(rows: dict[int, float], encoding: str, end: str) -> Broken:
    return Broken(_text(rows, end=end).encode(encoding), rows)


def _latin(rows: dict[int, float], slot: int) -> Broken:
    made = _with_bad(rows, [f"{JANUARY + slot},5€"])
    made.content = made.content.replace("€".encode(), b"\xa4")
    made.refused = [f"{JANUARY + slot},5\ufffd"]
    return made


def drop(landing: Path, name: str, made: Broken) -> Path:
    landing.mkdir(parents=True, exist_ok=True)
    path = landing / name
    if made.sidecar is not None:
        record = {
            "rows": made.read,
            "sha256": made.sidecar,
            "source": "simulated:7",
            "coin": "bitcoin",
            "vs_currency": "usd",
            "granularity_ms": HOUR,
            "first_ms": None,
            "last_ms": None,
            "fetched_at": 1_700_000_000_000,
        }
        path.with_name(f"{name}.json").write_text(json.dumps(record))
    path.write_bytes(made.content)
    # One that is still written to stays young, however slow the test is.
    moment = time.time() + (3600 if made.waits else -60)
    os.utime(path, (moment, moment))
    return path


def float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]
