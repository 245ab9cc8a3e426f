"""Blocks of the series → windows: the maths, in numpy, one place for every way of feeding.

A block is one row: the prices of `Frame.length` consecutive grid indexes in one array, and each
further feature in one more. It owns the windows whose last point is one of its `size` indexes;
before these it carries `look_back` points, so that the first window's first return has its
previous price, and after them the `horizon` that targets lie in. Where the grid has no point the
price is NaN, and an imputed price is negative: a cut of the series is a NaN that no window, return
or target may reach over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from bitstorm.model.scaling import Scaler


Target = Literal["log_return", "price"]

# What the price alone gives; other features have a column of their own.
FROM_PRICE = ("log_return", "price")
SIZE = 4_096


@dataclass(frozen=True)
class Frame:
    """What a window is made of: `look_back` points of `features`, and the price `horizon` points
    after the last one. Grid index = timestamp // `step_ms`."""

    look_back: int
    horizon: int
    features: tuple[str, ...]
    target: Target
    step_ms: int
    size: int = SIZE

    @property
    def before(self) -> int:
        """Points that a block carries before its own."""
        return self.look_back

    @property
    def length(self) -> int:
        """Points in a block."""
        return self.before + self.size + self.horizon

    @property
    def own(self) -> slice:
        """A block's own points."""
        return slice(self.before, self.before + self.size)

    @property
    def columns(self) -> tuple[str, ...]:
        """The features that a block holds beside the price."""
        return tuple(name for name in self.features if name not in FROM_PRICE)


@dataclass(frozen=True)
class Framed:
    """Windows as places in one long array: what is gathered is `values[start : start + look_back]`.

    `values` float32 (points, features), scaled; `starts` int32 (n,); `target` float32 (n,), scaled,
    NaN where it is not known; `price` float32 (n,) at the window's end; `target_timestamp` int64
    (n,) ms UTC; `target_price` float32 (n,).
    """

    values: np.ndarray
    starts: np.ndarray
    target: np.ndarray
    price: np.ndarray
    target_timestamp: np.ndarray
    target_price: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)

    def taken(self, which: Any) -> Framed:
        """The windows of these positions, in their order, over the same values."""
        return Framed(self.values, *(getattr(self, f.name)[which] for f in fields(self)[1:]))

    def gathered(self, look_back: int, which: slice = slice(None)) -> Batch:
        """The windows of these positions, in arrays of their own."""
        features = self.values.shape[1]
        # A window's numbers lie in one row: copied line by line, whatever the features.
        numbers = look_back * features
        if self.values.size < numbers:
            lines = np.empty((0, numbers), np.float32)
        else:
            flat = np.lib.stride_tricks.sliding_window_view(self.values.reshape(-1), numbers)
            lines = flat[::features]
        return Batch(
            lines[self.starts[which]].reshape(-1, look_back, features),
            self.target[which].copy(),
            self.price[which].copy(),
            self.target_timestamp[which].copy(),
            self.target_price[which].copy(),
        )


@dataclass(frozen=True)
class Batch:
    """Gathered windows: `window` float32 (n, look_back, features); the others as of `Framed`."""

    window: np.ndarray
    target: np.ndarray
    price: np.ndarray
    target_timestamp: np.ndarray
    target_price: np.ndarray

    def __len__(self) -> int:
        return len(self.target)

    def followed_by(self, more: Batch) -> Batch:
        """The windows of both, in this order."""
        names = [field.name for field in fields(self)]
        return Batch(*(np.concatenate([getattr(self, n), getattr(more, n)]) for n in names))


def batches(groups: Iterable[Framed], *, look_back: int, batch_size: int) -> Iterator[Batch]:
    """Every window once, in the groups' order; each batch is of `batch_size` but for the last."""
    left: Batch | None = None
    for group in groups:
        begin = 0
        if left is not None:
            begin = batch_size - len(left)
            left = left.followed_by(group.gathered(look_back, slice(begin)))
            if len(left) == batch_size:
                yield left
                left = None
        for start in range(begin, len(group), batch_size):
            some = group.gathered(look_back, slice(start, start + batch_size))
            if len(some) == batch_size:
                yield some
            else:
                left = some
    if left is not None:
        yield left


def whole(
    frame: Frame,
    columns: Mapping[str, np.ndarray],
    *,
    first: int | None = None,
    last: int | None = None,
) -> np.ndarray:
    """Whether the window that ends at each of the blocks' own points is whole and has a target.

    bool (blocks, size). `columns` has `block` int64 (n,), `price` float32 (n, length) and the
    frame's columns, float64 (n, length). `first` and `last` bound the target's grid index, both
    inclusive.
    """
    missing = np.isnan(columns["price"])
    found = _whole(frame, columns, missing)[:, frame.own] & _reached(frame, columns, missing)
    index = _targets(frame, columns)
    if first is not None:
        found &= index >= first
    if last is not None:
        found &= index <= last
    return found


def known(
    frame: Frame, columns: Mapping[str, np.ndarray], *, last: int
) -> tuple[int, dict[str, np.ndarray]]:
    """What a scaler may be fitted on: how many own points the blocks have up to the grid index
    `last`, and of these the values, in double, of each feature and of `target` (of those whose
    target, observed, lies up to `last`)."""
    price = columns["price"]
    missing = np.isnan(price)
    exact = np.abs(price.astype(np.float64))
    there = ~missing[:, frame.own] & (_targets(frame, columns) - frame.horizon <= last)
    found = {}
    for name in frame.features:
        values = _feature(name, exact, columns)[:, frame.own][there]
        found[name] = values[~np.isnan(values)]
    aims = there & _reached(frame, columns, missing) & (_targets(frame, columns) <= last)
    rows, offsets = np.nonzero(aims)
    ends = offsets + frame.before
    found["target"] = _learnt(frame, exact[rows, ends], exact[rows, ends + frame.horizon])
    return int(there.sum()), found


def framed(
    frame: Frame, columns: Mapping[str, np.ndarray], scaler: Scaler, which: np.ndarray
) -> Framed:
    """The windows that `which` (as `whole` gives it) picks, block by block, by time in each.

    Everything is computed in double: `log_return` is log1p((p - q) / q) as in the indicators, the
    target log(p[t+h] / p[t]) or p[t+h]; then scaled, then float32.
    """
    price = columns["price"]
    exact = np.abs(price.astype(np.float64))
    values = np.empty((*price.shape, len(frame.features)), np.float32)
    for place, name in enumerate(frame.features):
        values[..., place] = scaler.features[name].forward(_feature(name, exact, columns))
    rows, offsets = np.nonzero(which)
    ends = offsets + frame.before
    thens = ends + frame.horizon
    now, then = exact[rows, ends], exact[rows, thens]
    return Framed(
        values.reshape(-1, len(frame.features)),
        (rows * frame.length + ends + 1 - frame.look_back).astype(np.int32),
        scaler.target.forward(_learnt(frame, now, then)).astype(np.float32),
        now.astype(np.float32),
        _targets(frame, columns)[rows, offsets] * frame.step_ms,
        then.astype(np.float32),
    )


def newest(
    frame: Frame, columns: Mapping[str, np.ndarray], scaler: Scaler, *, index: int
) -> Framed | None:
    """The one window that ends at a grid index, whatever comes after it; None where it is not
    whole. `columns` holds the index's block."""
    rows = np.flatnonzero(columns["block"] == index // frame.size)
    ends = np.zeros((len(columns["block"]), frame.size), bool)
    ends[rows, index % frame.size] = True
    ends &= _whole(frame, columns, np.isnan(columns["price"]))[:, frame.own]
    return framed(frame, columns, scaler, ends) if ends.any() else None


def _whole(frame: Frame, columns: Mapping[str, np.ndarray], missing: np.ndarray) -> np.ndarray:
    """Whether the window that ends at each point of a block is whole; bool (blocks, length)."""
    bad = missing.copy()
    for name in frame.columns:
        bad |= np.isnan(columns[name])
    if "log_return" in frame.features:
        # A return needs the point before it; what comes before the block's first, nobody knows.
        bad[:, 1:] |= missing[:, :-1]
        bad[:, 0] = True
    running = _running(bad)
    found = np.zeros(bad.shape, bool)
    look_back = frame.look_back
    found[:, look_back - 1 :] = running[:, look_back:] == running[:, :-look_back]
    return found


def _reached(frame: Frame, columns: Mapping[str, np.ndarray], missing: np.ndarray) -> np.ndarray:
    """Whether nothing is missing from each of the own points to its target, and that was observed;
    bool (blocks, size)."""
    holes = _running(missing)
    ends = np.arange(frame.before, frame.before + frame.size) + 1
    then = slice(frame.before + frame.horizon, frame.length)
    without = holes[:, ends + frame.horizon] == holes[:, ends]
    return without & ~np.signbit(columns["price"][:, then])


def _learnt(frame: Frame, now: np.ndarray, then: np.ndarray) -> np.ndarray:
    """What is learnt of the price at a window's end and the one `horizon` later, unscaled."""
    return np.log(then / now) if frame.target == "log_return" else then


def _running(flags: np.ndarray) -> np.ndarray:
    """How many of a row's flags stand before each place; int32 (rows, places + 1)."""
    counts = np.zeros((flags.shape[0], flags.shape[1] + 1), np.int32)
    np.cumsum(flags, axis=1, out=counts[:, 1:])
    return counts


def _targets(frame: Frame, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Grid indexes of the targets; int64 (blocks, size)."""
    begin = columns["block"].astype(np.int64) * frame.size + frame.horizon
    return begin[:, None] + np.arange(frame.size)


def _feature(name: str, exact: np.ndarray, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    if name == "price":
        return exact
    if name != "log_return":
        return columns[name]
    found = np.full(exact.shape, np.nan)
    found[:, 1:] = np.log1p((exact[:, 1:] - exact[:, :-1]) / exact[:, :-1])
    return found


@dataclass(frozen=True)
class Split:
    """The last instants (ms UTC, inclusive) of the training and the validation part.

    A window belongs to the part in which its target lies; the test part is all after that.
    """

    train_until_ms: int
    validate_until_ms: int


def split_by_time(
    *, first_ms: int, last_ms: int, train_share: float, validation_share: float
) -> Split:
    """Shares of the time span from the first to the last point."""
    span = last_ms - first_ms
    return Split(
        # Rounded: 0.7 of 10 steps must not end a millisecond before the seventh.
        train_until_ms=first_ms + round(span * train_share),
        validate_until_ms=first_ms + round(span * (train_share + validation_share)),
    )
