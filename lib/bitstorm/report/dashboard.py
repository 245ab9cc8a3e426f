"""dashboard.html: the report in one file that needs no network.

The template `templates/dashboard.html` includes the style and the script.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

import pandas as pd

from bitstorm.report import style, summary
from bitstorm.report.style import FORECAST_COLUMNS, HISTORY_COLUMNS, Mark, require

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Few enough to show single steps.
NEWEST_POINTS = 96


def dashboard_html(
    *,
    metrics: summary.Metrics,
    prices: pd.DataFrame,
    forecast: pd.DataFrame,
    history: pd.DataFrame,
    windows: Sequence[int],
    mark: Mark,
) -> str:
    """The page, with Plotly, the figures and their numbers inside.

    `metrics`, `forecast` and `history` have the whole content of metrics.json, forecast.csv and
    history.csv; only what is drawn of `forecast` is thinned. `prices` has `timestamp` (int64, ms
    UTC), `price`, `ma_W` and `volatility_W` of `windows`, `rsi_14` and `drawdown`; the caller thins
    it. Raises DataError where a column is missing.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    from bitstorm.report import charts

    moving = [f"{name}_{w}" for name in ("ma", "volatility") for w in windows]
    require(prices, ["timestamp", "price", *moving, "rsi_14", "drawdown"], of="price")
    require(forecast, FORECAST_COLUMNS, of="forecast")
    require(history, HISTORY_COLUMNS, of="training history")
    newest = forecast.tail(NEWEST_POINTS)
    seen = style.thinned(forecast.assign(saved=style.squared_error_saved(forecast)))
    level = (metrics.get("interval") or {}).get("level")
    best = (metrics.get("training") or {}).get("best_epoch")
    figures: dict[str, go.Figure] = {
        "price": charts.price_chart(prices, windows=windows, unit=mark.unit),
        "recent": charts.forecast_chart(newest, unit=mark.unit, level=level),
        "forecast": charts.forecast_chart(seen, unit=mark.unit, level=level),
        "returns": charts.returns_chart(seen, reach=style.returns_reach(forecast)),
        "saved": charts.saved_chart(seen),
        "volatility": charts.volatility_chart(prices, windows=windows),
        "momentum": charts.momentum_chart(prices),
        "training": charts.training_chart(history, best=best),
    }
    loader = FunctionLoader(template)
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, undefined=StrictUndefined)
    return pages.get_template("dashboard.html").render(
        metrics=metrics,
        mark=mark,
        level=level,
        style=style,
        summary=summary,
        # In a script element only "<" can end the element or begin a comment.
        figures={
            name: Markup(
                charts.add_mark(figure, mark).to_json(engine="json").replace("<", "\\u003c")
            )
            for name, figure in figures.items()
        },
        newest=len(newest),
        plotly_script=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )


def template(name: str) -> str:
    """The text of a file in `templates/`, also where the package is in a zip file."""
    return resources.files("bitstorm.report").joinpath("templates", name).read_text("utf-8")
