"""Which observation stands where several state the same time.

The winner has the finer granularity, then the later `fetched_at`, then the smaller batch hash,
then the earlier line. No part of that depends on the order in which batches arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitstorm.schema import PARTITION

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# The provenance of a row: its batch's hash, its line there, and what decides between batches.
LINEAGE_COLUMNS = ("batch", "line", "granularity_ms", "fetched_at")


def with_place(rows: DataFrame) -> DataFrame:
    """Add `place`: 1 for the observation that stands at its timestamp, 2 and on for the others.

    Needs `timestamp`, its `month` and the lineage columns; `granularity_ms` and `fetched_at` may
    be null, which ranks lowest. The rows come out with each month in one partition, by time: as
    they are written, so that one shuffle and one sort serve both.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    order = Window.partitionBy(PARTITION, "timestamp").orderBy(
        F.col("granularity_ms").asc_nulls_last(),
        F.col("fetched_at").desc_nulls_last(),
        F.col("batch").asc(),
        F.col("line").asc(),
    )
    return rows.repartition(PARTITION).withColumn("place", F.row_number().over(order))
