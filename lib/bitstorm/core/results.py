"""Results that print themselves: a table of text in a terminal, of HTML in a notebook."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, TypeVar

from bitstorm.core.time import Span, age_text, iso

_DURATIONS = ("age_ms", "granularity_ms")
_MOST_ITEMS = 3

T = TypeVar("T")


class Result:
    """What a dataclass with `repr=False` inherits: its fields print as a table of two columns."""

    def facts(self) -> Mapping[str, Any]:
        """What is printed, by name. Names in `_ms` are times (Unix ms) and print as ISO-8601."""
        return _fields_of(self)

    def __repr__(self) -> str:
        return _as_text(_pairs(self.facts()))

    def _repr_html_(self) -> str:
        return _as_html(_pairs(self.facts()))


class Named(Result, dict[str, T]):
    """Results by name."""

    def facts(self) -> Mapping[str, Any]:
        return self


class Listed(list[T]):
    """Results that print as one table, a line each."""

    def _rows(self) -> list[list[str]]:
        found = [dict(_pairs(_facts_of(item))) for item in self]
        return [[*found[0]], *[[*one.values()] for one in found]] if found else [["none"]]

    def __repr__(self) -> str:
        return _as_text(self._rows())

    def _repr_html_(self) -> str:
        return _as_html(self._rows(), heading=True)


def _facts_of(value: Any) -> Mapping[str, Any]:
    return value.facts() if isinstance(value, Result) else _fields_of(value)


def _fields_of(value: Any) -> Mapping[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _pairs(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (name.removesuffix("_ms").replace("_", " "), _text(name, value))
        for name, value in facts.items()
    ]


def _text(name: str, value: Any) -> str:
    """A value in one line, however much is in it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Span):
        return f"{iso(value.start)} to {iso(value.end)}"
    if isinstance(value, int):
        if name in _DURATIONS:
            return age_text(value)
        if name.endswith("_ms") or name == "timestamp":
            return iso(value)
        return str(value) if name == "seed" else f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.8g}"
    if dataclasses.is_dataclass(value) or isinstance(value, Mapping | Result):
        facts = value if isinstance(value, Mapping) else _facts_of(value)
        return ", ".join(f"{label} {text}" for label, text in _pairs(facts)) or "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = [_text("", item) for item in value[:_MOST_ITEMS]]
        more = [f"… ({len(value):,} in all)"] if len(value) > _MOST_ITEMS else []
        return "; ".join([*shown, *more]) or "none"
    return str(value)


def _as_text(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; the last one has no padding."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _as_html(rows: Sequence[Sequence[str]], *, heading: bool = False) -> str:
    def line(row: Sequence[str], tags: Sequence[str]) -> str:
        cells = (
            f'<{tag} style="text-align: left">{escape(cell)}</{tag}>'
            for tag, cell in zip(tags, row, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    body = [
        line(row, ["th" if heading and not n else "td"] * len(row)) for n, row in enumerate(rows)
    ]
    return f"<table>{''.join(body)}</table>"
