"""The data of a training: an indicators snapshot → its scaler, and its feeds by part."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from bitstorm.context import Context
from bitstorm.core.errors import DataError
from bitstorm.core.schema import indicator_table
from bitstorm.core.settings import Training
from bitstorm.core.time import iso
from bitstorm.indicators.windows import Blocks, in_blocks
from bitstorm.model import backend, blocks, dataset, scaling
from bitstorm.model.dataset import StoredBlocks
from bitstorm.model.feed import Feed, make_feed
from bitstorm.model.training_run import Attempt, Prepared
from bitstorm.model.windowing import Split, WindowSpec, split_by_time
from bitstorm.spark import barrier
from bitstorm.store import petastorm_io
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# The features for `features: []`.
DEFAULT_FEATURES = {"log_return": ["log_return"], "price": ["price"]}
PARTS = ("training", "validation", "test")


@contextmanager
def prepare(context: Context, attempt: Attempt) -> Iterator[Prepared]:
    """The data of a run; its feeds can be read inside the block. Raises DataError where the
    indicators cannot serve these settings, and ModelError where the backend is not installed."""
    settings, snapshot = attempt.settings, attempt.snapshot
    backend.require(settings.backend, reason=f"training.backend is {settings.backend}")
    features = settings.features or DEFAULT_FEATURES[settings.target]
    check_features(features, snapshot)
    check_length(snapshot, features, settings)
    split = attempt.split or split_of(snapshot, settings)
    blocks.check_points(snapshot, features, spans(split))
    spec = blocks.spec_of(snapshot, settings, features)
    needed = points_needed(snapshot, features, settings)
    warm_up = {"needed": needed, "had": snapshot.manifest.rows}
    alone = settings.workers == 1
    library = settings.backend == "tensorflow" and alone
    with ExitStack() as stack, ExitStack() as session:
        spark = session.enter_context(context.spark("train", tensorflow=library))
        if not alone:
            barrier.check(spark, settings.workers)
        stored = stack.enter_context(write_blocks(context, spark, snapshot, spec))
        if alone:
            # So that Spark takes nothing from the training.
            session.close()
        last = split.train_until_ms // spec.step_ms
        scaler = attempt.scaler or scaling.fit(spec, stored.columns(), last=last)
        feeds = {
            part: make_feed(stored, scaler, after_ms=after, until_ms=until)
            for part, (after, until) in spans(split).items()
        }
        counts = _window_counts(feeds, features, settings)
        running = None if alone else spark
        yield Prepared(features, split, scaler, warm_up, feeds, counts, running)


def write_blocks(
    context: Context, spark: SparkSession, snapshot: Snapshot, spec: WindowSpec
) -> AbstractContextManager[StoredBlocks]:
    """Write the snapshot's points, of all parts, as blocks; deleted after the block of code."""
    cut = Blocks(spec.size, before=spec.before, after=spec.horizon)
    first, last = blocks.span_of(snapshot)
    context.console.progress("    writing the windows' blocks")
    files = dataset.file_count((last - first) // spec.step_ms + 1, spec)
    table = indicator_table(snapshot.manifest.details["windows"])
    seen = petastorm_io.read_spark(spark, snapshot, table).selectExpr(
        f"timestamp div {spec.step_ms} AS index", "price", "imputed", *spec.columns
    )
    rows = blocks.to_rows(in_blocks(seen, cut), spec, files=files)
    return dataset.write_blocks(spark, spec, rows, root=context.workspace.cache / "blocks")


def spans(split: Split) -> dict[str, tuple[int | None, int | None]]:
    """(after, until] of each part, ms UTC; a window belongs to the part that holds its target."""
    return {
        "training": (None, split.train_until_ms),
        "validation": (split.train_until_ms, split.validate_until_ms),
        "test": (split.validate_until_ms, None),
    }


def _window_counts(
    feeds: dict[str, Feed], features: list[str], settings: Training
) -> dict[str, int]:
    """The number of windows of each part. Raises DataError where one has none."""
    counts = {part: len(feed) for part, feed in feeds.items()}
    if 0 in counts.values():
        raise DataError(
            f"found {', '.join(f'{n} {part}' for part, n in counts.items())} windows, expected "
            f"some in each part; a window needs {settings.look_back} consecutive points with "
            f"{', '.join(features)} and an observed price {settings.horizon} later: collect more, "
            "lower training.look_back, or raise grid.max_gap"
        )
    return counts


def split_of(snapshot: Snapshot, settings: Training) -> Split:
    """The split of a new run on the snapshot."""
    return _split(*blocks.span_of(snapshot), settings)


def _split(first_ms: int, last_ms: int, settings: Training) -> Split:
    return split_by_time(first_ms, last_ms, settings.train_share, settings.validation_share)


def points_needed(snapshot: Snapshot, features: list[str], settings: Training) -> int:
    """The number of points before the first possible target."""
    table = indicator_table(snapshot.manifest.details["windows"])
    slowest = max(table.field(feature).rows_before for feature in features)
    return slowest + settings.look_back - 1 + settings.horizon


def check_length(snapshot: Snapshot, features: list[str], settings: Training) -> None:
    """Raise DataError where the span is too short, before Spark and TensorFlow are loaded.

    Holes show only in the points themselves; `_window_counts` finds them.
    """
    manifest = snapshot.manifest
    first, last = blocks.span_of(snapshot)
    step = blocks.step_of(snapshot)
    first_target = points_needed(snapshot, features, settings)
    at_least = first_target + len(PARTS)

    def fits(count: int) -> bool:
        """Whether so many points in a row have a target in each part."""
        split = _split(0, (count - 1) * step, settings)
        ends = split.train_until_ms // step, split.validate_until_ms // step
        return first_target <= ends[0] < ends[1] < count - 1

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


def check_features(features: list[str], snapshot: Snapshot) -> None:
    """Raise DataError where the indicators lack a feature."""
    known = blocks.numeric_columns(snapshot)
    unknown = [name for name in features if name not in known]
    if unknown:
        raise DataError(
            f"training.features names {', '.join(unknown)}, which the indicators don't have; "
            f"expected some of {', '.join(known)}"
        )
