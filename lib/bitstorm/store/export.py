"""A DataFrame of any length as one CSV file, row by row."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from bitstorm.core import durable_io
from bitstorm.core.errors import StoreError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def check_target(path: Path) -> None:
    """Raise UsageError where no CSV file can be put: to be told before any work is done."""
    if path.suffix != ".csv":
        raise UsageError(f"the file {path} is no plain CSV by its name; expected one with .csv")
    if not path.parent.is_dir():
        raise UsageError(f"the folder of {path} is not there: make it, or choose another one")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"nothing can be written to the folder of {path}: choose another one")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is there and is no file: choose another name")


def write_csv(rows: DataFrame, path: Path) -> int:
    """Write the rows, in their order, as UTF-8 CSV with a header; return how many there are.

    Times stay int64, doubles are written to the last digit, null is empty. Only one partition of
    the rows is on the driver at a time. A file that is there is replaced at one moment, when all
    is written. Raises StoreError when nothing can be written there.
    """
    count = 0
    try:
        with durable_io.replacing(path) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(rows.columns)
            for row in rows.toLocalIterator():
                writer.writerow(row)
                count += 1
            text.detach()
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror or error}): make room, or choose a folder "
            "that you may write to"
        ) from None
    return count
