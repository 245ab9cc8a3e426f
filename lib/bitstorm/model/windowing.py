"""Blocks of the series → windows, in numpy, for every way of feeding a network.

A block is one row: an array with the prices of `WindowSpec.length` consecutive grid indexes, and
one more array for each further feature. A block owns the windows whose last point is one of its
`size` indexes. Before these it holds `look_back` points, so that the first return of the first
window has its previous price; after them it holds the `horizon` points of the targets. The price is
NaN where the grid has no point, and negative where it is imputed. No window, return or target
reaches over a NaN, so none crosses a cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from bitstorm.model.scaling import Scaler


Target = Literal["log_return", "price"]
# The arrays of some blocks by name: `block` int64 (n,), `price` float32 (n, length), and the spec's
# columns, float64 (n, length).
Columns = Mapping[str, np.ndarray]

# Features that follow from the price; each other feature has its own column.
FROM_PRICE = ("log_return", "price")
SIZE = 4_096


@dataclass(frozen=True)
class WindowSpec:
    """A window has `look_back` points of `features`; its target is the price `horizon` points after
    the last one. Grid index = timestamp // `step_ms`. With `longest`, the longest look-back of
    several specs, all of them read the same blocks and have windows at the same points."""

    look_back: int
    horizon: int
    features: tuple[str, ...]
    target: Target
    step_ms: int
    size: int = SIZE
    longest: int = 0

    @property
    def before(self) -> int:
        """How many points a block holds before its own. A window is complete where it would be
        complete with a look-back of this length."""
        return max(self.look_back, self.longest)

    @property
    def length(self) -> int:
        """How many points a block holds."""
        return self.before + self.size + self.horizon

    @property
    def own(self) -> slice:
        """The places of a block's own points."""
        return slice(self.before, self.before + self.size)

    @property
    def columns(self) -> tuple[str, ...]:
        """The features that have their own column."""
        return tuple(name for name in self.features if name not in FROM_PRICE)


@dataclass(frozen=True)
class Windows:
    """Windows as places in one long array: a window is `values[start : start + look_back]`.

    `values` float32 (points, features), scaled; `starts` int32 (n,); `target` float32 (n,), scaled,
    NaN where it is unknown; `price` float32 (n,), at the window's end; `target_timestamp` int64
    (n,), ms UTC; `target_price` float32 (n,).
    """

    values: np.ndarray
    starts: np.ndarray
    target: np.ndarray
    price: np.ndarray
    target_timestamp: np.ndarray
    target_price: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def select(self, which: Any) -> Windows:
        """The windows at these positions, in this order, over the same values."""
        return Windows(self.values, *(getattr(self, f.name)[which] for f in fields(self)[1:]))

    def to_batch(self, look_back: int, which: slice = slice(None)) -> Batch:
        """Copies of the windows at these positions."""
        features = self.values.shape[1]
        # The numbers of a window are contiguous, so each window is one copy of one line.
        numbers = look_back * features
        if self.values.size < numbers:
            lines = np.empty((0, numbers), np.float32)
        else:
            flat = np.lib.stride_tricks.sliding_window_view(self.values.reshape(-1), numbers)
            lines = flat[::features]
        windows = lines[self.starts[which]].reshape(-1, look_back, features)
        return Batch(windows, *(getattr(self, f.name)[which].copy() for f in fields(Batch)[1:]))


@dataclass(frozen=True)
class Batch:
    """Windows for a network: `window` float32 (n, look_back, features); else as in `Windows`."""

    window: np.ndarray
    target: np.ndarray
    price: np.ndarray
    target_timestamp: np.ndarray
    target_price: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def followed_by(self, more: Batch) -> Batch:
        """The windows of both, in this order."""
        pairs = [(getattr(self, f.name), getattr(more, f.name)) for f in fields(self)]
        return Batch(*map(np.concatenate, pairs))


def batches(groups: Iterable[Windows], *, look_back: int, batch_size: int) -> Iterator[Batch]:
    """Every window once, in the groups' order; each batch except the last has `batch_size`."""
    left: Batch | None = None
    for group in groups:
        begin = 0
        if left is not None:
            begin = batch_size - len(left)
            left = left.followed_by(group.to_batch(look_back, slice(begin)))
            if len(left) == batch_size:
                yield left
                left = None
        for start in range(begin, len(group), batch_size):
            some = group.to_batch(look_back, slice(start, start + batch_size))
            if len(some) == batch_size:
                yield some
            else:
                left = some
    if left is not None:
        yield left


def complete_windows(
    spec: WindowSpec, columns: Columns, *, first: int | None = None, last: int | None = None
) -> np.ndarray:
    """Whether the window that ends at each own point is complete and has a target.

    bool (blocks, size). `first` and `last`, both inclusive, bound the target's grid index.
    """
    missing = np.isnan(columns["price"])
    found = _is_complete(spec, columns, missing)[:, spec.own] & _has_target(spec, columns, missing)
    index = _target_indexes(spec, columns)
    if first is not None:
        found &= index >= first
    if last is not None:
        found &= index <= last
    return found


def scaler_values(
    spec: WindowSpec, columns: Columns, *, last: int
) -> tuple[int, dict[str, np.ndarray]]:
    """The data of a scaler: the count of own points up to the grid index `last`, and float64 (n,)
    by name: the values of each feature at these points, and `target`, of all observed targets up
    to `last`."""
    price = columns["price"]
    missing = np.isnan(price)
    exact = np.abs(price.astype(np.float64))
    there = ~missing[:, spec.own] & (_target_indexes(spec, columns) - spec.horizon <= last)
    found = {}
    for name in spec.features:
        values = _feature_values(name, exact, columns)[:, spec.own][there]
        found[name] = values[~np.isnan(values)]
    usable = there & _has_target(spec, columns, missing) & (_target_indexes(spec, columns) <= last)
    rows, offsets = np.nonzero(usable)
    ends = offsets + spec.before
    found["target"] = _target_values(spec, exact[rows, ends], exact[rows, ends + spec.horizon])
    return int(there.sum()), found


def to_windows(spec: WindowSpec, columns: Columns, scaler: Scaler, which: np.ndarray) -> Windows:
    """The windows where `which` holds (bool (blocks, size)), block by block, each in order of time.

    Everything is computed and scaled in double, then cast to float32. `log_return` is
    log1p((p - q) / q), as in the indicators; the target is log(p[t+h] / p[t]), or p[t+h].
    """
    price = columns["price"]
    exact = np.abs(price.astype(np.float64))
    values = np.empty((*price.shape, len(spec.features)), np.float32)
    for place, name in enumerate(spec.features):
        values[..., place] = scaler.features[name].forward(_feature_values(name, exact, columns))
    rows, offsets = np.nonzero(which)
    ends = offsets + spec.before
    thens = ends + spec.horizon
    now, then = exact[rows, ends], exact[rows, thens]
    return Windows(
        values.reshape(-1, len(spec.features)),
        (rows * spec.length + ends + 1 - spec.look_back).astype(np.int32),
        scaler.target.forward(_target_values(spec, now, then)).astype(np.float32),
        now.astype(np.float32),
        _target_indexes(spec, columns)[rows, offsets] * spec.step_ms,
        then.astype(np.float32),
    )


def newest_window(
    spec: WindowSpec, columns: Columns, scaler: Scaler, *, index: int
) -> Windows | None:
    """The window that ends at a grid index, with or without a target; None where it is incomplete.
    `columns` holds the block of the index."""
    ends = windows_ending(spec, columns, first=index, last=index)
    return to_windows(spec, columns, scaler, ends) if ends.any() else None


def windows_ending(spec: WindowSpec, columns: Columns, *, first: int, last: int) -> np.ndarray:
    """Whether the window that ends at each own point is complete, with or without a target, and its
    end's grid index lies in [`first`, `last`]; bool (blocks, size)."""
    index = _target_indexes(spec, columns) - spec.horizon
    found = _is_complete(spec, columns, np.isnan(columns["price"]))[:, spec.own]
    return found & (index >= first) & (index <= last)


def _is_complete(spec: WindowSpec, columns: Columns, missing: np.ndarray) -> np.ndarray:
    """Whether the window that ends at each point is complete; bool (blocks, length)."""
    bad = missing.copy()
    for name in spec.columns:
        bad |= np.isnan(columns[name])
    if "log_return" in spec.features:
        # A return needs the point before it, which the block's first point lacks.
        bad[:, 1:] |= missing[:, :-1]
        bad[:, 0] = True
    counts, points = _counts_before(bad), spec.before
    found = np.zeros(bad.shape, bool)
    found[:, points - 1 :] = counts[:, points:] == counts[:, :-points]
    return found


def _has_target(spec: WindowSpec, columns: Columns, missing: np.ndarray) -> np.ndarray:
    """Whether each own point has an observed target with no hole before it; bool (blocks, size)."""
    holes = _counts_before(missing)[:, spec.before + 1 :]
    unbroken = holes[:, spec.horizon :] == holes[:, : spec.size]
    return unbroken & ~np.signbit(columns["price"][:, spec.before + spec.horizon :])


def _target_values(spec: WindowSpec, now: np.ndarray, then: np.ndarray) -> np.ndarray:
    """The unscaled targets, from the prices at the windows' ends and `horizon` points later."""
    return np.log(then / now) if spec.target == "log_return" else then


def _counts_before(flags: np.ndarray) -> np.ndarray:
    """How many flags of a row are set before each place; int32 (rows, places + 1)."""
    return np.pad(np.cumsum(flags, axis=1, dtype=np.int32), ((0, 0), (1, 0)))


def _target_indexes(spec: WindowSpec, columns: Columns) -> np.ndarray:
    """Grid indexes of the targets; int64 (blocks, size)."""
    begin = columns["block"].astype(np.int64) * spec.size + spec.horizon
    return begin[:, None] + np.arange(spec.size)


def _feature_values(name: str, exact: np.ndarray, columns: Columns) -> np.ndarray:
    if name == "price":
        return exact
    if name != "log_return":
        return columns[name]
    found = np.full(exact.shape, np.nan)
    found[:, 1:] = np.log1p((exact[:, 1:] - exact[:, :-1]) / exact[:, :-1])
    return found


@dataclass(frozen=True)
class Split:
    """The last times (ms UTC, inclusive) of the training and the validation part.

    A window belongs to the part that holds its target; all later targets are the test part.
    """

    train_until_ms: int
    validate_until_ms: int


def split_by_time(
    first_ms: int, last_ms: int, train_share: float, validation_share: float
) -> Split:
    """Split the time from the first to the last point by these shares of it."""
    span = last_ms - first_ms
    return Split(
        # Rounded, since 0.7 of 10 steps must not end a millisecond before the seventh.
        train_until_ms=first_ms + round(span * train_share),
        validate_until_ms=first_ms + round(span * (train_share + validation_share)),
    )
