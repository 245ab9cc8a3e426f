"""The CSV contract: lines of text to rows of `BitcoinSchema`, each refusal with its reason.

Spark's own CSV reader picks columns by position, turns bad fields into nulls and casts too much
(`100d`, `12:30`). So this module splits the lines and checks the fields against a grammar.
"""

from __future__ import annotations

from collections.abc import Collection

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from bitstorm.core import schema
from bitstorm.core.schema import CSV_COLUMNS, CSV_OPTIONAL, CSV_RULES, GENESIS_MS
from bitstorm.store.rejects import reason as reason

# The characters that Java's parsers skip around a value, except NUL: a NUL is damage.
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
# Bitcoin's first block is of 2009. One text: each literal of an array would be a call into the JVM.
_FIRST_YEAR = 2009
_MONTHS = " ".join(f"{y}-{month:02d}" for y in range(_FIRST_YEAR, 2100) for month in range(1, 13))

# The facts of its batch that each line carries; the caller joins them.
BATCH_COLUMNS = ("rank", "width", "not_after_ms", "numeric", *(f"at_{n}" for n in CSV_COLUMNS))


def with_fields(lines: DataFrame) -> DataFrame:
    """Split `text` at its commas and pick each contract column by its place in the header.

    Needs `text`, `width` and `at_NAME` (0-based place, null where the batch has no such column).
    Adds `found_width` and one text column `raw_NAME` for each contract column: trimmed, unquoted,
    null where empty or absent. No value of the contract has a comma, so a line with a quoted comma
    breaks the rule field_count.
    """

    def raw(name: str) -> Column:
        text = F.trim(F.try_element_at(F.col("fields"), F.col(f"at_{name}") + 1))
        # Few files have quotes, and only quoted fields cost the regular expression.
        bare = F.trim(F.regexp_replace(text, r'^"(.*)"$', "$1"))
        bare = F.when(text.startswith('"'), bare).otherwise(text)
        return F.when(bare != "", bare).alias(f"raw_{name}")

    return (
        lines.withColumn("fields", F.split("text", ",", -1))
        .withColumn("found_width", F.size("fields"))
        .select("*", *map(raw, CSV_COLUMNS))
        .drop("fields")
    )


def with_values(fields: DataFrame) -> DataFrame:
    """Add the typed value of each `raw_NAME`: null where the text breaks the grammar.

    `timestamp` is int64 milliseconds, the others are double. A number that is too large for a
    double is infinite, and breaks the rule of its range. `numeric` says that no line of the batch
    has a letter or NUL; where it is false, each line is searched for them.
    """

    def number(name: str) -> Column:
        raw = F.col(f"raw_{name}")
        return F.when(F.col("plain") | raw.rlike(NUMBER), raw.try_cast("double")).alias(name)

    # In a line without a letter or NUL (which Java trims), a text that casts to a number follows
    # the grammar: no `100d`, `0x1p3`, `NaN`. Only other lines need the regular expressions.
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
    """Add `rule`, the first rule that refuses the row, and `warning`, the first of the `warn` rules
    that it breaks; null where there is none.

    `max_jump` is the limit of price_jump: the largest ratio, up or down, between a price and the
    median of the seven rows around it in its batch; None switches the rule off. (A comparison with
    the row before would also refuse the good row after a spike.)
    """
    rules = dict(_rules())
    if max_jump is not None:
        around = Window.partitionBy("rank").orderBy("timestamp", "line").rowsBetween(-3, 3)
        usable = F.when((F.col("price") > 0) & (F.col("price") <= FLOAT32_MAX), F.col("price"))
        # Spark has no median over a moving frame; the fourth of seven sorted values is the same.
        near = F.sort_array(F.collect_list(usable).over(around))
        middle = F.try_element_at(near, F.ceil(F.size(near) / 2).cast("int"))
        values = values.withColumn("around", middle)
        rules["price_jump"] = (F.col("price") > F.col("around") * max_jump) | (
            F.col("price") < F.col("around") / max_jump
        )
    broken = {name: F.when(rules[name], F.lit(name)) for name in CSV_RULES if name in rules}
    rule = F.coalesce(*[column for name, column in broken.items() if name not in warn])
    none = F.lit(None).cast("string")
    warning = F.coalesce(*[column for name, column in broken.items() if name in warn], none)
    # Spark would push a filter on a plain column below the expressions and repeat them all there,
    # past the 64 KB that Java compiles. It does not push one below an explode.
    result = F.struct(rule.alias("rule"), warning.alias("warning"))
    return values.select("*", F.inline(F.array(result)))


def to_prices(checked: DataFrame, *, keep: tuple[str, ...] = ()) -> DataFrame:
    """Rows of `with_rule` as `BitcoinSchema` columns (price rounded to float32) and the `keep`
    columns. In a refused row only the `keep` columns are not null."""
    values = {
        "timestamp": F.col("timestamp"),
        "price": F.col("price").cast("float"),
        **{name: _finite(name) for name in CSV_OPTIONAL},
        schema.PARTITION: month_of(F.col("timestamp")),
    }
    good = F.col("rule").isNull()
    return checked.select(*[F.when(good, v).alias(name) for name, v in values.items()], *keep)


def _finite(name: str) -> Column:
    """The stored form of an optional number; null where it is too large and only has a warning."""
    single = name == "price_change_24h"
    bounded = F.when(F.abs(name) <= (FLOAT32_MAX if single else FLOAT64_MAX), F.col(name))
    return bounded.cast("float" if single else "double")


def month_of(timestamp_ms: Column) -> Column:
    """`YYYY-MM` in the session's time zone, which is UTC."""
    day = F.timestamp_millis(timestamp_ms).cast("date")
    # A look-up: to format a date takes longer than to parse all numbers of the row.
    number = (F.year(day) - _FIRST_YEAR) * 12 + F.month(day) - 1
    known = F.get(F.split(F.lit(_MONTHS), " "), number)
    return F.coalesce(known, F.date_format(day, "yyyy-MM"))


def _timestamp_ms(raw: Column, plain: Column) -> Column:
    integer = raw.try_cast("bigint")
    moment = F.upper(raw).try_cast("timestamp")
    # Between "0" and the character after "9", so without a sign.
    digits = plain & raw.between("0", ":") & (F.octet_length(raw) <= 18) & integer.isNotNull()
    return F.when(
        digits | raw.rlike(INTEGER),
        F.when(integer < schema.SECONDS_BELOW, integer * 1000).otherwise(integer),
    ).when(raw.rlike(DATE_TIME), F.unix_millis(moment))


def _rules() -> list[tuple[str, Column]]:
    """Name and condition of each broken rule."""
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
