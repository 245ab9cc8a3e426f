"""How a foreign file is taken, with the user's options by name."""

from pathlib import Path
from typing import Any

from bitstorm.collect.csv_import.reading import ImportOptions, Reading, read_options


def reading_of(
    file: Path, *, daily_switch: Any = "move", vs_currency: str = "usd", **options: Any
) -> Reading:
    wanted = ImportOptions(file, **options)
    return read_options(wanted, daily_switch=daily_switch, vs_currency=vs_currency)
