"""`_metadata` and `_common_metadata`, rebuilt with pyarrow from the files that are there.

Spark writes both inside `materialize_dataset`, but lists only what it wrote itself, and deletes
both where footers' key-values differ (another Spark, a file written by pyarrow). petastorm then
skips what is not listed without a word. Rebuilt from every footer, they are right for any mix.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from bitstorm.core import durable_io
from bitstorm.core.errors import SealBroken, first_line
from bitstorm.core.schema import Table

if TYPE_CHECKING:
    from petastorm.unischema import Unischema

METADATA = "_metadata"
COMMON_METADATA = "_common_metadata"
# Where petastorm looks for the pickled Unischema (petastorm.etl.dataset_metadata).
UNISCHEMA_KEY = b"dataset-toolkit.unischema.v1"


def arrow_schema(table: Table) -> pa.Schema:
    """The stored columns (without the partition), all nullable as in any file of Spark's."""
    return pa.schema([pa.field(f.name, pa.type_for_alias(f.kind)) for f in table.stored])


def write(folder: Path, files: Sequence[str], table: Table, schema: Unischema) -> None:
    """Both files for the Parquet files at these paths inside the folder.

    Raises SealBroken for a file without a readable footer, or with other columns than the rest.
    """
    collected: pq.FileMetaData | None = None
    for path in files:
        try:
            footer = pq.read_metadata(folder / path)
            footer.set_file_path(path)
            if collected is None:
                collected = footer
            else:
                collected.append_row_groups(footer)
        except (pa.ArrowException, RuntimeError) as error:
            raise SealBroken(
                f"{path} does not go with the other files ({first_line(error)})"
            ) from None
    if collected is not None:
        with durable_io.replacing(folder / METADATA) as out:
            collected.write_metadata_file(out)
    common = arrow_schema(table).with_metadata({UNISCHEMA_KEY: pickle.dumps(schema, protocol=4)})
    with durable_io.replacing(folder / COMMON_METADATA) as out:
        pq.write_metadata(common, out)
