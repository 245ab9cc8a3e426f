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
    """`statistics` has the columns of `indicators.statistics.statistics`; `bars` are the newest
    bars, oldest first, with the columns of `to_summaries` and `complete`.

    `prices` and `indicators` are snapshots; `matching` means that these indicators were computed
    from these prices. `rows` counts the bars in the file `output`; both are None without a file.
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
    """Compute statistics of the indicators and the newest `bars` bars; write all bars to `output`.

    `context.snapshot` can name a snapshot of either data set; it decides on the other one. Raises
    SnapshotMissing where either is missing, and DataError where there are no prices.
    """
    if output is not None:
        files.check_target(output)
    prices, indicators = snapshots.matching(
        context.workspace.prices, context.workspace.indicators, snapshot=context.snapshot
    )
    last_ms = prices.manifest.last_ms
    if last_ms is None:
        raise DataError(f"snapshot {prices.id} has no prices: ingest a batch first")
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
