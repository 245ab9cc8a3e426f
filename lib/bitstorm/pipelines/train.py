"""`train`: the `indicators` data set → a training run under `checkpoints/`."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitstorm.config import Training
from bitstorm.errors import DataError
from bitstorm.instants import duration_ms, iso
from bitstorm.model import scaling, windows
from bitstorm.model.scaling import Scaler
from bitstorm.model.split import Split, split_by_time
from bitstorm.model.windows import Feed
from bitstorm.pipelines import fitting
from bitstorm.pipelines.context import Context
from bitstorm.pipelines.fitting import Attempt
from bitstorm.pipelines.warm_up import rows_needed
from bitstorm.schema import indicator_table
from bitstorm.store import petastorm_io
from bitstorm.store.snapshots import Snapshot
from bitstorm.transform.resample import with_segment

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

# What `features: []` stands for.
DEFAULT_FEATURES = {"log_return": ["log_return"], "price": ["price"]}
PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Trained:
    """The run and what it came to; losses are of the scaled target."""

    run: str
    indicators: str
    windows: int
    validation_windows: int
    epochs: int
    best_epoch: int
    best_validation_loss: float
    seconds: float


def train(context: Context, *, resume: str | None = None, accept_snapshot: bool = False) -> Trained:
    """Fit the network on the oldest part of the indicators, stop on the part after it.

    With `resume` go on with that run after its last complete epoch, on its own snapshot or, when
    it is accepted, on the context's.
    """
    with (
        fitting.attempt(context, resume=resume, accept_snapshot=accept_snapshot) as attempt,
        prepared(context, attempt) as ready,
    ):
        run = fitting.fit(context, attempt, **vars(ready))
    record = run.record
    return Trained(
        run=run.name,
        indicators=record["indicators"],
        windows=record["windows"]["training"],
        validation_windows=record["windows"]["validation"],
        **{k: record["fitted"][k] for k in ("epochs", "best_epoch", "best_validation_loss")},
        seconds=record["fitted"]["seconds"],
    )


@dataclass(frozen=True)
class Prepared:
    """What a network is fitted with; `feeds` and `counts` (windows) are by part."""

    features: list[str]
    split: Split
    scaler: Scaler
    warm_up: dict[str, int]
    feeds: dict[str, Feed]
    counts: dict[str, int]


@contextmanager
def prepared(context: Context, attempt: Attempt) -> Iterator[Prepared]:
    """The data of a run; the feeds can be read for as long as the block lasts."""
    settings, snapshot = attempt.settings, attempt.snapshot
    features = settings.features or DEFAULT_FEATURES[settings.target]
    _check_features(features, snapshot)
    _check_length(snapshot, features, settings)
    split = attempt.split or _split(snapshot, settings)
    warm_up = {
        "needed": rows_needed(
            features,
            windows=snapshot.manifest.details["windows"],
            look_back=settings.look_back,
            horizon=settings.horizon,
        ),
        "had": snapshot.manifest.rows,
    }
    cache = context.workspace.cache / f"windows-{os.getpid()}"
    with context.spark("train") as spark:
        from pyspark.sql import functions as F

        try:
            points = read_points(spark, snapshot, settings)
            scaler = attempt.scaler or _fit_scaler(points, features, split, settings)
            rows = points.transform(
                windows.to_windows, features=features, look_back=settings.look_back, scaler=scaler
            )
            known = with_part(rows.where(F.col("target").isNotNull()), split)
            counts = _counts(known, features, settings)
            feeds = {
                part: windows.make_feed(
                    known.where(F.col("part") == part).select("window", "target"),
                    look_back=settings.look_back,
                    features=len(features),
                    cache=cache,
                )
                for part in ("training", "validation")
            }
            yield Prepared(features, split, scaler, warm_up, feeds, counts)
        finally:
            shutil.rmtree(cache, ignore_errors=True)


def read_points(spark: SparkSession, snapshot: Snapshot, settings: Training) -> DataFrame:
    """The grid's points with their segment, position and target."""
    details = snapshot.manifest.details
    table = indicator_table(details["windows"])
    return (
        petastorm_io.read_spark(spark, snapshot, table)
        .transform(with_segment, step_ms=duration_ms(details["frequency"]))
        .transform(windows.with_target, horizon=settings.horizon, target=settings.target)
    )


def with_part(rows: DataFrame, split: Split) -> DataFrame:
    """Append `part`, one of PARTS: the one that the window's target lies in."""
    from pyspark.sql import functions as F

    target = F.col("target_timestamp")
    return rows.withColumn(
        "part",
        F.when(target <= split.train_until_ms, PARTS[0])
        .when(target <= split.validate_until_ms, PARTS[1])
        .otherwise(PARTS[2]),
    )


def _counts(known: DataFrame, features: list[str], settings: Training) -> dict[str, int]:
    """Windows of each part. Raises DataError, before TensorFlow is loaded, where one has none."""
    found = {row["part"]: row["count"] for row in known.groupBy("part").count().collect()}
    counts = {part: found.get(part, 0) for part in PARTS}
    if 0 in counts.values():
        raise DataError(
            f"found {', '.join(f'{n} {part}' for part, n in counts.items())} windows, expected "
            f"some in each part; a window needs {settings.look_back} consecutive points with "
            f"{', '.join(features)} and an observed price {settings.horizon} later: collect more, "
            "lower training.look_back, or raise grid.max_gap"
        )
    return counts


def _fit_scaler(points: DataFrame, features: list[str], split: Split, settings: Training) -> Scaler:
    from pyspark.sql import functions as F

    known = points.where(F.col("timestamp") <= split.train_until_ms)
    learnt = points.where(F.col("target_timestamp") <= split.train_until_ms)
    by_return = settings.target == "log_return"
    return Scaler(
        scaling.fit(known, features, method="standard" if by_return else "min_max"),
        scaling.fit(learnt, ["target"], method="deviation" if by_return else "min_max")["target"],
    )


def _split(snapshot: Snapshot, settings: Training) -> Split:
    first, last = snapshot.manifest.first_ms, snapshot.manifest.last_ms
    assert first is not None and last is not None  # an empty snapshot is never published
    return _split_of(first, last, settings)


def _split_of(first_ms: int, last_ms: int, settings: Training) -> Split:
    return split_by_time(
        first_ms=first_ms,
        last_ms=last_ms,
        train_share=settings.train_share,
        validation_share=settings.validation_share,
    )


def _check_length(snapshot: Snapshot, features: list[str], settings: Training) -> None:
    """Refuse what can't work before Spark and TensorFlow take their time.

    What only the points themselves show, such as holes, is left to `_counts`.
    """
    manifest = snapshot.manifest
    first, last = manifest.first_ms, manifest.last_ms
    assert first is not None and last is not None  # an empty snapshot is never published
    step = duration_ms(manifest.details["frequency"])
    # These two have a value at the very first point, the others at the second or later.
    late = 0 if set(features) <= {"price", "drawdown"} else 1
    first_target = late + settings.look_back - 1 + settings.horizon
    at_least = first_target + len(PARTS)

    def fits(points: int) -> bool:
        """Whether as many points in a row have a target in each part."""
        split = _split_of(0, (points - 1) * step, settings)
        ends = split.train_until_ms // step, split.validate_until_ms // step
        return first_target <= ends[0] < ends[1] < points - 1

    if manifest.rows >= at_least and fits((last - first) // step + 1):
        return
    train, validation = settings.train_share, settings.validation_share
    most = 2 + math.ceil(max(first_target / train, 1 / validation, 1 / (1 - train - validation)))
    enough = next(n for n in range(max(manifest.rows + 1, at_least), most + 1) if fits(n))
    raise DataError(
        f"found {manifest.rows} points ({iso(first)} to {iso(last)}), expected at least "
        f"{enough} without a hole for look_back {settings.look_back}, horizon "
        f"{settings.horizon} and the three parts: collect more, or lower training.look_back"
    )


def _check_features(features: list[str], snapshot: Snapshot) -> None:
    known = numeric_columns(snapshot)
    unknown = [name for name in features if name not in known]
    if unknown:
        raise DataError(
            f"training.features has {', '.join(unknown)}, which the indicators don't; "
            f"there are {', '.join(known)}"
        )


def numeric_columns(snapshot: Snapshot) -> list[str]:
    """The columns of an indicators snapshot that a network can be given."""
    table = indicator_table(snapshot.manifest.details["windows"])
    return [f.name for f in table.fields if f.kind in ("float64", "float32", "int32")]
