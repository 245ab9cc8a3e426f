"""Points of the grid → windows → batches for the network.

A window is `look_back` consecutive points of one segment, oldest first, flattened point by point;
its target lies `horizon` points after its last one, in the same segment, and is never imputed.
"""

from __future__ import annotations

import re
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bitstorm.errors import ModelError
from bitstorm.model.scaling import Scaler
from bitstorm.quiet import third_party_warnings_hushed
from bitstorm.workspace import file_url

if TYPE_CHECKING:
    import numpy as np
    from petastorm.spark import SparkDatasetConverter
    from pyspark.sql import DataFrame

Target = Literal["log_return", "price"]


def with_target(points: DataFrame, *, horizon: int, target: Target) -> DataFrame:
    """Append `target_timestamp`, `target_price` and `target` (double, unscaled).

    `log_return` is log(p[t+h] / p[t]), `price` is p[t+h]. Null where the segment ends before or
    the price there is imputed.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    ahead = Window.partitionBy("segment").orderBy("position")
    price = F.col("price").cast("double")
    then = F.when(~F.lead("imputed", horizon).over(ahead), F.lead(price, horizon).over(ahead))
    value = (
        F.log(F.col("target_price") / price) if target == "log_return" else F.col("target_price")
    )
    return points.select(
        "*",
        F.lead("timestamp", horizon).over(ahead).alias("target_timestamp"),
        then.alias("target_price"),
    ).withColumn("target", value)


def to_windows(
    points: DataFrame, *, features: Sequence[str], look_back: int, scaler: Scaler
) -> DataFrame:
    """`timestamp`, `price`, `target_timestamp`, `target_price`, `target` (scaled) and `window`.

    `window` is an array<double> of look_back * len(features) scaled values. Rows whose window is
    not whole, or holds a null, are left out; the target may be null.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    trailing = Window.partitionBy("segment").orderBy("position").rowsBetween(1 - look_back, 0)
    scaled = [
        (F.col(name).cast("double") - scale.shift) / scale.scale
        for name, scale in ((name, scaler.features[name]) for name in features)
    ]
    whole = F.lit(True)
    for column in scaled:
        whole = whole & column.isNotNull()
    # collect_list leaves nulls out: a window with one comes out short and is dropped.
    point = F.when(whole, F.array(*scaled))
    return points.select(
        "timestamp",
        F.col("price").cast("double").alias("price"),
        "target_timestamp",
        "target_price",
        ((F.col("target") - scaler.target.shift) / scaler.target.scale).alias("target"),
        F.flatten(F.collect_list(point).over(trailing)).alias("window"),
    ).where(F.size("window") == look_back * len(features))


_PLAIN = re.compile(r"[A-Za-z0-9._/=-]+")


@dataclass(frozen=True)
class Feed:
    """Windows in a converter's data set, served in batches of fixed shape.

    Every pass opens a reader of its own and closes it: a reader is good for one pass.
    """

    converter: SparkDatasetConverter
    look_back: int
    features: int

    def __len__(self) -> int:
        return len(self.converter)

    def batches(self, *, batch_size: int) -> Iterator[dict[str, np.ndarray]]:
        """One pass in the order of the files: `window` is float32 (n, look_back, features), the
        other columns are (n,); n is `batch_size` but for the last batch.

        Raises ModelError when the pass ends with other than the feed's number of windows. The
        caller hushes third parties' warnings: filters are the whole process's, and this may run
        in a thread of TensorFlow's.
        """
        served = 0
        with self.converter.make_tf_dataset(
            batch_size=batch_size,
            num_epochs=1,
            workers_count=1,
            # petastorm's thread pool can take "not begun" for "done" and lose a pass.
            reader_pool_type="dummy",
            shuffle_row_groups=False,
        ) as dataset:
            for batch in dataset.as_numpy_iterator():
                columns = batch._asdict()
                shape = (-1, self.look_back, self.features)
                served += len(columns["window"])
                yield {**columns, "window": columns["window"].reshape(shape)}
        if served != len(self):
            raise ModelError(
                f"a pass over the windows served {served}, expected {len(self)}: their files under "
                f"{self.converter.cache_dir_url} have changed meanwhile"
            )

    @contextmanager
    def epoch(
        self, *, batch_size: int, seed: int | None = None, number: int = 0
    ) -> Iterator[Iterator[tuple[Any, Any]]]:
        """One pass: (window float32 (n, look_back, features), target float32 (n,)).

        With a seed shuffled by (seed, number), the same on every run; n is `batch_size` but for the
        last batch."""
        import numpy as np
        import tensorflow as tf

        parts = [(b["window"], b["target"]) for b in self.batches(batch_size=batch_size)]
        window, target = (np.concatenate(column) for column in zip(*parts, strict=True))
        if seed is not None:
            order = np.random.default_rng([seed, number]).permutation(len(target))
            window, target = window[order], target[order]
        yield (
            (tf.constant(window[i : i + batch_size]), tf.constant(target[i : i + batch_size]))
            for i in range(0, len(target), batch_size)
        )

    def dataset(self, *, batch_size: int, shuffle_seed: int | None = None) -> Any:
        """A `tf.data.Dataset` of (window, target) that Keras can go through once an epoch.

        With a seed the windows are shuffled anew each epoch, in the same way on every run.
        Without one they are the same rows in the same order every time, kept in memory.
        """
        import tensorflow as tf

        def one_pass() -> Iterator[tuple[Any, Any]]:
            for batch in self.batches(batch_size=batch_size):
                yield batch["window"], batch["target"]

        dataset = tf.data.Dataset.from_generator(
            one_pass,
            output_signature=(
                tf.TensorSpec((None, self.look_back, self.features), tf.float32),
                tf.TensorSpec((None,), tf.float32),
            ),
        )
        if shuffle_seed is None:
            return dataset.cache().prefetch(2)
        return (
            dataset.unbatch()
            .shuffle(min(len(self), 100_000), seed=shuffle_seed, reshuffle_each_iteration=True)
            .batch(batch_size)
            .prefetch(2)
        )


def make_feed(windows: DataFrame, *, look_back: int, features: int, cache: Path) -> Feed:
    """Write the windows to a new folder under `cache`; float32 from here on.

    The caller removes `cache` when the feed is done with.
    """
    from pyspark.sql import functions as F

    with third_party_warnings_hushed():
        from petastorm.spark import SparkDatasetConverter, make_spark_converter

    folder = cache / secrets.token_hex(8)
    single = {"double": "float", "array<double>": "array<float>"}
    windows.select(
        *[F.col(name).cast(single.get(kind, kind)).alias(name) for name, kind in windows.dtypes]
    ).write.parquet(file_url(folder))
    link = None if _PLAIN.fullmatch(str(folder)) else _linked(folder)
    # Given a DataFrame, the converter would keep plan and folder for the whole process, and serve
    # them again when the folder is gone. Given a path it keeps nothing, but insists on the setting.
    spark = windows.sparkSession
    spark.conf.set(SparkDatasetConverter.PARENT_CACHE_DIR_URL_CONF, file_url(cache))
    place = folder if link is None else link / folder.name
    with third_party_warnings_hushed():
        converter = make_spark_converter(file_url(place))
    converter.file_urls.sort()
    feed = Feed(converter, look_back, features)
    if link is not None:
        weakref.finalize(feed, shutil.rmtree, link, ignore_errors=True)
    return feed


def _linked(folder: Path) -> Path:
    """A folder with a plain path and a link to this one: the converter looks for its files under
    the quoted form of their path, which is another where it has a space."""
    link = Path(tempfile.mkdtemp(prefix="bitstorm-"))
    (link / folder.name).symlink_to(folder.absolute(), target_is_directory=True)
    return link
