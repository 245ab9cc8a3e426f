"""Files of well-known origin, recognised by their columns: what their stamps and prices are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
