"""Log return, moving average, volatility and trend: Spark window functions over blocks.

One ordered series is cut into blocks, so that windows over it are computed in parallel, exactly. A
row's place in the series is its `index`. Block n owns the rows with n * size <= index < (n + 1) *
size, and gets a copy of those `before` (and `after`) it. A window that reaches back no further sees
in its block the very rows that it would see in the whole series. A hole in the indexes cuts the
series.

A window of W rows is put together from shorter ones, each found by a `lag` of constant distance:
4 windows of 1 row make one of 4, 4 of these one of 16, and so on, and the digits of W to the base
4 say which of them make up W. Two windows next to each other are merged by Chan's formula. So the
work for a row grows with log W, and nothing is subtracted that has grown over the series: a quiet
stretch keeps its digits beside a wild one. (T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating
Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, WindowSpec


# Some 9,000 rows come before them, a sixth of the work; one block fits into a few megabytes.
SIZE = 61_440


@dataclass(frozen=True)
class Blocks:
    """How a series is cut: each block owns `size` indexes and sees `before` and `after` more."""

    size: int = SIZE
    before: int = 0
    after: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.before < 0 or self.after < 0:
            raise ValueError(f"{self} is no way to cut a series: size >= 1, the others >= 0")

    def owned(self) -> Column:
        """Whether the row is its block's own, not one carried along."""
        from pyspark.sql import functions as F

        return F.col("block") == F.floor(F.col("index") / self.size)


def in_blocks(rows: DataFrame, blocks: Blocks) -> DataFrame:
    """Each row once for every block that sees it, with the block's number in `block` (int64).

    Needs `index` (int64, no two rows with the same).
    """
    from pyspark.sql import functions as F

    first = F.floor((F.col("index") - blocks.after) / blocks.size)
    last = F.floor((F.col("index") + blocks.before) / blocks.size)
    seen = F.when(first == last, F.array(last)).otherwise(F.sequence(first, last))
    return rows.select(F.explode(seen).alias("block"), *rows.columns)


BASE = 4
# What is known of a window: the sum of its prices; of its changes how far their mean is from the
# newest one, and the sum of the squared distances from their mean. All but the sum are null where
# one of the changes reaches over a cut.
_KNOWN = ("sum", "apart", "squares")


def with_windows(rows: DataFrame, *, windows: Sequence[int]) -> DataFrame:
    """Append `log_return`, and for each W of `windows` `ma_W` and `volatility_W` (double).

    `rows` has `block`, `index` (int64, distinct in a block) and `price` (float32, USD, > 0). A jump
    of `index` cuts the series, and so does the beginning of a block: to have all its values a row
    needs the W rows before it in its block. `ma_W` is the mean of the last W prices, `volatility_W`
    the sample standard deviation of the last W fractional changes. A value is null until its whole
    window exists since the last cut; `volatility_1` always is.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    kept = rows.columns
    over = Window.partitionBy("block").orderBy("index")
    known = _with_changes(rows, over, min(BASE, max(windows)))
    size = 1
    while size < max(windows):
        known = _with_longer(known, kept, over, size, windows)
        size *= BASE
    change = F.col("change")
    # Of a fall by nearly all, 1 + change has lost what is left.
    log_return = F.when(change > -0.5, F.log1p(change)).otherwise(F.log(F.col("ratio")))
    return known.select(
        *kept,
        log_return.alias("log_return"),
        *[(F.col(f"sum_{w}") / w).alias(f"ma_{w}") for w in windows],
        *[_volatility(w) for w in windows],
    )


def trend(windows: Sequence[int]) -> Column:
    """The sign of the narrowest moving average less the widest (int32)."""
    from pyspark.sql import functions as F

    narrow, wide = (F.col(f"ma_{w}") for w in (min(windows), max(windows)))
    return F.signum(narrow - wide).cast("int")


def _volatility(width: int) -> Column:
    from pyspark.sql import functions as F

    if width == 1:
        return F.lit(None).cast("double").alias("volatility_1")
    return F.sqrt(F.col(f"squares_{width}") / (width - 1)).alias(f"volatility_{width}")


def _with_changes(rows: DataFrame, over: WindowSpec, count: int) -> DataFrame:
    """The windows of one row that end at each row, and as `…_after_N` those that end N rows before
    it, `count` in all. `change` is (p - q) / q, `ratio` p / q, and `apart_1` what the division has
    rounded off."""
    from pyspark.sql import functions as F

    kept, price = rows.columns, F.col("price").cast("double")
    lags = [
        F.lag(column, n).over(over).alias(f"{name}_{n}")
        for n in range(1, count + 1)
        for name, column in (("at", F.col("index")), ("p", price))
    ]
    rows = rows.select("*", price.alias("p_0"), *lags)
    # Null from the first cut on.
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
        # Both halves of the change times a float32 are exact.
        high = change.cast("float").cast("double")
        rest = ((p - q) - high * q - (change - high) * q) / q
        values = {"sum_1": p, "change": change, "apart_1": rest, "squares_1": change * 0}
        known += [v.alias(f"{k}_after_{n}" if n else k) for k, v in values.items()]
    return rows.select(*kept, *known, (F.col("p_0") / F.col("p_1")).alias("ratio"))


def _with_longer(
    rows: DataFrame, kept: Sequence[str], over: WindowSpec, size: int, windows: Sequence[int]
) -> DataFrame:
    """From windows of `size` rows to those of `BASE * size`, and to the W % (BASE * size) rows of
    each W of `windows`; shorter ones that no W needs any more are dropped."""
    from pyspark.sql import functions as F

    longer = size * BASE
    counts = {w // size % BASE for w in windows} | {BASE for w in windows if w >= longer}
    # Behind so many windows of `size` come the rows that the lower digits of W stand for.
    tails = {(w // size % BASE, w % size) for w in windows if w // size % BASE and w % size}
    pieces = sorted({(n, size) for n in range(1, max(counts))} | tails)
    lags = {(f"{name}_{length}", n) for n, length in pieces for name in _KNOWN}
    lags |= {("change", n) for n, _ in pieces}
    # Those of one row are there already.
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
        *kept, "change", "ratio", *[f"{k}_{n}" for n in sorted(needed) for k in _KNOWN]
    )


def _merged(newer: int, older: int, after: int) -> list[Column]:
    """A window of the `newer` newest rows and the `older` ones behind them."""
    from pyspark.sql import functions as F

    def new(name: str) -> Column:
        return F.col(f"{name}_{newer}")

    def old(name: str) -> Column:
        return F.col(f"{name}_{older}_after_{after}")

    both = newer + older
    distance = (F.col(f"change_after_{after}") - F.col("change")) + (old("apart") - new("apart"))
    merged = {
        # The oldest change of the newer rows reaches over to the older ones.
        "sum": F.when(new("squares").isNotNull(), new("sum") + old("sum")),
        "apart": new("apart") + distance * (older / both),
        "squares": new("squares") + old("squares") + distance * distance * (newer * older / both),
    }
    return [column.alias(f"{name}_{both}") for name, column in merged.items()]
