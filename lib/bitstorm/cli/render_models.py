"""The results of the indicator and model commands as lines of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bitstorm.cli.render_data import count_text, source_text, table, tally_text
from bitstorm.core.time import duration_ms, duration_text, iso
from bitstorm.report import style

if TYPE_CHECKING:
    from bitstorm.evaluation.markets import Proof, Rate
    from bitstorm.indicators.lookahead import Change
    from bitstorm.model.runs import Overview
    from bitstorm.pipelines.indicators import Computed
    from bitstorm.pipelines.lookahead import Looked
    from bitstorm.pipelines.run import Outcome
    from bitstorm.pipelines.runs import Compared, Shown
    from bitstorm.pipelines.stats import Stats
    from bitstorm.pipelines.verdict import Verdict


def outcome_lines(outcome: Outcome) -> list[str]:
    """The final tables of `run`."""
    ingested, metrics = outcome.ingested, outcome.forecast.metrics
    unit, model = metrics["vs_currency"].upper(), metrics["model"]
    facts = [
        ("source", source_text(metrics["source"])),
        ("rows", f"{tally_text(ingested)}; {ingested.rows:,} stored"),
        ("span", f"{metrics['span']['first']} to {metrics['span']['last']}"),
        ("snapshot", f"prices {metrics['snapshot']['prices']}"),
        ("", f"indicators {metrics['snapshot']['indicators']}"),
        ("run", metrics["run"]),
        ("next step", _next_step(metrics["next"], metrics["interval"]["level"], unit)),
        ("verdict", metrics["verdict"]),
        ("report", f"{outcome.report.folder}/dashboard.html"),
    ]
    errors = [
        ("", "RMSE " + unit, "MAE " + unit, "RMSE log return", "skill"),
        _error_row("LSTM", model, f"{model['skill']:+.4f}"),
        _error_row("price stays", metrics["persistence"], "0"),
    ]
    seconds = "  ".join(f"{name} {value:.1f}" for name, value in outcome.seconds.items())
    total = f"  {sum(outcome.seconds.values()):.1f} s in all: {seconds}"
    return [*table(facts), *table(errors, heading=True), total]


def _next_step(following: dict[str, Any], level: float, unit: str) -> str:
    if math.isnan(following["forecast"]):
        return "none: too few points since the last cut"
    return (
        f"{following['forecast']:,.2f} {unit} at {following['time']}, "
        f"{level:.0%} interval {following['lower']:,.2f} to {following['upper']:,.2f}"
    )


def _error_row(name: str, errors: dict[str, float], skill: str) -> tuple[str, ...]:
    usd = (f"{errors[key]:,.2f}" for key in ("rmse_usd", "mae_usd"))
    return (name, *usd, f"{errors['rmse_log_return']:.6f}", skill)


def verdict_lines(result: Verdict) -> list[str]:
    """The grades with their reasons, then the measured error rates."""
    return [*table([*result.facts().items()]), *proof_lines(result.error_rates)]


def proof_lines(proof: Proof) -> list[str]:
    """A line for each rule and number of hours: the share of markets where it says yes, and the
    claim."""
    models = [*dict.fromkeys(rate.model for rate in proof.rates)]
    short = (model.removeprefix("no skill, ") for model in models)
    rows: list[tuple[str, ...]] = [("says yes in %", "hours", *short, "claim")]
    for rule, hours in dict.fromkeys((rate.rule, rate.hours) for rate in proof.rates):
        rates = [proof.rate(rule, model, hours) for model in models]
        claims = dict.fromkeys(_claim(rate) for rate in rates if rate)
        cells = ["–" if r is None else f"{100 * r.share:.1f}" for r in rates]
        rows.append((rule, f"{hours:,}", *cells, ", ".join(filter(None, claims))))
    largest = 100 * max(rate.standard_error for rate in proof.rates)
    return [
        f"{proof.markets:,} simulated markets, seed {proof.seed}, fee {proof.fee:g} basis points: "
        f"standard errors up to {largest:.1f} %",
        *table(rows, heading=True, whole=True),
        "claims: at most without skill (also with skewed shocks), at least at R² 1 %",
    ]


def _claim(rate: Rate) -> str:
    if rate.at_most is not None:
        return f"≤ {100 * rate.at_most:g}"
    return "" if rate.at_least is None else f"≥ {100 * rate.at_least:g}"


def proof_failure(proof: Proof) -> str:
    """Which claims do not hold, in one sentence."""
    found = "; ".join(
        f"{rate.rule} says yes in {100 * rate.share:.1f} % of the markets with {rate.model} after "
        f"{rate.hours:,} hours, expected {_claim(rate)} %"
        for rate in proof.broken
    )
    return f"{found}: more than three standard errors off, so please report it"


def runs_lines(overviews: Sequence[Overview]) -> list[str]:
    """A line for each run, newest first."""
    if not overviews:
        return ["there is no training run yet: `bitstorm train` makes one"]
    heading = ("run", "state", "backend", "windows", "epochs", "best", "loss", "time", "indicators")
    lines = table([heading, *[_run_cells(o) for o in overviews]], whole=True)
    return [*lines, *[f"{o.run}: {o.problem}" for o in overviews if o.problem]]


def _run_cells(o: Overview) -> tuple[str, ...]:
    loss = "" if o.best_validation_loss is None else f"{o.best_validation_loss:.4f}"
    return (
        o.run,
        o.state,
        o.backend or "",
        "" if o.windows is None else f"{o.windows:,}",
        "" if o.epochs is None else str(o.epochs),
        "" if o.best_epoch is None else str(o.best_epoch),
        loss,
        "" if o.seconds is None else f"{o.seconds:,.1f} s",
        o.indicators or "",
    )


_PARTS = ("settings", "windows", "warm_up", "split", "fitted", "threads", "versions", "code")


def run_lines(shown: Shown) -> list[str]:
    """A run's line, then its record, sessions and problems."""
    record = shown.record
    lines = runs_lines([replace(shown.overview, problem=None)])
    for part in _PARTS:
        if values := record.get(part):
            rows = [(f"  {name}", _cell(value)) for name, value in values.items()]
            lines += [f"{part}:", *table(rows, whole=True)]
    lines += [
        f"session: {s['started_at']} to {s.get('ended_at', '?')}, after epoch {s['after_epoch']}"
        for s in record.get("sessions", [])
    ]
    return [*lines, *[f"problem: {problem}" for problem in shown.problems]]


def comparison_lines(compared: Compared) -> list[str]:
    """A line for each difference, with a column for each run."""
    if not compared.differ:
        return ["these runs have the same settings, data and results"]
    rows = [("", *compared.runs)]
    rows += [(key, *map(_cell, values)) for key, values in compared.differ.items()]
    return table(rows, whole=True)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


_CHANGES = 10


def computed_lines(result: Computed) -> list[str]:
    """The points of the indicators, and how many months were computed."""
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
            ("note", "indicators and bars are of different prices: run `bitstorm indicators`")
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
    """The comparisons at each cut, and their first changes."""
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
        others = "every value" if result.caught is None else "every other value"
        lines.append(f"{others} is the same to the last bit")
    lines += [
        f"{iso(change.timestamp)} {_changed(change)} {how} the prices after {iso(cut.time_ms)}"
        for cut in result.cuts
        for how, one in (("without", cut.truncated), ("with other values for", cut.altered))
        for change in one.first
    ][:_CHANGES]
    return lines


def lookahead_failure(result: Looked) -> str:
    """Why the check failed, in one sentence."""
    if not result.changed:
        return (
            "the planted look-ahead was not caught: no cut has prices after it; use more --cuts or "
            "another --seed"
        )
    cuts = [cut for cut in result.cuts if cut.changed & {*result.changed}]
    oldest = min(
        change.timestamp for cut in cuts for change in (*cut.truncated.first, *cut.altered.first)
    )
    columns = ", ".join("whole rows" if name == "timestamp" else name for name in result.changed)
    return (
        f"{columns} changed with the prices after {', '.join(iso(cut.time_ms) for cut in cuts)}, "
        f"first at {iso(oldest)}: look-ahead found, fix how these columns are computed"
    )


def _changed(change: Change) -> str:
    if change.column == "timestamp":
        return "is there only" if change.whole is None else "is not there"
    again, whole = ("null" if text is None else text for text in (change.again, change.whole))
    return f"{change.column} is {again} instead of {whole}"
