"""Numbers as people read them. Every function gives `n/a` for None and for NaN."""

from __future__ import annotations

import math
import re

NONE = "n/a"


def _text(value: float | None, form: str) -> str:
    return NONE if value is None or not math.isfinite(value) else form.format(value)


def amount(value: float | None) -> str:
    """Two decimals and thousands separators; six significant digits below 1: `0.0812345`."""
    return _text(value, "{:.6g}" if value and abs(value) < 1 else "{:,.2f}")


def money(value: float | None, unit: str) -> str:
    """`67,123.45 USD`."""
    text = amount(value)
    return text if text == NONE else f"{text} {unit}"


def small(value: float | None) -> str:
    """Four significant digits, for log returns and losses: `0.004213`, `2.1e-07`."""
    return _text(value, "{:.4g}")


def score(value: float | None) -> str:
    """A skill, as the verdict writes it: `+0.0021`."""
    return _text(value, "{:+,.4f}")


def percent(value: float | None) -> str:
    """A change in percent: `+1.25 %`."""
    return _text(value, "{:+,.2f} %")


def share(value: float | None, *, digits: int = 1) -> str:
    """A fraction as percent: 0.8 → `80.0 %`."""
    return _text(None if value is None else 100 * value, f"{{:.{digits}f}} %")


def count(value: int | None) -> str:
    """`8,760`."""
    return NONE if value is None else f"{value:,d}"


def moment(iso: str | None) -> str:
    """`2024-03-01 12:00 UTC` of `2024-03-01T12:00:00Z`; other texts stay as they are."""
    if not iso:
        return NONE
    match = re.fullmatch(r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2})(:\d{2}(?:\.\d+)?)?Z", iso)
    if match is None:
        return iso
    date, minutes, seconds = match.groups()
    return f"{date} {minutes}{seconds if seconds and seconds != ':00' else ''} UTC"
