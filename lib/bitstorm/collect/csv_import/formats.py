"""Known forms of files, recognised by their columns: the meaning of their stamps and prices.

The meaning of CoinGecko's daily stamps changed on 2018-01-30. From that day on, a point stamped
D 00:00 UTC is the price at the start of D. Before, it is the price near the end of D: unchanged, it
knows a day of the future, so it moves to D + 24 h. A point of those years that is not at midnight
names its own moment and stays. The points of 2018-01-29 (moved) and of 2018-01-30 then have the
same time, so the second is refused.
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
    """A known form: the columns of its time and price, and the moment of a bar that a stamp names.

    `end` is the column with a bar's last moment, which gives its length; without it the distance of
    the rows does.
    """

    name: Literal["binance", "cryptodatadownload", "coingecko"]
    title: str
    time: str
    price: str
    stamp: Stamp
    end: str | None = None


def key(name: str) -> str:
    """A column's name to compare: lower case, underscores for spaces."""
    return "_".join(name.lower().split())


def first_named(header: Sequence[str], names: Sequence[str]) -> str | None:
    """The header's column for the first of these names it has, in the file's own spelling."""
    found = {key(name): name for name in reversed(header)}
    return next((found[name] for name in names if name in found), None)


def binance_without_header(cells: Sequence[str]) -> bool:
    """Whether these cells are a row of Binance's klines; most of these files have no header."""
    if len(cells) != len(BINANCE_COLUMNS):
        return False
    start, end = cells[0].strip(), cells[6].strip()
    if not (_INTEGER.fullmatch(start) and _INTEGER.fullmatch(end)):
        return False
    return len(start) in (13, 16) and len(start) == len(end) and int(end) > int(start)


def known_form(header: Sequence[str]) -> Form | None:
    """The form with these columns, None for any other file."""
    names = {key(name) for name in header}
    close = first_named(header, ("close",)) or ""
    time = first_named(header, ("open_time",))
    if time and _BARS | {"close_time"} <= names:
        end = first_named(header, ("close_time",))
        return Form("binance", "klines of Binance", time, close, "open", end)
    time = first_named(header, ("unix", "unix_timestamp", "date"))
    if time and _BARS | {"symbol"} <= names and _any_begins(names, "volume"):
        return Form("cryptodatadownload", "bars of CryptoDataDownload", time, close, "open")
    time = first_named(header, ("snapped_at", "timestamp_ms", "timestamp"))
    price = next((n for n in header if re.fullmatch(r"price(_[a-z]+)?|prices", key(n))), None)
    sums = _any_begins(names, "market_cap") and _any_begins(names, "total_volume")
    if time and price and sums and not names & _BARS:
        return Form("coingecko", "an export of CoinGecko", time, price, "close")
    return None


def _any_begins(names: set[str], start: str) -> bool:
    return any(name.startswith(start) for name in names)


Action = Literal["move", "refuse", "keep"]

SWITCH_MS = 1_517_270_400_000  # 2018-01-30T00:00:00Z
_TOO_EARLY = "before 2018-01-30 a daily stamp of CoinGecko carries the price of the day's end"
_TWIN = "the same midnight as the point of 2018-01-29"


@dataclass(frozen=True)
class Switch:
    """The rule for the points around the switch; `early` and `moved` count the points before it.

    `twin`: both points of the midnight of the switch are in the file.
    """

    action: Action
    early: int
    moved: int
    twin: bool

    def moment(self, stamp_ms: int) -> tuple[int, str | None]:
        """The moment of a point's price (Unix ms), and the reason to refuse it or None."""
        if stamp_ms >= SWITCH_MS:
            is_twin = self.action == "move" and self.twin and stamp_ms < SWITCH_MS + DAY_MS
            return stamp_ms, _TWIN if is_twin else None
        if self.action == "refuse":
            return stamp_ms, _TOO_EARLY
        moves = self.action == "move" and _at_midnight(stamp_ms)
        return stamp_ms + DAY_MS * moves, None

    @property
    def correction(self) -> dict[str, Any] | None:
        """The entry in the sidecar, None without a change."""
        stated: dict[str, Any] = {"daily_switch": self.action, "before_ms": SWITCH_MS}
        if self.action == "keep":
            return None
        if self.action == "refuse":
            return {**stated, "refused_rows": self.early}
        moved = {"shifted_ms": DAY_MS, "shifted_rows": self.moved, "refused_rows": int(self.twin)}
        return {**stated, **moved}

    @property
    def note(self) -> str:
        """The same as a sentence, for the user of the import."""
        points = f"{self.early:,} daily points before 2018-01-30 carry the price of the day's end"
        if self.action == "refuse":
            return f"{points}: they are refused (import.daily_switch)"
        if self.action == "keep":
            return f"{points}, a day too early, and stay unchanged (import.daily_switch)"
        twin = (
            "; the point of 2018-01-30 repeats the one before and is refused" if self.twin else ""
        )
        return f"{points}: {self.moved:,} of them move to it, by 24 h{twin}"


def switch_of(stamps: Iterable[int | None], action: Action) -> Switch | None:
    """The rule for a daily series with these stamps (Unix ms); None if all are after the switch."""
    times = [stamp for stamp in stamps if stamp is not None]
    early = [time for time in times if time < SWITCH_MS]
    twin = SWITCH_MS - DAY_MS in early and any(0 <= t - SWITCH_MS < DAY_MS for t in times)
    return Switch(action, len(early), sum(map(_at_midnight, early)), twin) if early else None


def _at_midnight(stamp_ms: int) -> bool:
    return stamp_ms % DAY_MS == 0
