"""`train`: the `indicators` data set → a training run under `checkpoints/`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitstorm.config import Training
from bitstorm.errors import DataError
from bitstorm.instants import duration_ms, iso
from bitstorm.model import backend, blocks, dataset, scaling, windows
from bitstorm.model.dataset import Stored
from bitstorm.model.framing import Frame
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
from bitstorm.transform.blocks import SIZE, Blocks, in_blocks

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

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
    backend.require(settings.backend, reason=f"training.backend is {settings.backend}")
    features = settings.features or DEFAULT_FEATURES[settings.target]
    _check_features(features, snapshot)
    _check_length(snapshot, features, settings)
    split = attempt.split or _split(snapshot, settings)
    frame = frame_of(snapshot, settings, features)
    warm_up = {
        "needed": _needed(snapshot, features, settings),
        "had": snapshot.manifest.rows,
    }
    with context.spark("train") as spark:
        points = read_points(spark, snapshot)
        _check_points(points, features, split)
        scaler = attempt.scaler or _fit_scaler(points, frame, split)
        with stored_blocks(context, spark, points, snapshot, frame) as stored:
            feeds = {
                part: windows.make_feed(stored, scaler, after_ms=after, until_ms=until)
                for part, (after, until) in spans(split).items()
            }
            counts = _counts(feeds, features, settings)
            yield Prepared(features, split, scaler, warm_up, feeds, counts)


def frame_of(snapshot: Snapshot, settings: Training, features: list[str]) -> Frame:
    """What the settings say a window over the snapshot's grid is made of."""
    return Frame(
        look_back=settings.look_back,
        horizon=settings.horizon,
        features=tuple(features),
        target=settings.target,
        step_ms=duration_ms(snapshot.manifest.details["frequency"]),
    )


def read_points(spark: SparkSession, snapshot: Snapshot) -> DataFrame:
    """The grid's points with their `index` (timestamp // step, int64)."""
    from pyspark.sql import functions as F

    details = snapshot.manifest.details
    table = indicator_table(details["windows"])
    step = duration_ms(details["frequency"])
    points = petastorm_io.read_spark(spark, snapshot, table)
    return points.withColumn("index", F.expr(f"timestamp div {step}"))


@contextmanager
def stored_blocks(
    context: Context, spark: SparkSession, points: DataFrame, snapshot: Snapshot, frame: Frame
) -> Iterator[Stored]:
    """The snapshot's points as the converter's data set of blocks, for every part of the series.

    Of an earlier run where there is one of this snapshot and frame; the console says which.
    """
    cut = Blocks(frame.size, before=frame.before, after=frame.horizon)
    first, last = _span(snapshot)

    def rows() -> DataFrame:
        context.console.progress("    writing the windows' blocks")
        files = dataset.files_for((last - first) // frame.step_ms + 1, frame)
        names = ["index", "price", "imputed", *frame.columns]
        return blocks.to_rows(in_blocks(points.select(*names), cut), frame, files=files)

    with dataset.stored(
        spark,
        frame,
        rows,
        cache=context.workspace.cache / "blocks",
        # Another data set may have a snapshot of the same number.
        source={"snapshot": snapshot.id, "manifest": snapshot.manifest.hash},
        limit_bytes=context.settings.training.cache_mb * 2**20,
    ) as stored:
        if stored.reused:
            context.console.progress("    the windows' blocks are those of an earlier run")
        yield stored


def spans(split: Split) -> dict[str, tuple[int | None, int | None]]:
    """The parts by name; a window belongs to the one that its target's time, (after, until], lies
    in."""
    return {
        "training": (None, split.train_until_ms),
        "validation": (split.train_until_ms, split.validate_until_ms),
        "test": (split.validate_until_ms, None),
    }


def _counts(feeds: dict[str, Feed], features: list[str], settings: Training) -> dict[str, int]:
    """Windows of each part. Raises DataError, before TensorFlow is loaded, where one has none."""
    counts = {part: len(feed) for part, feed in feeds.items()}
    if 0 in counts.values():
        raise DataError(
            f"found {', '.join(f'{n} {part}' for part, n in counts.items())} windows, expected "
            f"some in each part; a window needs {settings.look_back} consecutive points with "
            f"{', '.join(features)} and an observed price {settings.horizon} later: collect more, "
            "lower training.look_back, or raise grid.max_gap"
        )
    return counts


def _check_points(points: DataFrame, features: list[str], split: Split) -> None:
    """Refuse, by one aggregate, values that no network can learn from, and parts without a price
    that could be a target. Raises DataError with the numbers."""
    from pyspark.sql import functions as F

    def strange(name: str) -> Column:
        value = F.col(name).cast("double")
        return F.isnan(value) | (F.abs(value) == float("inf"))

    def inside(after: int | None, until: int | None) -> Column:
        time = F.col("timestamp")
        late = F.lit(True) if after is None else time > after
        return late & (F.lit(True) if until is None else time <= until)

    found = points.agg(
        F.count("*").alias("rows"),
        F.count_if("imputed").alias("imputed"),
        *[F.count_if(strange(name)).alias(f"strange_{name}") for name in features],
        *[
            F.min(F.when(strange(name), F.col("timestamp"))).alias(f"at_{name}")
            for name in features
        ],
        *[
            F.count_if(inside(*span) & ~F.col("imputed")).alias(f"observed_{part}")
            for part, span in spans(split).items()
        ],
        *[F.count_if(inside(*span)).alias(f"of_{part}") for part, span in spans(split).items()],
    ).collect()[0]
    for name in features:
        if found[f"strange_{name}"]:
            raise DataError(
                f"{name} is not a finite number at {found[f'strange_{name}']:,} of "
                f"{found['rows']:,} points, the first at {iso(found[f'at_{name}'])}; expected "
                "finite values, or none: compute the indicators again, or leave it out of "
                "training.features"
            )
    observed = {part: found[f"observed_{part}"] for part in PARTS}
    if any(n == 0 < found[f"of_{part}"] for part, n in observed.items()):
        raise DataError(
            f"of {found['rows']:,} points {found['imputed']:,} are imputed, which leaves "
            f"{', '.join(f'{n:,} observed in the {part} part' for part, n in observed.items())}; "
            "expected some in each: collect more, or set a coarser grid.frequency"
        )


def _fit_scaler(points: DataFrame, frame: Frame, split: Split) -> Scaler:
    from pyspark.sql import functions as F

    cut = Blocks(SIZE, after=frame.horizon)
    own = in_blocks(points.select("index", "timestamp", "price", "imputed"), cut)
    learnt = blocks.with_target(own, frame).where(
        cut.owned() & (F.col("target_timestamp") <= split.train_until_ms)
    )
    known = points.where(F.col("timestamp") <= split.train_until_ms)
    by_return = frame.target == "log_return"
    return Scaler(
        scaling.fit(known, frame.features, method="standard" if by_return else "min_max"),
        scaling.fit(learnt, ["target"], method="deviation" if by_return else "min_max")["target"],
    )


def _split(snapshot: Snapshot, settings: Training) -> Split:
    return _split_of(*_span(snapshot), settings)


def _span(snapshot: Snapshot) -> tuple[int, int]:
    first, last = snapshot.manifest.first_ms, snapshot.manifest.last_ms
    assert first is not None and last is not None  # an empty snapshot is never published
    return first, last


def _split_of(first_ms: int, last_ms: int, settings: Training) -> Split:
    return split_by_time(
        first_ms=first_ms,
        last_ms=last_ms,
        train_share=settings.train_share,
        validation_share=settings.validation_share,
    )


def _needed(snapshot: Snapshot, features: list[str], settings: Training) -> int:
    """Points before the first one that can be a target."""
    return rows_needed(
        features,
        windows=snapshot.manifest.details["windows"],
        look_back=settings.look_back,
        horizon=settings.horizon,
    )


def _check_length(snapshot: Snapshot, features: list[str], settings: Training) -> None:
    """Refuse what can't work before Spark and TensorFlow take their time.

    What only the points themselves show, such as holes, is left to `_counts`.
    """
    manifest = snapshot.manifest
    first, last = _span(snapshot)
    step = duration_ms(manifest.details["frequency"])
    first_target = _needed(snapshot, features, settings)
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
