"""Leaks: does anything that counts as known at some time change with later points?

The product's own functions compute every value of `known.py`: once from all points, then for each
cut once without the later points, and once with other ones. With other points all arrays keep their
lengths, so each value known at the cut must have the same bits. Without the later points it may
differ by rounding: a library may add up an array of another length in another order. The rows of
training, validation and test are held to rules of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bitstorm.backtest import known
from bitstorm.backtest.folds import Fold, embargo_of
from bitstorm.backtest.known import Output, Part, Setup
from bitstorm.core.settings import Backtest
from bitstorm.core.time import iso
from bitstorm.model import windowing
from bitstorm.model.windowing import Columns

# Each leak by name, in the order of the data's way, and what to do about it.
ADVICE = {
    "target in the features": "remove this column from the features",
    "look-ahead feature": "compute the column from points up to its own time",
    "look-ahead window": "let a window end at its origin",
    "look-ahead target": "compute a target from the points up to its own time",
    "validation rows in training": "end the training part before the validation part",
    "test rows in training": "end the fitted part before the embargo",
    "missing embargo": "leave look_back plus the longest forecast between fit and test",
    "scaler on later points": "fit the scaler on the training part alone",
    "prediction from the future": "fit before the embargo, forecast from points up to the origin",
    "variance from the future": "compute it from returns up to its own time",
    "threshold from the future": "rank the volatility among past values alone",
    "quantile from the future": "take the quantiles of errors that are known",
    "conformal state from the future": "let an outcome change the state only once it is known",
    "volatility from the future": "judge an outcome by the volatility before its first step",
    "network from the future": "train on the fold's own parts, forecast from the origin's window",
}
_RULES = ("validation rows in training", "test rows in training", "missing embargo")
# Relative to the largest known value, where the arrays have other lengths.
_ROUNDING = 1e-12
# A column is the target, in whatever unit, where a line leaves at most this share of its variance.
_LEFT = 1e-9


@dataclass(frozen=True)
class Leak:
    """`name` is a key of ADVICE, `what` the value, `found` a sentence without its full stop. The
    value depends on a point at least `ahead` steps after it is known (None: unknown)."""

    name: str
    what: str
    found: str
    ahead: int | None = None

    @property
    def advice(self) -> str:
        return ADVICE[self.name]


@dataclass
class Comparison:
    """What was compared and found so far. `compared` counts, by the leak that they could show, the
    values (features for `target in the features`, folds for the rules of rows); `by_what` counts
    them by `Output.what`."""

    setup: Setup
    points: Columns
    chance: np.random.Generator
    compared: Counter[str] = field(default_factory=Counter)
    by_what: Counter[str] = field(default_factory=Counter)
    leaks: list[Leak] = field(default_factory=list)
    cuts: int = 0

    @property
    def whole(self) -> Part:
        return Part.of(self.setup, self.points, int(self.points["index"][-1]))

    def first_leaks(self) -> tuple[Leak, ...]:
        """The first value of each leak, where it looks ahead farthest; in the order of the data's
        way."""
        by_name: dict[str, Leak] = {}
        for leak in self.leaks:
            before = by_name.setdefault(leak.name, leak)
            if before.what == leak.what and (before.ahead or 0) < (leak.ahead or 0):
                by_name[leak.name] = leak
        return tuple(by_name[name] for name in ADVICE if name in by_name)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The outputs without a value at any cut: the series is too short for them."""
        return tuple(what for what, count in self.by_what.items() if not count)

    def run(self, compute: Callable[[Part], Iterator[Output]], cuts: Sequence[int]) -> None:
        """Compare the outputs from all points with those from the points at each cut."""
        whole = {output.what: output for output in compute(self.whole)}
        for cut in sorted(cuts):
            self.cuts += 1
            other = known.with_other_future(self.points, cut=cut, chance=self.chance)
            for part, exact in (
                (Part.of(self.setup, known.until(self.points, cut), cut), False),
                (Part.of(self.setup, other, self.whole.last), True),
            ):
                for output in compute(part):
                    self._compare(whole[output.what], output, cut, exact)

    def _compare(self, whole: Output, again: Output, cut: int, exact: bool) -> None:
        rows = min(np.size(whole.values, 0), np.size(again.values, 0))
        at = np.broadcast_to(whole.known, whole.values.shape)[:rows]
        a, b = whole.values[:rows], again.values[:rows]
        there = (at <= cut) & np.isfinite(a)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if not exact and there.any():
            same |= np.abs(a - b) <= _ROUNDING * np.abs(a[there]).max()
        self.compared[whole.leak] += int(there.sum())
        self.by_what[whole.what] += int(there.sum())
        changed = at[(at <= cut) & ~same]
        if len(changed):
            first, step_ms = int(changed.min()), self.setup.spec.step_ms
            found = (
                f"{whole.what}, known at {iso(first * step_ms)}, changes "
                f"{'with other points' if exact else 'without the points'} after "
                f"{iso(cut * step_ms)}"
            )
            self.leaks.append(Leak(whole.leak, whole.what, found, cut + 1 - first))


def check(
    points: Columns, setup: Setup, *, seed: int, cuts: int = 2, network: bool = False
) -> Comparison:
    """Compare everything at `cuts` random times of the test parts, at one of the first points, and
    at three times of each fold.

    `points` are the columns of `blocks.from_points` in one piece. With `network` the network of the
    first fold is trained three times. Raises DataError where a fold's scaler cannot be fitted, and
    with `network` as `fold.run_fold`.
    """
    chance = np.random.default_rng(seed)
    found = Comparison(setup, points, chance)
    last = int(points["index"][-1])
    drawn = [int(cut) for cut in chance.integers(setup.folds[0].test_from, last, cuts)]
    # A filter may begin with a value from later points.
    drawn.append(int(points["index"][chance.integers(2, min(24, len(points["index"]) - 1))]))
    found.leaks += target_in_features(found.whole)
    found.compared["target in the features"] += len(setup.spec.features)
    found.run(known.point_outputs, [*drawn, *_before_gaps(points, chance, cuts)])
    found.leaks += broken_rules(found.whole)
    found.compared.update(dict.fromkeys(_RULES, len(setup.folds)))
    for fold in setup.folds:
        inside = int(chance.integers(fold.test_from, fold.test_until + 1))
        at = [fold.train_until, fold.validate_until, inside]
        found.run(partial(known.fold_outputs, fold=fold), at)
    found.run(known.series_outputs, drawn)
    if network:
        # The first fold is the shortest. The shorter series has origins with outcomes, too.
        fold = setup.folds[0]
        end = min(fold.test_until + setup.steps, last)
        cut = int(chance.integers(min(fold.test_from + setup.steps, end - 1), end))
        found.run(partial(known.network_outputs, fold=fold), [cut])
    return found


def _before_gaps(points: Columns, chance: np.random.Generator, count: int) -> list[int]:
    """At most `count` indexes of points before an imputed one or a hole: where a value may wait for
    the price that ends the gap."""
    index = points["index"]
    gap = (np.diff(index) > 1) | points["imputed"][1:]
    before = index[:-1][gap & (index[:-1] > index[0])]
    return [int(cut) for cut in chance.permutation(before)[:count]]


def target_in_features(part: Part) -> Iterator[Leak]:
    """The features that are a linear function of the target of their own row."""
    *features, _, target = known.point_outputs(part)
    for feature in features:
        x, y = feature.values, target.values
        both = np.isfinite(x) & np.isfinite(y)
        if both.sum() < 10 or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
            continue
        share = 1 - np.corrcoef(x[both], y[both])[0, 1] ** 2
        if share <= _LEFT:
            found = f"{feature.what} has the target of its own row, at {both.sum():,} rows"
            yield Leak("target in the features", feature.what, found, part.setup.spec.horizon)


def broken_rules(part: Part) -> Iterator[Leak]:
    """What is wrong with the rows of windows, of training, validation and test."""
    look_back = part.setup.spec.look_back
    *_, begins, _ = known.point_outputs(part)
    wrong = np.isfinite(begins.values) & (begins.values != part.index - look_back + 1)
    if wrong.any():
        found = f"{wrong.sum():,} windows do not begin {look_back - 1} points before their origin"
        yield Leak("look-ahead window", begins.what, found)
    for fold in part.setup.folds:
        yield from _broken_rules_of(part, fold)


def _broken_rules_of(part: Part, fold: Fold) -> Iterator[Leak]:
    setup, step_ms = part.setup, part.setup.spec.step_ms
    spans = setup.way.fitted_spans(setup.spec, fold)
    training, validation = (_targets(part, *spans[name]) for name in ("training", "validation"))
    if not (len(training) and len(validation)):
        return
    name, fitted = f"fold {fold.number}", np.concatenate([training, validation])
    late = int((training > min(fold.train_until, validation.min() - 1)).sum())
    if late:
        end = iso(fold.train_until * step_ms)
        found = f"{name} trains on {late:,} rows after {end}, where its training part ends"
        yield Leak("validation rows in training", name, found)
    late = int((fitted > fold.validate_until).sum())
    if late:
        end = iso(fold.validate_until * step_ms)
        found = f"{name} is fitted on {late:,} rows after {end}, where its fitted part ends"
        yield Leak("test rows in training", name, found)
    gap = fold.test_from - 1 - int(fitted.max())
    least = embargo_of(Backtest(), setup.training, steps=setup.steps)
    if gap < least:
        found = (
            f"{name} has {gap} steps between its last fitted target and its first origin, at "
            f"{iso(fold.test_from * step_ms)}, expected at least {least}"
        )
        yield Leak("missing embargo", name, found)


def _targets(part: Part, after: int, until: int) -> np.ndarray:
    """The indexes of the targets in (after, until] of complete windows, int64 (n,)."""
    spec = part.setup.spec
    found = [np.empty(0, np.int64)]
    for columns in part.blocks():
        some = windowing.complete_windows(spec, columns, first=after + 1, last=until)
        begin = int(columns["block"][0]) * spec.size + spec.horizon
        found.append(begin + np.flatnonzero(some[0]))
    return np.concatenate(found)
