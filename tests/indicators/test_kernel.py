"""The kernel against loops over single buckets and prices, pandas and TA-Lib. No Spark."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from bitstorm.core.schema import indicator_table
from bitstorm.indicators.kernel import (
    Grid,
    Points,
    highest_of_open_run,
    highest_of_runs,
    indicator_columns,
    relative_strength,
    rows_remembered,
    to_points,
)

STEP = 1_000
START = 1_600_000_000_000
GRID = Grid(STEP, 6)


def by_buckets(
    times: list[int], prices: list[float], *, max_gap: int, last_ms: int
) -> list[tuple[int, float, bool, int]]:
    """(index, price, imputed, place) by looking at every bucket in turn."""
    seen = sorted(zip(times, prices, strict=True))
    rows: list[tuple[int, float, bool, int]] = []
    place, price, waiting = -1, None, []
    for index in range(-(-seen[0][0] // STEP), -(-last_ms // STEP) + 1) if seen else []:
        inside = [p for t, p in seen if (index - 1) * STEP < t <= index * STEP]
        if not inside:
            waiting.append(index)
            continue
        if len(waiting) > max_gap:
            place = -1
        elif price is not None:
            for hole in waiting:
                place += 1
                rows.append((hole, price, True, place))
        waiting, price, place = [], inside[-1], place + 1
        rows.append((index, price, False, place))
    return [row for row in rows if row[0] * STEP <= last_ms]


def rows_of(points: Points) -> list[tuple[int, float, bool, int]]:
    columns = (points.index, points.price, points.imputed, points.place)
    return list(zip(*(column.tolist() for column in columns), strict=True))


OBSERVED = st.lists(
    st.sampled_from([1, 200, STEP // 2, STEP - 1, STEP, STEP, 2 * STEP, 7 * STEP, 9 * STEP]),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(steps=OBSERVED, max_gap=st.sampled_from([0, 1, 6]), seed=st.integers(0, 99))
def test_the_grid_is_what_a_loop_over_every_bucket_gives(steps, max_gap, seed):
    times = START + np.cumsum(np.array(steps, dtype=np.int64))
    prices = np.arange(1, len(times) + 1, dtype=np.float32)
    order = np.random.default_rng(seed).permutation(len(times))
    last_ms = int(times.max(initial=START))
    found = to_points(times[order], prices[order], grid=Grid(STEP, max_gap), last_ms=last_ms)
    assert rows_of(found) == by_buckets(
        times.tolist(), prices.tolist(), max_gap=max_gap, last_ms=last_ms
    )
    assert found.price.dtype == np.float32


def grid_of(*observed: tuple[int, float]) -> list[tuple[int, float, bool, int]]:
    times = np.array([START + t for t, _ in observed])
    prices = np.array([p for _, p in observed], np.float32)
    rows = rows_of(to_points(times, prices, grid=GRID, last_ms=int(times.max())))
    return [(row[0] - START // STEP, *row[1:]) for row in rows]


def test_a_point_holds_nothing_later_than_its_label():
    assert grid_of((0, 1.0), (1, 2.0), (STEP, 3.0)) == [(0, 1.0, False, 0), (1, 3.0, False, 1)]


def test_an_unfinished_bucket_is_not_there_until_it_is_complete():
    known = ((0, 1.0), (1, 2.0), (STEP - 1, 3.0))
    assert grid_of(*known) == [(0, 1.0, False, 0)]
    assert grid_of(*known, (STEP + 1, 4.0)) == [(0, 1.0, False, 0), (1, 3.0, False, 1)]


def test_a_hole_of_max_gap_is_carried_and_one_more_cuts():
    carried = grid_of((0, 1.0), (7 * STEP, 2.0))
    assert [row[2] for row in carried] == [False, *[True] * 6, False]
    assert [row[3] for row in carried] == list(range(8))
    assert grid_of((0, 1.0), (8 * STEP, 2.0)) == [(0, 1.0, False, 0), (8, 2.0, False, 0)]


@settings(max_examples=200, deadline=None)
@given(steps=OBSERVED, max_gap=st.sampled_from([0, 1, 6]), cut=st.integers(0, 60 * 3 * STEP))
def test_no_point_changes_with_what_is_observed_after_it(steps, max_gap, cut):
    times = START + np.cumsum(np.array([1, *steps], dtype=np.int64))
    prices = np.asarray(np.random.default_rng(cut).uniform(1, 2, len(times)), np.float32)
    cut_ms = START + 1 + cut % int(times[-1] - START)

    def computed(times, prices):
        points = to_points(times, prices, grid=Grid(STEP, max_gap), last_ms=int(times[-1]))
        return {**vars(points), **indicator_columns(points, windows=[2, 5])}

    def same_up_to(last, some, whole):
        for name in whole:
            known, again = (c[name][c["index"] <= last] for c in (whole, some))
            np.testing.assert_array_equal(again, known, err_msg=name)

    whole, early = computed(times, prices), times <= cut_ms
    part = computed(times[early], prices[early])
    same_up_to(part["index"].max(initial=0), part, whole)
    altered = computed(times, np.where(early, prices, np.float32(1.7) * prices))
    same_up_to(cut_ms // STEP, altered, whole)


def points_of(price: np.ndarray, lengths: list[int]) -> Points:
    """Runs of the given lengths, far from each other."""
    place = np.concatenate([np.arange(n) for n in lengths])
    run = np.repeat(np.arange(len(lengths)), lengths)
    index = 1_000_000 + np.arange(len(price)) + 100 * run
    return Points(index, price.astype(np.float32), np.zeros(len(price), bool), place)


def by_recursion(price: np.ndarray, windows: list[int]) -> dict[str, np.ndarray]:
    """One run, each value from the one before it, with 40 digits."""
    names = (*(f"ema_{w}" for w in windows), "macd", "macd_signal", "rsi_14")
    out: dict[str, list[float]] = {name: [] for name in names}
    with localcontext() as context:
        context.prec = 40
        spans = {n: Decimal(2) / (n + 1) for n in {*windows, 9, 12, 26}}
        means: dict[int, Decimal] = {}
        smooth = gain = loss = last = Decimal(0)
        for n, value in enumerate(map(Decimal, price.astype(np.float64).tolist())):
            step = value - last if n else Decimal(0)
            last = value
            for span, alpha in spans.items():
                means[span] = means[span] + alpha * (value - means[span]) if n else value
            macd = means[12] - means[26]
            smooth = smooth + spans[9] * (macd - smooth) if n > 25 else macd
            up, down = max(step, Decimal(0)), max(-step, Decimal(0))
            if n <= 14:
                gain, loss = gain + up / 14, loss + down / 14
            else:
                gain, loss = (13 * gain + up) / 14, (13 * loss + down) / 14
            for w in windows:
                out[f"ema_{w}"].append(float(means[w]) if n >= w - 1 else np.nan)
            out["macd"].append(float(macd) if n >= 25 else np.nan)
            out["macd_signal"].append(float(smooth) if n >= 33 else np.nan)
            moved = gain + loss
            strength = float(100 * gain / moved) if float(moved) > 1e-280 else 0.0
            out["rsi_14"].append(strength if n >= 14 else np.nan)
    return {name: np.array(values) for name, values in out.items()}


def by_windows(price: np.ndarray) -> dict[str, np.ndarray]:
    """One run, each window on its own, in long double."""
    windows = np.lib.stride_tricks.sliding_window_view(price.astype(np.longdouble), 20)
    mean, deviation = windows.mean(axis=1), windows.std(axis=1)
    out = {"bollinger_upper_20": mean + 2 * deviation, "bollinger_lower_20": mean - 2 * deviation}
    return {name: np.r_[np.full(19, np.nan), values.astype(float)] for name, values in out.items()}


def assert_within(found: dict[str, np.ndarray], expected, price: np.ndarray) -> None:
    for name, theirs in expected.items():
        relative = 1e-9 if name.startswith(("ema", "rsi")) else 1e-12
        unit = np.maximum(np.abs(theirs), 1e-9)
        if name.startswith("macd"):
            # Of the price, or of the means where a fallen price leaves these higher.
            unit = np.maximum(price, pd.Series(price).ewm(span=26, adjust=False).mean())
        np.testing.assert_array_equal(np.isnan(found[name]), np.isnan(theirs), err_msg=name)
        apart = np.asarray(np.abs(found[name] - theirs) / (relative * unit))
        worst = np.max(apart[~np.isnan(theirs)], initial=0.0)
        assert worst <= 1, f"{name} is off by {worst:.3g} times what is allowed"


CHANGES = st.one_of(st.floats(-0.05, 0.05), st.sampled_from([0.0, 0.0, 99.0, -0.99]))


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    windows=st.sets(st.integers(1, 40), min_size=1, max_size=3).map(sorted),
    seed=st.integers(0, 2**31),
)
def test_recursive_columns_equal_a_recursion_with_forty_digits(lengths, windows, seed):
    chance = np.random.default_rng(seed)
    moves = chance.choice([0.0, 0.01, 0.06], sum(lengths)) * chance.uniform(-1, 1, sum(lengths))
    moves = np.where(chance.random(len(moves)) < 0.02, chance.choice([99.0, -0.99]), moves)
    price = np.asarray(np.clip(300 * np.cumprod(1 + moves), 1e-3, 1e6), np.float32)
    found = indicator_columns(points_of(price, lengths), windows=windows)
    parts = [by_recursion(part, windows) for part in np.split(price, np.cumsum(lengths)[:-1])]
    expected = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert_within(found, expected, price.astype(np.float64))


def test_macd_is_exact_relative_to_the_price_near_zero():
    chance = np.random.default_rng(17)
    price, fast, slow = np.empty(3_000, np.float32), 0.0, 0.0
    price[0] = 20_000
    for n in range(1, len(price)):
        last = float(price[n - 1])
        moved = last * chance.normal(0, 1e-3)
        # Each fifth price makes MACD the next to 0 that a float32 can.
        to_zero = (11 / 13 * fast - 25 / 27 * slow) / (25 / 27 - 11 / 13)
        if n % 5 == 0 and abs(to_zero) < 0.02 * last:
            moved = to_zero
        price[n] = last + moved
        step = float(price[n]) - last
        fast, slow = 11 / 13 * (fast + step), 25 / 27 * (slow + step)
    expected = by_recursion(price, [3])
    assert np.nanmin(np.abs(expected["macd"])) < 1e-5
    assert_within(indicator_columns(points_of(price, [3_000]), windows=[3]), expected, price)


def test_strength_equals_talib_and_is_zero_without_a_movement():
    chance = np.random.default_rng(4)
    single = (100 * np.exp(np.cumsum(chance.normal(0, 0.01, 500)))).astype(np.float32)
    price = single.astype(np.float64)
    np.testing.assert_allclose(relative_strength(price), talib.RSI(price, 14), rtol=1e-12)
    assert set(relative_strength(np.full(40, 5.25))[14:]) == {0.0}
    assert np.isnan(relative_strength(price[:14])).all()


def test_every_column_is_in_the_schema_and_has_a_reference():
    price = np.linspace(1, 2, 40).astype(np.float32)
    found = indicator_columns(points_of(price, [40]), windows=[3])
    spark = {"log_return", "ma_3", "volatility_3", "trend"}
    others = {"timestamp", "price", "imputed", "month", "drawdown", *spark}
    in_schema = set(indicator_table([3]).names) - others
    assert set(found) == in_schema, (
        "add the column to core/schema.indicator_table and to kernel.indicator_columns "
        "(or above, where Spark computes it)"
    )
    references = {**by_recursion(price, [3]), **by_windows(price)}
    assert set(found) == set(references), "add the column to by_recursion or by_windows above"


def test_windows_equal_each_window_on_its_own():
    chance = np.random.default_rng(5)
    price = np.asarray(20_000 * np.exp(np.cumsum(chance.normal(0, 0.02, 300))), np.float32)
    found = indicator_columns(points_of(price, [120, 180]), windows=[3])
    parts = [by_windows(part) for part in np.split(price, [120])]
    expected = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert_within(found, expected, price)


@settings(max_examples=200, deadline=None)
@given(
    windows=st.sets(st.integers(2, 300), min_size=1, max_size=2).map(sorted),
    seed=st.integers(0, 2**31),
    calm=st.integers(0, 12_000),
)
def test_the_rows_that_a_block_sees_before_its_own_are_enough(windows, seed, calm):
    chance = np.random.default_rng(seed)
    own, before = 40, rows_remembered(windows)
    moves = chance.normal(0, 0.02, 5_000 + before + own)
    price = np.asarray(900 * np.exp(np.cumsum(moves)), np.float32)
    # Nothing moves for a while before the block's own rows.
    price[-own - calm : -own] = price[-own - calm]
    whole = indicator_columns(points_of(price, [len(price)]), windows=windows)
    seen = indicator_columns(points_of(price[-own - before :], [before + own]), windows=windows)
    late = {name: values[-own:] for name, values in whole.items()}
    shown = {name: values[-own:] for name, values in seen.items()}
    assert_within(shown, late, price[-own:].astype(np.float64))


@settings(max_examples=300, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    pieces=st.integers(1, 6),
    before=st.integers(1, 30),
    seed=st.integers(0, 2**31),
)
def test_the_highest_price_of_the_open_run_is_found_back_in_time(lengths, pieces, before, seed):
    chance = np.random.default_rng(seed)
    prices = chance.permutation(np.arange(1, sum(lengths) + 1)).astype(np.float32)
    points = points_of(prices, lengths)
    # Some observations that a later one in their bucket hides.
    times = np.concatenate([points.index * STEP, points.index * STEP - 3])
    known = np.concatenate([prices, 1_000 + prices]).astype(np.float32)
    order = np.argsort(times)
    parts = [(times[some], known[some]) for some in np.array_split(order, pieces)]
    first = int(points.index[-1]) + before
    found = highest_of_open_run(reversed(parts), grid=GRID, before=first)
    open_run = before <= GRID.max_gap + 1
    assert found == (float(prices[-lengths[-1] :].max()) if open_run else 0.0)


def test_the_highest_of_a_run_begins_anew_after_a_cut():
    points = points_of(np.asarray([3, 5, 4, 2, 1, 7], np.float32), [3, 3])
    assert highest_of_runs(points).tolist() == [3, 5, 5, 2, 2, 7]


def test_an_exponential_mean_is_that_of_pandas():
    price = np.asarray(np.random.default_rng(1).uniform(1, 2, 200), np.float32)
    found = indicator_columns(points_of(price, [200]), windows=[24])["ema_24"]
    series = pd.Series(price.astype(np.float64))
    expected = series.ewm(span=24, adjust=False, min_periods=24).mean()
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("widest", [2, 168, 2_000])
def test_the_start_is_below_the_last_digit_after_rows_remembered(widest):
    rows = rows_remembered([2, widest])
    assert (1 - 2 / (widest + 1)) ** rows < 2**-63
    assert (13 / 14) ** rows < 1e-280
