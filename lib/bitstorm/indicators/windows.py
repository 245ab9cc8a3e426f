"""Log return, moving average, volatility and trend: Spark window functions over blocks.

One ordered series is cut into blocks, so that Spark computes its windows in parallel. `index` is a
row's place in the series. Block n owns the rows with n * size <= index < (n + 1) * size and gets a
copy of the `before` rows before and the `after` rows after them. So a window of at most `before`
rows has the same rows in its block as in the whole series. A hole in the indexes cuts the series.

A window of W rows is merged from shorter ones, each at a `lag` of constant distance: 4 windows of
1 row make one of 4, 4 of these make one of 16, and so on; the digits of W to the base 4 give the
parts. Chan's formula merges two neighbouring windows. So the work for a row grows with log W, and
no running sum is subtracted: quiet rows keep their digits next to wild ones. (T. F. Chan, G. H.
Golub and R. J. LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample
Variances", 1979.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

# About 9,000 rows before each block add a sixth to the work; a block takes a few megabytes.
SIZE = 61_440


@dataclass(frozen=True)
class Blocks:
    """Each block owns `size` indexes and gets `before` and `after` more rows around them."""

    size: int = SIZE
    before: int = 0
    after: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.before < 0 or self.after < 0:
            raise ValueError(f"found {self}, expected size >= 1, before >= 0 and after >= 0")

    def owned(self) -> Column:
        """Whether the block owns the row."""
        return F.col("block") == F.floor(F.col("index") / self.size)


def in_blocks(rows: DataFrame, blocks: Blocks) -> DataFrame:
    """Each row once for every block that gets it, with the block's number in `block` (int64).

    Needs `index` (int64, unique).
    """
    first = F.floor((F.col("index") - blocks.after) / blocks.size)
    last = F.floor((F.col("index") + blocks.before) / blocks.size)
    seen = F.when(first == last, F.array(last)).otherwise(F.sequence(first, last))
    return rows.select(F.explode(seen).alias("block"), *rows.columns)


BASE = 4
# Of each window: the sum of its prices, the mean of its changes less the newest change, and the sum
# of the squared distances of the changes from their mean. `offset` and `squares` are null where a
# change reaches over a cut.
_MOMENTS = ("sum", "offset", "squares")


def with_windows(rows: DataFrame, *, windows: Sequence[int]) -> DataFrame:
    """Append `log_return`, and for each W of `windows` `ma_W` and `volatility_W` (double).

    `rows` has `block`, `index` (int64, unique in a block) and `price` (float32, USD, > 0). A jump
    of `index` cuts the series, and so does the beginning of a block: a row needs the W rows before
    it in its block. `ma_W` (USD) is the mean of the last W prices, `volatility_W` the sample
    standard deviation of the last W fractional changes. A value is null until its whole window
    exists since the last cut; `volatility_1` is always null.
    """
    given = rows.columns
    over = Window.partitionBy("block").orderBy("index")
    known = _with_changes(rows, over, min(BASE, max(windows)))
    size = 1
    while size < max(windows):
        known = _with_longer(known, given, over, size, windows)
        size *= BASE
    change = F.col("change")
    # After a fall to almost nothing, 1 + change has lost the digits of the ratio.
    log_return = F.when(change > -0.5, F.log1p(change)).otherwise(F.log(F.col("ratio")))
    return known.select(
        *given,
        log_return.alias("log_return"),
        *[(F.col(f"sum_{w}") / w).alias(f"ma_{w}") for w in windows],
        *[_volatility(w) for w in windows],
    )


def trend(windows: Sequence[int]) -> Column:
    """The sign of the shortest moving average less the longest (int32)."""
    narrow, wide = (F.col(f"ma_{w}") for w in (min(windows), max(windows)))
    return F.signum(narrow - wide).cast("int")


def _volatility(width: int) -> Column:
    if width == 1:
        return F.lit(None).cast("double").alias("volatility_1")
    return F.sqrt(F.col(f"squares_{width}") / (width - 1)).alias(f"volatility_{width}")


def _with_changes(rows: DataFrame, over: WindowSpec, count: int) -> DataFrame:
    """The windows of one row each: the row's own and, as `…_after_N`, the one of the row N rows
    before; `count` in all. `change` is (p - q) / q, `ratio` is p / q, and `offset_1` is the
    rounding error of `change`."""
    given, price = rows.columns, F.col("price").cast("double")
    lags = [
        F.lag(column, n).over(over).alias(f"{name}_{n}")
        for n in range(1, count + 1)
        for name, column in (("at", F.col("index")), ("p", price))
    ]
    rows = rows.select("*", price.alias("p_0"), *lags)
    # Null behind a cut.
    prices = {
        f"p_{n}": F.when(F.col(f"at_{n}") == F.col("index") - n, F.col(f"p_{n}"))
        for n in range(1, count + 1)
    }
    rows = rows.withColumns(prices)
    changes = {
        f"change_{n}": (F.col(f"p_{n}") - F.col(f"p_{n + 1}")) / F.col(f"p_{n + 1}")
        for n in range(count)
    }
    rows = rows.withColumns(changes)
    known = []
    for n in range(count):
        p, q, change = (F.col(f"{name}_{m}") for name, m in (("p", n), ("p", n + 1), ("change", n)))
        # The product of each half of the change and a float32 is exact.
        high = change.cast("float").cast("double")
        rest = ((p - q) - high * q - (change - high) * q) / q
        values = {"sum_1": p, "change": change, "offset_1": rest, "squares_1": change * 0}
        known += [v.alias(f"{k}_after_{n}" if n else k) for k, v in values.items()]
    return rows.select(*given, *known, (F.col("p_0") / F.col("p_1")).alias("ratio"))


def _with_longer(
    rows: DataFrame, given: Sequence[str], over: WindowSpec, size: int, windows: Sequence[int]
) -> DataFrame:
    """Merge windows of `size` rows into windows of `BASE * size`, and of W % (BASE * size) rows for
    each W of `windows`; drop the windows that no W needs any more."""
    longer = size * BASE
    counts = {w // size % BASE for w in windows} | {BASE for w in windows if w >= longer}
    # (n, m): behind n windows of `size` rows lie the m rows of W's lower digits.
    tails = {(w // size % BASE, w % size) for w in windows if w // size % BASE and w % size}
    pieces = sorted({(n, size) for n in range(1, max(counts))} | tails)
    lags = {(f"{name}_{length}", n) for n, length in pieces for name in _MOMENTS}
    lags |= {("change", n) for n, _ in pieces}
    # `_with_changes` has made those of one row.
    lags = set() if size == 1 else lags
    rows = rows.select(
        "*",
        *[F.lag(name, n * size).over(over).alias(f"{name}_after_{n}") for name, n in sorted(lags)],
    )
    for n, length in pieces:
        rows = rows.select("*", *_merged(n * size, length, n))
    needed = {longer} if max(windows) >= longer else set()
    needed |= {w % longer for w in windows} - {0}
    return rows.select(
        *given, "change", "ratio", *[f"{k}_{n}" for n in sorted(needed) for k in _MOMENTS]
    )


def _merged(newer: int, older: int, after: int) -> list[Column]:
    """The window of the newest `newer` rows and the `older` rows behind them."""

    def new(name: str) -> Column:
        return F.col(f"{name}_{newer}")

    def old(name: str) -> Column:
        return F.col(f"{name}_{older}_after_{after}")

    both = newer + older
    distance = (F.col(f"change_after_{after}") - F.col("change")) + (old("offset") - new("offset"))
    merged = {
        # The oldest change of the newer rows spans both: null at a cut between them.
        "sum": F.when(new("squares").isNotNull(), new("sum") + old("sum")),
        "offset": new("offset") + distance * (older / both),
        "squares": new("squares") + old("squares") + distance * distance * (newer * older / both),
    }
    return [column.alias(f"{name}_{both}") for name, column in merged.items()]
