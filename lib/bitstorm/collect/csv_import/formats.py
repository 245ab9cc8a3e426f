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
from dataclasses import dataclass, replace
from typing import Any, Literal

from bitstorm.core.time import DAY_MS

Stamp = Literal["close", "open"]

_INTEGER = re.compile(r"\d+", re.ASCII)
_PLAIN = re.compile(r"\d+(\.\d+)?", re.ASCII)
_BARS = ("open", "high", "low", "close")
BINANCE_COLUMNS = (
    "open_time", *_BARS, "volume", "close_time", "quote_volume", "count",
    "taker_buy_volume", "taker_buy_quote_volume", "ignore",
)  # fmt: skip


@dataclass(frozen=True)
class Form:
    """A known form: the columns of its time and price, and the moment of a bar that a stamp names.

    `end` is the column with a bar's last moment, which gives its length; without it the distance of
    the rows does. `opening` is the column with a bar's first moment where `time` is another one.
    `date_format` is the pattern of its dates where day and month can be exchanged.
    """

    name: str
    title: str
    time: str
    price: str
    others: tuple[str, ...]
    stamp: Stamp = "open"
    end: str | None = None
    opening: str | None = None
    date_format: str = ""


# The first that fits counts. Names are written as `key` does: of the time's the first one there
# counts, the price's and the others that a file has are patterns.
_KNOWN = (
    Form("binance", "klines of Binance", "open_time", "close", (*_BARS, "close_time"),
          end="close_time"),
    Form("cryptodatadownload", "bars of CryptoDataDownload", "unix|unix_timestamp|date",
          "close", (*_BARS, "symbol", "volume.*")),
    Form("coinmarketcap", "bars of CoinMarketCap", "timestamp|timeclose", "close",
          (*_BARS, "timeopen", "timeclose"), stamp="close", end="timeclose", opening="timeopen"),
    Form("coinmarketcap", "bars of CoinMarketCap", "date", "close", (*_BARS, "market_?cap")),
    Form("coingecko", "an export of CoinGecko", "snapped_at|timestamp_ms|timestamp",
          "price(_[a-z]+)?|prices", ("market_cap.*", "total_volume.*"), stamp="close"),
    Form("metatrader", "bars of MetaTrader", "date", "close", (*_BARS, "<close>")),
    Form("date_and_time", "bars with date and time in two columns", "date", "close",
          (*_BARS, "time")),
    Form("kraken", "bars of Kraken", "time|timestamp", "close",
          (*_BARS, "vwap|trades|count")),
    Form("yahoo", "bars of Yahoo Finance", "date|datetime", "close",
          (*_BARS, "adj_close|dividends|ticker")),
    Form("tradingview", "bars of TradingView", "time", "close", _BARS),
    Form("investing", "an export of Investing.com", "date", "price",
          ("open", "high", "low", "vol|change")),
    Form("investing", "an export of Investing.com in German", "datum", "zuletzt",
          ("eröffn.*", "hoch", "tief"), date_format="%d.%m.%Y"),
)  # fmt: skip


def key(name: str) -> str:
    """A column's name to compare: lower case, its words joined by underscores."""
    return re.sub(r"[\W_]+", "_", name.lower()).strip("_")


def first_named(header: Sequence[str], names: Sequence[str]) -> str | None:
    """The header's column for the first of these names it has, in the file's own spelling."""
    found = {key(name): name for name in reversed(header)}
    return next((found[name] for name in names if name in found), None)


def columns_without_header(cells: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of a well-known export that has no header, from its first row."""
    cells = [cell.strip() for cell in cells]
    if len(cells) == len(BINANCE_COLUMNS):
        start, end = cells[0], cells[6]
        integers = _INTEGER.fullmatch(start) and _INTEGER.fullmatch(end)
        if integers and len(start) in (13, 16) and len(start) == len(end) and int(end) > int(start):
            return BINANCE_COLUMNS
    seconds = re.fullmatch(r"1\d{9}(\.\d+)?", cells[0])
    if seconds and len(cells) in (7, 8) and _is_bar(cells[1:5]) and _INTEGER.fullmatch(cells[-1]):
        return ("time", *_BARS, *("vwap", "volume", "trades")[8 - len(cells) :])
    if seconds and len(cells) == 3 and all(map(_PLAIN.fullmatch, cells)):
        return ("time", "price", "volume")
    clock = len(cells) == 7 and re.fullmatch(r"\d\d:\d\d", cells[1])
    if clock and re.fullmatch(r"\d{4}\.\d\d\.\d\d", cells[0]) and _is_bar(cells[2:6]):
        return tuple(f"<{name.upper()}>" for name in ("date", "time", *_BARS, "tickvol"))
    return None


def _is_bar(cells: Sequence[str]) -> bool:
    """Whether these are open, high, low and close."""
    try:
        start, high, low, end = map(float, cells)
    except ValueError:
        return False
    return 0 < low <= min(start, end) <= max(start, end) <= high


def known_form(header: Sequence[str], header_rows: Iterable[Sequence[str]] = ()) -> Form | None:
    """The form with these columns, None for any other file."""
    spellings = [*header, *(name for row in header_rows for name in row)]
    names = {name.lower() for name in spellings} | {key(name) for name in spellings}
    for known in _KNOWN:
        time = first_named(header, known.time.split("|"))
        price = next((name for name in header if re.fullmatch(known.price, key(name))), None)
        others = all(any(re.fullmatch(other, name) for name in names) for other in known.others)
        if time and price and others and (known.name != "coingecko" or "open" not in names):
            end = known.end and first_named(header, (known.end,))
            opening = known.opening and first_named(header, (known.opening,))
            return replace(known, time=time, price=price, end=end, opening=opening)
    return None


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
