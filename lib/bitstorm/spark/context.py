"""What the other rooms need of a classic session's SparkContext, which a remote session lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bitstorm.spark.environment import is_local

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# More than a Spark has cores.
_MANY = 1 << 16


def slots(session: SparkSession) -> int:
    """The number of tasks that Spark runs at the same time by default."""
    from pyspark.sql import functions as F
    from pyspark.sql.utils import is_remote

    if not is_remote():
        return int(session.sparkContext.defaultParallelism)
    # A range has as many partitions.
    numbers = session.range(_MANY).select(F.spark_partition_id().alias("number"))
    (row,) = numbers.agg(F.max("number")).collect()
    return int(row[0]) + 1


def is_cluster(session: SparkSession) -> bool:
    """Whether executors are processes of their own; False for a remote session, which hides it."""
    from pyspark.sql.utils import is_remote

    return not is_remote() and not is_local(session.sparkContext.master)


@contextmanager
def restored_hadoop_settings(session: SparkSession, keys: Sequence[str]) -> Iterator[None]:
    """These settings of Hadoop have their values again after the block."""
    hadoop = session.sparkContext._jsc.hadoopConfiguration()
    before = {key: hadoop.get(key) for key in keys}
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                hadoop.unset(key)
            else:
                hadoop.set(key, value)
