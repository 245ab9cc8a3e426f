"""dashboard.html: the whole report in one file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from bitstorm.report import page
from bitstorm.report.mark import COINGECKO_URL, Mark
from bitstorm.report.numbers import count, moment, money, percent, score, share
from bitstorm.report.plots import FORECAST_COLUMNS, HISTORY_COLUMNS
from bitstorm.report.series import require
from bitstorm.report.summary import (
    Metrics,
    data_facts,
    difference_sentence,
    error_rows,
    interval_sentence,
    model_facts,
    next_sentence,
    provenance_facts,
    verdict_sentence,
)

# Beyond this a browser gets slow and the file large.
MOST_FORECAST_POINTS = 5_000
# So many that a single step can be seen.
NEWEST_POINTS = 96


def dashboard_html(
    *,
    metrics: Metrics,
    prices: pd.DataFrame,
    forecast: pd.DataFrame,
    history: pd.DataFrame,
    windows: Sequence[int],
    mark: Mark,
) -> str:
    """The whole page: Plotly itself, the figures and their numbers are inside.

    `prices` has `timestamp` (int64 ms), `price`, `ma_W` and `volatility_W` of `windows`,
    `rsi_14` and `drawdown`, thinned by the caller; `forecast` has the columns of forecast.csv,
    `history` those of history.csv, `metrics` are those of metrics.json. Of a longer forecast the
    newest 5,000 points are drawn, and the page says so. Raises DataError for a missing column.
    """
    from plotly.offline import get_plotlyjs

    moving = [f"{name}_{w}" for name in ("ma", "volatility") for w in windows]
    require(prices, ["timestamp", "price", *moving, "rsi_14", "drawdown"], of="price")
    require(forecast, FORECAST_COLUMNS, of="forecast")
    require(history, HISTORY_COLUMNS, of="training history")
    body = "\n".join(
        [
            _header(metrics, mark),
            "<main>",
            _cards(metrics, mark),
            *_sections(metrics, prices, forecast, history, windows=windows, mark=mark),
            "</main>",
            _footer(metrics, mark),
        ]
    )
    return page.document(
        title=f"{'SIMULATED: ' if mark.simulated else ''}{mark.subject} · Bitstorm",
        banner=mark.banner,
        body=body,
        plotly_script=get_plotlyjs().replace("</script", "<\\/script"),
    )


def _header(metrics: Metrics, mark: Mark) -> str:
    latest = metrics.get("latest") or {}
    return (
        f"<header>\n<h1>{escape(mark.subject)}</h1>\n"
        + page.paragraph(f"As of {moment(latest.get('time'))}", style="note")
        + "\n</header>"
    )


def _cards(metrics: Metrics, mark: Mark) -> str:
    span, latest = metrics.get("span") or {}, metrics.get("latest") or {}
    following, model = metrics.get("next") or {}, metrics.get("model") or {}
    level = (metrics.get("interval") or {}).get("level")
    cards = [
        page.card("Latest price", money(latest.get("price"), mark.unit)),
        page.card("Change in 24 h", percent(latest.get("change_24h_percent"))),
        page.card(
            "Next step",
            money(following.get("forecast"), mark.unit),
            f"{share(level, digits=0)} interval {money(following.get('lower'), mark.unit)} to "
            f"{money(following.get('upper'), mark.unit)}",
        ),
        page.card(
            "Skill",
            score(model.get("skill")),
            "against “the price stays as it is”; 0 is no better, 1 is perfect",
        ),
        page.card(
            "Observations",
            count(span.get("rows")),
            f"{moment(span.get('first'))} to {moment(span.get('last'))}",
        ),
    ]
    return "\n".join(['<div class="cards">', *cards, "</div>"])


def _sections(
    metrics: Metrics,
    prices: pd.DataFrame,
    forecast: pd.DataFrame,
    history: pd.DataFrame,
    *,
    windows: Sequence[int],
    mark: Mark,
) -> list[str]:
    from bitstorm.report import charts

    shown = forecast.tail(MOST_FORECAST_POINTS)
    cut = (
        f", the newest {len(shown):,} of {len(forecast):,} points"
        if len(shown) < len(forecast)
        else ""
    )
    level = (metrics.get("interval") or {}).get("level")

    def place(name: str, figure: charts.go.Figure, label: str) -> str:
        return page.chart(name, charts.stamp(figure, mark).to_json(engine="json"), label=label)

    price = charts.price_chart(prices, windows=windows, unit=mark.unit)
    levels = charts.forecast_chart(shown, unit=mark.unit, level=level)
    newest = forecast.tail(NEWEST_POINTS)
    recent = charts.forecast_chart(newest, unit=mark.unit, level=level)
    return [
        page.section(
            "Is the model any good?",
            page.paragraph(verdict_sentence(metrics), style="verdict"),
            page.table(error_rows(metrics)),
            page.paragraph(difference_sentence(metrics), style="note"),
            page.paragraph(interval_sentence(metrics), style="note"),
            page.paragraph(f"Next step, {next_sentence(metrics)}", style="note"),
        ),
        page.section("Price", place("price", price, "price and moving averages over time")),
        page.section(
            "Forecast on data the model never saw",
            place("recent", recent, "the newest points of the forecast"),
            place("forecast", levels, "forecast, actual price and interval over time"),
            note="A curve of price levels always looks convincing, since the next price is close "
            f"to this one: compare it with the orange line. Above the newest {len(newest):,} "
            f"points, below the whole test part{cut}.",
        ),
        '<div class="pair">',
        page.section(
            "Predicted against actual log returns",
            place("returns", charts.returns_chart(shown), "scatter of log returns"),
            note="Both axes on one scale: a useful model would follow the dashed line.",
        ),
        page.section(
            "Squared error saved against persistence",
            place("saved", charts.saved_chart(forecast.tail(MOST_FORECAST_POINTS)), "saved error"),
            note="Rising: the model is closer than “the price stays as it is”; falling: farther.",
        ),
        page.section(
            "Volatility",
            place("volatility", charts.volatility_chart(prices, windows=windows), "volatility"),
            note="Sample standard deviation of the changes in each window.",
        ),
        page.section(
            "Drawdown and RSI",
            place("momentum", charts.momentum_chart(prices), "drawdown and RSI over time"),
            note="Distance from the highest price so far; 0 to 100, Wilder.",
        ),
        page.section(
            "Training",
            place(
                "training",
                charts.training_chart(history, best=metrics.get("training", {}).get("best_epoch")),
                "loss of each epoch",
            ),
            note="Stopping at the best validation loss.",
        ),
        page.section(
            "Data and model",
            page.facts([*data_facts(metrics), *model_facts(metrics)]),
        ),
        "</div>",
    ]


def _footer(metrics: Metrics, mark: Mark) -> str:
    parts = ["<footer>", "<h2>Provenance</h2>", page.facts(provenance_facts(metrics))]
    if mark.attribution:
        parts.append(
            f'<p><a href="{COINGECKO_URL}" rel="noopener">{escape(mark.attribution)}</a></p>'
        )
    if mark.banner:
        parts.append(page.paragraph(mark.banner, style="quiet"))
    return "\n".join([*parts, "</footer>"])
