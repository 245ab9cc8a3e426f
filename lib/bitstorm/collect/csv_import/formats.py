"""Files of well-known origin, recognised by their columns: what their stamps and prices are.

The meaning of CoinGecko's daily stamps changed on 2018-01-30. From that day on, a point stamped
D 00:00 UTC is the price at the start of D. Before, it is the price near the end of D: taken
literally, it knows a day of the future, so it moves to D + 24 h. A point of those years that is not
at midnight names its own moment and stays. The points of 2018-01-29 (moved) and of 2018-01-30 then
have the same time, so the second is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bitstorm.core.time import DAY_MS

Stamp = Literal["close", "open"]

BINANCE_COLUMNS = (
    "open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip

_INTEGER = re.compile(r"\d+", re.ASCII)
_BARS = {"open", "high", "low", "close"}


@dataclass(frozen=True)
class Form:
    """A known kind of file: the columns of its time and price, and what a stamp stands for.

    `end` is a column with the last moment of a bar, from which its length follows; without one it
    is the distance of the rows.
    """

    name: Literal["binance", "cryptodatadownload", "coingecko"]
    title: str
    time: str
    price: str
    stamp: Stamp
    end: str | None = None


def key(name: str) -> str:
    """A column's name for comparison: lower case, underscores for spaces."""
    return "_".join(name.lower().split())


def first_named(header: Sequence[str], names: Sequence[str]) -> str | None:
    """The column of the header that has the first of these names, as the file writes it."""
    found = {key(name): name for name in reversed(header)}
    return next((found[name] for name in names if name in found), None)


def binance_without_header(cells: Sequence[str]) -> bool:
    """Whether these cells are a row of Binance's klines, whose files mostly have no header."""
    if len(cells) != len(BINANCE_COLUMNS):
        return False
    start, end = cells[0].strip(), cells[6].strip()
    if not (_INTEGER.fullmatch(start) and _INTEGER.fullmatch(end)):
        return False
    return len(start) in (13, 16) and len(start) == len(end) and int(end) > int(start)


def recognised(header: Sequence[str]) -> Form | None:
    """The form whose columns these are, None for any other file."""
    names = {key(name) for name in header}
    time = first_named(header, ("open_time",))
    if time and _BARS | {"close_time"} <= names:
        end = first_named(header, ("close_time",))
        close = first_named(header, ("close",)) or ""
        return Form("binance", "klines of Binance", time, close, "open", end)
    time = first_named(header, ("unix", "unix_timestamp", "date"))
    if time and _BARS | {"symbol"} <= names and any(name.startswith("volume") for name in names):
        close = first_named(header, ("close",)) or ""
        return Form("cryptodatadownload", "bars of CryptoDataDownload", time, close, "open")
    time = first_named(header, ("snapped_at", "timestamp_ms", "timestamp"))
    price = next((n for n in header if re.fullmatch(r"price(_[a-z]+)?|prices", key(n))), None)
    if time and price and not names & _BARS and _begins(names, "market_cap", "total_volume"):
        return Form("coingecko", "an export of CoinGecko", time, price, "close")
    return None


def _begins(names: set[str], *starts: str) -> bool:
    return all(any(name.startswith(start) for name in names) for start in starts)


Action = Literal["move", "refuse", "keep"]

SWITCH_MS = 1_517_270_400_000  # 2018-01-30T00:00:00Z
_TOO_EARLY = "before 2018-01-30 a daily stamp of CoinGecko carries the price of the day's end"
_TWIN = "the same midnight as the point of 2018-01-29"


@dataclass(frozen=True)
class Switch:
    """How the points around the switch are taken; `early` and `moved` count those before it.

    `twin` says that both points of the midnight of the switch are there.
    """

    action: Action
    early: int
    moved: int
    twin: bool

    def taken(self, stamp_ms: int) -> tuple[int, str | None]:
        """The moment that a point describes (Unix ms), and why it is refused, None when not."""
        if stamp_ms >= SWITCH_MS:
            is_twin = self.action == "move" and self.twin and stamp_ms < SWITCH_MS + DAY_MS
            return stamp_ms, _TWIN if is_twin else None
        if self.action == "refuse":
            return stamp_ms, _TOO_EARLY
        return (stamp_ms + DAY_MS if self.action == "move" and _at_midnight(stamp_ms) else stamp_ms,
                None)  # fmt: skip

    @property
    def correction(self) -> dict[str, Any] | None:
        """What the sidecar says of it, None when nothing is changed."""
        if self.action == "keep":
            return None
        stated: dict[str, Any] = {"daily_switch": self.action, "before_ms": SWITCH_MS}
        if self.action == "refuse":
            return {**stated, "refused_rows": self.early}
        return {
            **stated,
            "shifted_ms": DAY_MS,
            "shifted_rows": self.moved,
            "refused_rows": int(self.twin),
        }

    @property
    def note(self) -> str:
        """The same in a sentence, for who looks at the import."""
        points = f"{self.early:,} daily points before 2018-01-30 carry the price of the day's end"
        if self.action == "refuse":
            return f"{points}: they are refused (import.daily_switch)"
        if self.action == "keep":
            return f"{points}, a day too early, and are kept so (import.daily_switch)"
        twin = "; that of 2018-01-30 is refused, it repeats the one before it" if self.twin else ""
        return f"{points}: {self.moved:,} of them are moved to it, by 24 h{twin}"


def switch_of(stamps: Iterable[int | None], action: Action) -> Switch | None:
    """How a daily series with these stamps (Unix ms) is taken; None when it is all of one kind."""
    early = moved = 0
    last_early = first_late = False
    for stamp in stamps:
        if stamp is None:
            continue
        if stamp < SWITCH_MS:
            early += 1
            moved += _at_midnight(stamp)
            last_early = last_early or stamp == SWITCH_MS - DAY_MS
        else:
            first_late = first_late or stamp < SWITCH_MS + DAY_MS
    return Switch(action, early, moved, last_early and first_late) if early else None


def _at_midnight(stamp_ms: int) -> bool:
    return stamp_ms % DAY_MS == 0
