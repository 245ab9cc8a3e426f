"""The points of an indicators snapshot, read file by file without Spark."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bitstorm.core.config import Training
from bitstorm.core.errors import DataError, SnapshotDamaged
from bitstorm.core.schema import indicator_table
from bitstorm.core.time import duration_ms, iso
from bitstorm.model.windowing import Frame
from bitstorm.store.snapshots import Snapshot

if TYPE_CHECKING:
    import pyarrow as pa

Spans = dict[str, tuple[int | None, int | None]]


def step_of(snapshot: Snapshot) -> int:
    """The grid's step in milliseconds."""
    return duration_ms(snapshot.manifest.details["frequency"])


def span_of(snapshot: Snapshot) -> tuple[int, int]:
    """The times of the first and the last point, ms UTC."""
    first, last = snapshot.manifest.first_ms, snapshot.manifest.last_ms
    assert first is not None and last is not None  # no empty snapshot is published
    return first, last


def frame_of(snapshot: Snapshot, settings: Training, features: Sequence[str]) -> Frame:
    """What the settings say a window over the snapshot's grid is made of."""
    return Frame(
        look_back=settings.look_back,
        horizon=settings.horizon,
        features=tuple(features),
        target=settings.target,
        step_ms=step_of(snapshot),
    )


def numeric_columns(snapshot: Snapshot) -> list[str]:
    """The columns of an indicators snapshot that a network can be given."""
    table = indicator_table(snapshot.manifest.details["windows"])
    return [f.name for f in table.fields if f.kind in ("float64", "float32", "int32")]


def tables(
    snapshot: Snapshot, columns: Sequence[str], *, after_ms: int | None = None
) -> Iterator[pa.Table]:
    """One table a file, in the order of time; of files that end after `after_ms` only. Raises
    SnapshotDamaged where a file has other rows than the manifest states."""
    import pyarrow.parquet as pq

    for file in sorted(snapshot.manifest.files, key=lambda file: file.first_ms):
        if after_ms is not None and file.last_ms <= after_ms:
            continue
        path = snapshot.folder / file.path
        table = pq.read_table(path, columns=list(columns), partitioning=None)
        if table.num_rows != file.rows:
            raise SnapshotDamaged(
                f"read {table.num_rows} rows of {path}, where the manifest states {file.rows}: "
                "a file has changed while it was read; read again"
            )
        yield table.sort_by("timestamp")


def arrays(
    snapshot: Snapshot, frame: Frame, *, after_ms: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """The same as `blocks.from_points` takes it."""
    names = ["timestamp", "price", "imputed", *frame.columns]
    for table in tables(snapshot, names, after_ms=after_ms):
        yield {
            "index": table["timestamp"].to_numpy() // frame.step_ms,
            "price": table["price"].to_numpy(),
            "imputed": table["imputed"].to_numpy(),
            **{name: table[name].to_numpy().astype(np.float64) for name in frame.columns},
        }


def check(snapshot: Snapshot, features: Sequence[str], spans: Spans) -> None:
    """Refuse values that no network can learn from, and parts without a price that could be a
    target. Raises DataError with the numbers."""
    # By feature: values that are no finite number, and the time of the first.
    strange, first = Counter[str](), dict[str, int]()
    # By part: its points, and those with an observed price.
    count, observed = Counter[str](), Counter[str]()
    rows = imputed_rows = 0
    for table in tables(snapshot, ["timestamp", "imputed", *features]):
        time, imputed = table["timestamp"].to_numpy(), table["imputed"].to_numpy()
        rows += len(time)
        imputed_rows += int(imputed.sum())
        for name in features:
            # A null is "not known yet"; a NaN is a value.
            bad = (table[name].is_valid().to_numpy()) & ~np.isfinite(table[name].to_numpy())
            if bad.any():
                strange[name] += int(bad.sum())
                first.setdefault(name, int(time[bad][0]))
        for part, (after, until) in spans.items():
            inside = np.ones(len(time), bool) if after is None else time > after
            inside &= True if until is None else time <= until
            count[part] += int(inside.sum())
            observed[part] += int((inside & ~imputed).sum())
    for name in strange:
        raise DataError(
            f"{name} is not a finite number at {strange[name]:,} of {rows:,} points, the first at "
            f"{iso(first[name])}; expected finite values, or none: compute the indicators "
            "again, or leave it out of training.features"
        )
    if any(observed[part] == 0 < count[part] for part in count):
        left = [f"{n:,} observed in the {part} part" for part, n in observed.items()]
        raise DataError(
            f"of {rows:,} points {imputed_rows:,} are imputed, which leaves "
            f"{', '.join(left)}; expected some in each: collect more, or set a coarser "
            "grid.frequency"
        )
