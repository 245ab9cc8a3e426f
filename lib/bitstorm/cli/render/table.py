"""What all results share: a table, a count with its noun, the words for a source."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

_WIDTH = 100


def count_text(count: int, thing: str) -> str:
    """`1 call`, `2,000 calls`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def source_text(label: str) -> str:
    """The source of a workspace in words."""
    kind, _, detail = label.partition(":")
    return f"SIMULATED market, seed {detail}" if kind == "simulated" else label


def table(
    rows: Sequence[Sequence[str]], *, heading: bool = False, whole: bool = False
) -> list[str]:
    """Aligned columns; long cells wrap inside their own column.

    `whole`: nothing is cut or wrapped, for an ID or a price that is shown is there to be copied.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        box=box.SIMPLE_HEAD if heading else None, show_header=heading, pad_edge=heading or not whole
    )
    body = list(rows)
    columns = body.pop(0) if heading else ("",) * len(body[0])
    for place, column in enumerate(columns):
        drawn.add_column(
            column, justify="right" if heading and place else "left", no_wrap=whole or not place
        )
    for row in body:
        drawn.add_row(*[Text(cell) for cell in row])
    stream = StringIO()
    Console(file=stream, width=100_000 if whole else _WIDTH, color_system=None).print(drawn)
    return [line.rstrip() for line in stream.getvalue().splitlines() if line.strip()]
