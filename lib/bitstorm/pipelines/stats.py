"""`stats`: bars of the prices, and statistics of the indicators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitstorm.context import Context
from bitstorm.core.errors import DataError
from bitstorm.core.results import Result
from bitstorm.core.schema import PRICES, indicator_table
from bitstorm.core.time import duration_ms, duration_text
from bitstorm.indicators.statistics import statistics, to_summaries, with_complete
from bitstorm.store import files, petastorm_io, snapshots

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True, repr=False)
class Stats(Result):
    """`statistics` are the columns of `indicators.statistics`, `bars` the newest rows, in order, of
    `indicators.bars.to_summaries` with `complete`.

    `prices` and `indicators` are snapshots; `matching` says that the one was made from the other.
    `rows` counts the bars written to `output`, both None where none were asked for.
    """

    source: str
    vs_currency: str
    prices: str
    indicators: str
    matching: bool
    frequency: str
    period: str
    statistics: dict[str, Any]
    bars: tuple[dict[str, Any], ...]
    output: Path | None
    rows: int | None


def stats(
    context: Context, *, period_ms: int, bars: int, lags: Sequence[int], output: Path | None = None
) -> Stats:
    """Statistics of the indicators, the newest `bars` bars, and all of them in the file `output`.

    `context.snapshot` may name a snapshot of either data set; the other one is then the one that
    belongs to it. Raises SnapshotMissing where either is not there, DataError without prices.
    """
    if output is not None:
        files.check_target(output)
    prices, indicators = snapshots.matching(
        context.workspace.prices, context.workspace.indicators, snapshot=context.snapshot
    )
    last_ms = prices.manifest.last_ms
    if last_ms is None:
        raise DataError(f"snapshot {prices.id} holds no prices: ingest some first")
    for snapshot in (prices, indicators):
        snapshots.check_content(snapshot)
    details = indicators.manifest.details
    with context.spark("stats") as spark:
        points = petastorm_io.read_spark(spark, indicators, indicator_table(details["windows"]))
        row = statistics(points, step_ms=duration_ms(details["frequency"]), lags=lags).first()
        summaries = (
            petastorm_io.read_spark(spark, prices, PRICES)
            .transform(to_summaries, period_ms=period_ms)
            .transform(with_complete, last_ms=last_ms)
        )
        newest = _newest(summaries, bars)
        rows = None if output is None else files.write_csv(summaries.orderBy("timestamp"), output)
    bound = context.workspace.bound_to() or context.origin()
    return Stats(
        source=bound.source,
        vs_currency=bound.vs_currency,
        prices=prices.id,
        indicators=indicators.id,
        matching=details["prices"] == prices.id,
        frequency=details["frequency"],
        period=duration_text(period_ms),
        statistics=row.asDict(recursive=True),
        bars=newest,
        output=output,
        rows=rows,
    )


def _newest(bars: DataFrame, count: int) -> tuple[dict[str, Any], ...]:
    rows = bars.orderBy(bars["timestamp"].desc()).limit(count).collect()
    return tuple(row.asDict() for row in reversed(rows))
