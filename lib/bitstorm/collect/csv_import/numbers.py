"""Numbers of foreign files: thousands separators, decimal commas and currency signs taken out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

Decimal = Literal[".", ","]

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SIGNS = "$€£¥₿"
# The separator between groups is one and the same, whatever it is.
_GROUPED = {
    ".": re.compile(r"([+-]?)(\d{1,3}(?:([,'’ \u00a0\u202f])\d{3})(?:\3\d{3})*)(?:\.(\d+))?"),
    ",": re.compile(r"([+-]?)(\d{1,3}(?:([.'’ \u00a0\u202f])\d{3})(?:\3\d{3})*|\d+)(?:,(\d+))?"),
}
_NO_DIGIT = re.compile(r"\D")
_COMMA_FOR_SURE = re.compile(r"\d+,(\d{1,2}|\d{4,})|\d{1,3}(\.\d{3})+,\d+|\d{1,3}(\.\d{3}){2,}")
_POINT_FOR_SURE = re.compile(r"\d+\.(\d{1,2}|\d{4,})|\d{1,3}(,\d{3})+\.\d+|\d{1,3}(,\d{3}){2,}")
_EITHER = re.compile(r"\d{1,3},\d{3}")


def plain(text: str, decimal: Decimal) -> str:
    """The number as a batch has it: digits and a point. What is no such number stays as it is,
    with a remark where ingest might take it for another one."""
    if decimal == "." and _PLAIN.fullmatch(text):
        return text
    match = _GROUPED[decimal].fullmatch(_unsigned(text))
    if match is not None:
        sign, whole, _, fraction = match.groups()
        return sign + _NO_DIGIT.sub("", whole) + (f".{fraction}" if fraction else "")
    if decimal == "," and _PLAIN.fullmatch(text):
        return f"{text} (no number with a decimal comma)"
    return text


def guessed_decimal(texts: Sequence[str]) -> tuple[Decimal, bool]:
    """The mark before the fraction in these numbers, and whether they leave a doubt about it.

    `1,234` may be either; such numbers alone are taken to have thousands separators.
    """
    bare = [_unsigned(text).lstrip("+-") for text in texts]
    comma = any(_COMMA_FOR_SURE.fullmatch(text) for text in bare)
    point = any(_POINT_FOR_SURE.fullmatch(text) for text in bare)
    if comma and not point:
        return ",", False
    return ".", comma or (not point and any(_EITHER.fullmatch(text) for text in bare))


def _unsigned(text: str) -> str:
    return text.strip(_SIGNS).strip()
