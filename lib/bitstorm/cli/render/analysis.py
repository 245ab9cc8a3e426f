"""Results of indicators, stats and check-lookahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitstorm.cli.render.table import count_text, source_text, table
from bitstorm.core.time import duration_ms, duration_text, iso
from bitstorm.report import style

if TYPE_CHECKING:
    from bitstorm.indicators.lookahead import Change
    from bitstorm.pipelines.indicators import Computed
    from bitstorm.pipelines.lookahead import Looked
    from bitstorm.pipelines.stats import Stats

_CHANGES = 10


def computed_lines(result: Computed) -> list[str]:
    """The indicators that are there now, and how much of them was computed."""
    points = f"{result.rows:,} points in snapshot {result.snapshot}"
    if result.idle:
        return [f"{points}, up to date"]
    return [f"{points}, published: {result.months} months computed, {result.linked} linked"]


def stats_lines(result: Stats) -> list[str]:
    """The statistics, the autocorrelations, and the newest bars, oldest first."""
    found, unit = result.statistics, result.vs_currency.upper()
    facts = [
        ("source", source_text(result.source)),
        ("snapshot", f"prices {result.prices}"),
        ("", f"indicators {result.indicators}"),
        ("points", f"{count_text(found['count'], 'point')} of {result.frequency}, "
         f"{found['imputed']:,} imputed, {_span(found)}"),
        ("log return", f"mean {style.small(found['mean'])}, sd {style.small(found['sd'])}, "
         f"{style.small(found['minimum'])} to {style.small(found['maximum'])}, "
         f"{style.share(found['positive_share'])} above 0"),
        ("shape", f"skewness {style.score(found['skewness'])}, "
         f"excess kurtosis {style.score(found['excess_kurtosis'])}"),
        ("volatility", f"{style.share(found['annualised_volatility'])} a year"),
        ("drawdown", _drawdown(found)),
    ]  # fmt: skip
    if not result.matching:
        facts.append(
            ("note", "the indicators are of other prices than the bars: run `bitstorm indicators`")
        )
    lags = [("lag", "time", "of returns", "of their sizes", "pairs")]
    step_ms = duration_ms(result.frequency)
    lags += [
        (f"{one['lag']:,}", duration_text(one["lag"] * step_ms), style.score(one["of_return"]),
         style.score(one["of_absolute"]), f"{one['pairs']:,}")
        for one in found["autocorrelation"]
    ]  # fmt: skip
    lines = [*table(facts), "autocorrelation", *table(lags, heading=True)]
    if result.bars:
        bars = table(_bars(result), heading=True, whole=True)
        lines += [f"newest bars of {result.period}, {unit}", *bars]
    if result.bars and not result.bars[-1]["complete"]:
        lines.append("the newest bar is not complete: its values may still change")
    if result.rows is not None:
        lines.append(f"{count_text(result.rows, 'bar')} → {result.output}")
    return lines


def _bars(result: Stats) -> list[tuple[str, ...]]:
    money = ("open", "high", "low", "close")
    rows: list[tuple[str, ...]] = [("up to", *money, "return", "realised", "count")]
    for bar in result.bars:
        change, realised = bar["log_return"], bar["realised_volatility"]
        rows.append(
            (iso(bar["timestamp"]), *[style.amount(bar[name]) for name in money],
             "–" if change is None else f"{change:+.4f}",
             "–" if realised is None else f"{realised:.4f}", f"{bar['count']:,}")
        )  # fmt: skip
    return rows


def _span(found: dict[str, Any]) -> str:
    if found["first_ms"] is None:
        return "none"
    return f"{iso(found['first_ms'])} to {iso(found['last_ms'])}"


def _drawdown(found: dict[str, Any]) -> str:
    if found["trough_ms"] is None:
        return "none"
    return (
        f"{style.share(found['largest_drawdown'])} at {iso(found['trough_ms'])}, from the peak "
        f"at {iso(found['peak_ms'])}"
    )


def lookahead_lines(result: Looked) -> list[str]:
    """What was compared at each cut, and what changed there."""
    lines = [
        f"prices {result.prices}, seed {result.seed}: {result.rows:,} rows of "
        f"{len(result.columns)} columns",
        "each cut once without the prices after it, once with other prices there",
    ]
    rows = [["cut", "where", "rows without", "changed", "rows with others", "changed"]]
    for cut in result.cuts:
        rows.append([iso(cut.time_ms), cut.place])
        for one in (cut.truncated, cut.altered):
            rows[-1] += [f"{one.rows:,}", f"{max(one.changed.values(), default=0):,}"]
    lines += table(rows, heading=True)
    if result.caught is not None:
        lines.append(
            f"the planted look-ahead was caught at {result.caught} of {len(result.cuts)} cuts"
        )
    if not result.changed:
        inexact = sum(cut.truncated.inexact + cut.altered.inexact for cut in result.cuts)
        others = "every value" if result.caught is None else "every other value"
        near = (
            f"{inexact:,} by no more than {result.relative:g} of it or {result.absolute:g} (of the "
            "price where it is a difference of prices)"
        )
        lines.append(f"{others} is the same" + (f", {near}" if inexact else " to the last bit"))
    lines += [
        f"{iso(change.timestamp)} {_changed(change)} {how} the prices after {iso(cut.time_ms)}"
        for cut in result.cuts
        for how, one in (("without", cut.truncated), ("with other values for", cut.altered))
        for change in one.first
    ][:_CHANGES]
    return lines


def lookahead_failure(result: Looked) -> str:
    """Why the check has failed, as a sentence."""
    if not result.changed:
        return (
            "the planted look-ahead was not caught: no cut had anything after it to look at; take "
            "more cuts (--cuts) or another --seed"
        )
    cuts = [cut for cut in result.cuts if cut.changed & {*result.changed}]
    oldest = min(
        change.timestamp for cut in cuts for change in (*cut.truncated.first, *cut.altered.first)
    )
    columns = ", ".join("whole rows" if name == "timestamp" else name for name in result.changed)
    return (
        f"{columns} changed with what comes after {', '.join(iso(cut.time_ms) for cut in cuts)}, "
        f"first at {iso(oldest)}: look-ahead found, fix how these columns are computed"
    )


def _changed(change: Change) -> str:
    if change.column == "timestamp":
        return "is there only" if change.whole is None else "is not there"
    again, whole = ("null" if text is None else text for text in (change.again, change.whole))
    return f"{change.column} is {again} instead of {whole}"
