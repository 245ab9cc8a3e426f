"""The CSV contract: lines of text to rows of `BitcoinSchema`, each refusal with its reason.

Spark's own CSV reader goes by position, turns bad fields into nulls and casts generously
(`100d`, `12:30`), so lines are split and held to an explicit grammar here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from bitstorm.core.schema import (
    CSV_COLUMNS,
    CSV_OPTIONAL,
    CSV_RULES,
    GENESIS_MS,
    PARTITION,
    SECONDS_BELOW,
)
from bitstorm.core.time import iso

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Around a value stands what Java's own parsers skip, but no NUL: that is damage, not white space.
_AROUND = r"[\x01-\x20]*"
NUMBER = rf"^{_AROUND}[+-]?(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?[\x01-\x20]*$"
INTEGER = rf"^{_AROUND}[0-9]{{1,18}}{_AROUND}$"
DATE_TIME = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?"
    r"(Z|z|[+-][0-9]{2}:?[0-9]{2})?$"
)
NOT_FINITE = r"^[+-]?(nan|inf|infinity)$"
FLOAT32_MAX = 3.4028234663852886e38
FLOAT64_MAX = 1.7976931348623157e308
# Bitcoin's first block is of 2009. One text, since each literal of an array is a call into the JVM.
_FIRST_YEAR = 2009
_MONTHS = " ".join(f"{y}-{month:02d}" for y in range(_FIRST_YEAR, 2100) for month in range(1, 13))

# What `with_rule` needs beside the texts: a row of this shape per batch, joined by the caller.
BATCH_COLUMNS = (
    "rank",
    "width",
    "not_after_ms",
    "numeric",
    *(f"at_{name}" for name in CSV_COLUMNS),
)


def with_fields(lines: DataFrame) -> DataFrame:
    """Split `text` at its commas and pick each contract column by its place in the header.

    Needs `text`, `width` and `at_NAME` (0-based place, null where the batch has no such column).
    Adds `found_width` and one text column `raw_NAME` for each contract column: trimmed, unquoted,
    null where empty or absent. No value of the contract holds a comma, so a quoted comma is
    refused by its width.
    """
    from pyspark.sql import functions as F

    def picked(name: str) -> Column:
        text = F.trim(F.try_element_at(F.col("fields"), F.col(f"at_{name}") + 1))
        # Few files quote anything: only their fields pay for it.
        bare = F.trim(F.regexp_replace(text, r'^"(.*)"$', "$1"))
        bare = F.when(text.startswith('"'), bare).otherwise(text)
        return F.when(bare != "", bare).alias(f"raw_{name}")

    return (
        lines.withColumn("fields", F.split("text", ",", -1))
        .withColumn("found_width", F.size("fields"))
        .select("*", *[picked(name) for name in CSV_COLUMNS])
        .drop("fields")
    )


def with_values(fields: DataFrame) -> DataFrame:
    """Add the typed value beside each `raw_NAME`: null where the text breaks the grammar.

    `timestamp` is int64 milliseconds, the others double; a number too large for a double is
    infinite and refused by its range. `numeric` tells that no line of the batch has a letter or
    NUL; where it is false, each line is looked at.
    """
    from pyspark.sql import functions as F

    def number(name: str) -> Column:
        raw = F.col(f"raw_{name}")
        return F.when(F.col("plain") | raw.rlike(NUMBER), raw.try_cast("double")).alias(name)

    # In a line without a letter (and NUL, which Java trims), what casts to a number has the
    # grammar of one: no `100d`, `0x1p3`, `NaN`. Only others have to meet the regular expressions.
    bare = (F.lower("text") == F.upper("text")) & ~F.contains("text", F.lit("\0"))
    plain = F.col("numeric") | bare
    return (
        fields.withColumn("plain", plain)
        .select(
            "*",
            _timestamp_ms(F.col("raw_timestamp"), F.col("plain")).alias("timestamp"),
            *map(number, CSV_COLUMNS[1:]),
        )
        .drop("plain")
    )


def with_rule(
    values: DataFrame, *, warn: Collection[str] = (), max_jump: float | None = None
) -> DataFrame:
    """Add `rule`: the first rule that a row breaks, null for a good row; and `warning`: the first
    of the `warn` rules that it breaks, which do not refuse it.

    `max_jump` bounds price_jump: a price may be at most so many times the median of the seven rows
    around it in its batch, and at least that part of it; None switches the rule off. (Against the
    row before it alone, the good row after a spike would be refused with it.)
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    rules = dict(_rules())
    if max_jump is not None:
        around = Window.partitionBy("rank").orderBy("timestamp", "line").rowsBetween(-3, 3)
        usable = F.when((F.col("price") > 0) & (F.col("price") <= FLOAT32_MAX), F.col("price"))
        # Spark has no median over a moving frame; of seven it is the fourth when sorted.
        near = F.sort_array(F.collect_list(usable).over(around))
        middle = F.try_element_at(near, F.ceil(F.size(near) / 2).cast("int"))
        values = values.withColumn("around", middle)
        rules["price_jump"] = (F.col("price") > F.col("around") * max_jump) | (
            F.col("price") < F.col("around") / max_jump
        )
    held = [name for name in CSV_RULES if name in rules and name not in warn]
    told = [name for name in CSV_RULES if name in rules and name in warn]
    broken = [F.when(rules[rule], F.lit(rule)) for rule in held]
    warned = [F.when(rules[rule], F.lit(rule)) for rule in told] or [F.lit(None).cast("string")]
    # A filter on a plain column would be pushed below all of this with every expression written
    # out again (past the 64 KB that Java compiles); the output of an explode stays where it is.
    verdict = F.struct(F.coalesce(*broken).alias("rule"), F.coalesce(*warned).alias("warning"))
    return values.select("*", F.inline(F.array(verdict)))


def reason(rule: str, row: Mapping[str, Any]) -> str:
    """One sentence for a refused row of `with_rule`: what was found and what was expected."""
    raw_time, raw_price = _said(row["raw_timestamp"]), _said(row["raw_price"])
    explained = {
        "field_count": f"found {row['found_width']} fields, the header has {row['width']}",
        "timestamp_present": "the timestamp is empty",
        "timestamp_readable": f"the timestamp {raw_time} is neither Unix seconds or milliseconds "
        "nor an ISO-8601 date-time",
        "timestamp_in_range": f"the time {raw_time} is before Bitcoin's first block "
        f"({iso(GENESIS_MS)})",
        "not_in_future": f"the time {raw_time} is later than its batch, which may hold nothing "
        f"after {iso(row['not_after_ms'])}",
        "price_present": "the price is empty",
        "price_finite": f"the price {raw_price} is not finite",
        "price_readable": f"the price {raw_price} is not a plain or exponent number",
        "price_positive": f"the price {raw_price} is not above zero",
        "price_in_range": f"the price {raw_price} does not fit into float32",
        "price_jump": f"the price {raw_price} is too far from {row.get('around')}, the median of "
        "the rows around it (ingest.max_jump)",
    }
    for name in CSV_OPTIONAL:
        explained[f"{name}_readable"] = (
            f"the {name} {_said(row[f'raw_{name}'])} is not a finite number; "
            "leave it empty for none"
        )
    return explained[rule]


def _said(text: str | None) -> str:
    """A refused text as it may stand in a sentence: quoted and cut."""
    return "" if text is None else repr(text[:60])


def to_prices(judged: DataFrame, *, keep: tuple[str, ...] = ()) -> DataFrame:
    """Rows of `with_rule` as `BitcoinSchema` columns (price rounded to float32), and the `keep`
    columns. A refused row keeps those alone, all others are null."""
    from pyspark.sql import functions as F

    values = {
        "timestamp": F.col("timestamp"),
        "price": F.col("price").cast("float"),
        **{name: _finite(name) for name in CSV_OPTIONAL},
        PARTITION: month_of(F.col("timestamp")),
    }
    good = F.col("rule").isNull()
    return judged.select(*[F.when(good, v).alias(name) for name, v in values.items()], *keep)


def _finite(name: str) -> Column:
    """An optional number as it is stored; null where it is too large (and was only warned of)."""
    from pyspark.sql import functions as F

    single = name == "price_change_24h"
    bounded = F.when(F.abs(name) <= (FLOAT32_MAX if single else FLOAT64_MAX), F.col(name))
    return bounded.cast("float" if single else "double")


def month_of(timestamp_ms: Column) -> Column:
    """`YYYY-MM` in the session's time zone, which is UTC."""
    from pyspark.sql import functions as F

    day = F.timestamp_millis(timestamp_ms).cast("date")
    # Looked up, not made: formatting a date costs each row more than parsing its numbers.
    number = (F.year(day) - _FIRST_YEAR) * 12 + F.month(day) - 1
    known = F.get(F.split(F.lit(_MONTHS), " "), number)
    return F.coalesce(known, F.date_format(day, "yyyy-MM"))


def _timestamp_ms(raw: Column, plain: Column) -> Column:
    from pyspark.sql import functions as F

    integer = raw.try_cast("bigint")
    moment = F.upper(raw).try_cast("timestamp")
    # Between "0" and the character after "9": no sign.
    digits = plain & raw.between("0", ":") & (F.octet_length(raw) <= 18) & integer.isNotNull()
    return F.when(
        digits | raw.rlike(INTEGER),
        F.when(integer < SECONDS_BELOW, integer * 1000).otherwise(integer),
    ).when(raw.rlike(DATE_TIME), F.unix_millis(moment))


def _rules() -> list[tuple[str, Column]]:
    """(name, when it is broken), in the order in which they are held."""
    from pyspark.sql import functions as F

    raw_time, time = F.col("raw_timestamp"), F.col("timestamp")
    raw_price, price = F.col("raw_price"), F.col("price")
    rules = [
        ("field_count", F.col("found_width") != F.col("width")),
        ("timestamp_present", raw_time.isNull()),
        ("timestamp_readable", time.isNull()),
        ("timestamp_in_range", time < GENESIS_MS),
        ("not_in_future", time > F.col("not_after_ms")),
        ("price_present", raw_price.isNull()),
        ("price_finite", price.isNull() & F.lower(raw_price).rlike(NOT_FINITE)),
        ("price_readable", price.isNull()),
        ("price_positive", price <= 0),
        ("price_in_range", (price > FLOAT32_MAX) | (price.cast("float") == 0)),
    ]
    for name in CSV_OPTIONAL:
        raw, value = F.col(f"raw_{name}"), F.col(name)
        limit = FLOAT32_MAX if name == "price_change_24h" else FLOAT64_MAX
        broken = raw.isNotNull() & (value.isNull() | (F.abs(value) > limit))
        rules.append((f"{name}_readable", broken))
    return rules
