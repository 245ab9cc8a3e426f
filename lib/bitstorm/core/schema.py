"""The tables, each defined once. All other forms are derived from these definitions.

Derived here: the types of Spark and NumPy, and the CSV contract. Derived in `store`: the petastorm
Unischema (`petastorm_io`) and the Arrow schema (`seal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pyspark.sql.types import DataType

Kind = Literal["int64", "int32", "float64", "float32", "string", "bool"]

PARTITION = "month"

# Bitcoin's first block: no observation of any coin's price can be older.
GENESIS_MS = 1_230_940_800_000  # 2009-01-03T00:00:00Z
# An integer time below this is seconds: as milliseconds it would lie before March 1973.
SECONDS_BELOW = 10**11


@dataclass(frozen=True)
class Field:
    """One column: `unit` and `rule` are for people, `nullable` and `kind` are enforced.

    Of an indicator, `rows_before` rows of a series without a hole come before its first value.
    """

    name: str
    kind: Kind
    unit: str
    nullable: bool
    rule: str = ""
    rows_before: int = 0


@dataclass(frozen=True)
class Table:
    """An ordered set of fields; the last one is the partition column `month`. No two rows have the
    same `key`, and rows are in its order; it begins with `timestamp`."""

    name: str
    fields: tuple[Field, ...]
    key: tuple[str, ...] = ("timestamp",)

    @property
    def names(self) -> list[str]:
        return [field.name for field in self.fields]

    @property
    def stored(self) -> tuple[Field, ...]:
        """The fields in the files: all except the partition column."""
        return tuple(field for field in self.fields if field.name != PARTITION)

    def field(self, name: str) -> Field:
        return next(field for field in self.fields if field.name == name)


_MONTH = Field(PARTITION, "string", "YYYY-MM of timestamp in UTC", False, "partition")

PRICES = Table(
    "BitcoinSchema",
    (
        Field("timestamp", "int64", "Unix milliseconds, UTC", False, "unique"),
        Field("price", "float32", "USD", False, "finite, > 0"),
        Field("market_cap", "float64", "USD", True),
        Field("volume_24h", "float64", "USD, rolling 24 h (never summed)", True),
        Field("price_change_24h", "float32", "percent", True),
        _MONTH,
    ),
)

# The source of each row of PRICES, and the values that decide between observations of one time.
LINEAGE = Table(
    "LineageSchema",
    (
        Field("timestamp", "int64", "Unix milliseconds, UTC", False, "unique"),
        Field("batch", "string", "SHA-256 of the batch's content", False),
        Field("line", "int64", "its line there; the header is line 1", False),
        Field("granularity_ms", "int64", "typical distance of the batch's rows", True),
        Field("fetched_at", "int64", "Unix milliseconds, UTC", True),
        _MONTH,
    ),
)


def indicator_table(windows: Sequence[int]) -> Table:
    """IndicatorSchema for the configured windows (steps of the grid, ascending)."""
    # Name, unit, rows before the first value.
    double = [
        ("log_return", "log of the price over the one before", 1),
        *((f"ma_{w}", f"mean of the last {w} prices, USD", w - 1) for w in windows),
        *((f"volatility_{w}", f"sample sd of the last {w} fractional changes", w) for w in windows),
        *((f"ema_{w}", f"exponential mean, span {w}, USD", w - 1) for w in windows),
        ("macd", "EMA 12 less EMA 26, USD", 25),
        ("macd_signal", "EMA 9 of macd, USD", 33),
        ("rsi_14", "0 to 100, Wilder", 14),
        ("bollinger_upper_20", "mean of 20 + 2 population sd, USD", 19),
        ("bollinger_lower_20", "mean of 20 - 2 population sd, USD", 19),
        ("drawdown", "price over the running maximum, less 1", 0),
    ]
    trend = "sign of ma_(smallest) less ma_(largest)"
    return Table(
        "IndicatorSchema",
        (
            Field("timestamp", "int64", "Unix milliseconds, UTC, on the grid", False, "unique"),
            Field("price", "float32", "USD", False, "finite, > 0"),
            Field("imputed", "bool", "carried forward: no observation in the bucket", False),
            *(Field(name, "float64", unit, True, "", before) for name, unit, before in double),
            Field("trend", "int32", trend, True, rows_before=max(windows) - 1),
            _MONTH,
        ),
    )


# The probabilities of the intervals around a forecast, in percent.
LEVELS = (50, 80, 90, 95)
FORECASTS = Table(
    "ForecastSchema",
    (
        Field("timestamp", "int64", "Unix milliseconds, UTC, of the outcome", False),
        Field("step", "int32", "steps of the grid from the origin to the outcome", False),
        Field("run", "string", "training run that made it", False),
        Field("origin", "int64", "Unix milliseconds, UTC, of the newest point", False),
        Field("origin_price", "float32", "USD", False, "finite, > 0"),
        Field("forecast", "float64", "USD", False, "finite, > 0"),
        *(
            Field(
                f"{bound}_{level}", "float64", f"{bound} end of the {level} % interval, USD", True
            )
            for level in LEVELS
            for bound in ("lower", "upper")
        ),
        Field("made_at", "int64", "Unix milliseconds, UTC, by the clock", False),
        Field("known_until", "int64", "time of the newest price in the store then", False),
        Field("indicators", "string", "snapshot of the indicators", False),
        Field("digest", "string", "its digest", False),
        _MONTH,
    ),
    key=("timestamp", "step", "run"),
)


# The CSV batch. Columns go by name; `price_usd` is another name of `price`.
CSV_REQUIRED = ("timestamp", "price")
CSV_OPTIONAL = ("market_cap", "volume_24h", "price_change_24h")
CSV_ALIASES = {"price_usd": "price"}
CSV_COLUMNS = CSV_REQUIRED + CSV_OPTIONAL
# The rules for a row of a batch, in their order.
CSV_RULES = (
    "field_count",
    "timestamp_present",
    "timestamp_readable",
    "timestamp_in_range",
    "not_in_future",
    "price_present",
    "price_finite",
    "price_readable",
    "price_positive",
    "price_in_range",
    "price_jump",
    *(f"{name}_readable" for name in CSV_OPTIONAL),
)
# A row that breaks one of these can still be stored; an unreadable cell becomes null.
CSV_RULES_TO_WARN_OF = (
    "timestamp_in_range",
    "not_in_future",
    "price_jump",
    *(f"{name}_readable" for name in CSV_OPTIONAL),
)


def spark_type(kind: Kind) -> DataType:
    from pyspark.sql import types as t

    by_kind: dict[Kind, DataType] = {
        "int64": t.LongType(),
        "int32": t.IntegerType(),
        "float64": t.DoubleType(),
        "float32": t.FloatType(),
        "string": t.StringType(),
        "bool": t.BooleanType(),
    }
    return by_kind[kind]


def numpy_type(kind: Kind) -> Any:
    import numpy as np

    return np.str_ if kind == "string" else np.dtype(kind).type
