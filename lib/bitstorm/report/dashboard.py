"""dashboard.html: the whole report in one file that needs no network.

The page is the template `templates/dashboard.html`; it includes its style and its script.
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

# So many that a single step can be seen.
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
    """The whole page: Plotly itself, the figures and their numbers are inside.

    `prices` has `timestamp` (int64 ms), `price`, `ma_W` and `volatility_W` of `windows`,
    `rsi_14` and `drawdown`; `forecast` has the columns of forecast.csv, `history` those of
    history.csv, `metrics` are those of metrics.json. The caller thins long series. Raises
    DataError for a missing column.
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
    level = (metrics.get("interval") or {}).get("level")
    figures: dict[str, go.Figure] = {
        "price": charts.price_chart(prices, windows=windows, unit=mark.unit),
        "recent": charts.forecast_chart(newest, unit=mark.unit, level=level),
        "forecast": charts.forecast_chart(forecast, unit=mark.unit, level=level),
        "returns": charts.returns_chart(forecast),
        "saved": charts.saved_chart(forecast),
        "volatility": charts.volatility_chart(prices, windows=windows),
        "momentum": charts.momentum_chart(prices),
        "training": charts.training_chart(
            history, best=(metrics.get("training") or {}).get("best_epoch")
        ),
    }
    page = Environment(
        loader=FunctionLoader(template),
        autoescape=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    return page.get_template("dashboard.html").render(
        metrics=metrics,
        mark=mark,
        level=level,
        style=style,
        summary=summary,
        # In a script element only "<" could end the element or open a comment.
        figures={
            name: Markup(charts.stamp(figure, mark).to_json(engine="json").replace("<", "\\u003c"))
            for name, figure in figures.items()
        },
        newest=len(newest),
        plotly_script=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )


def template(name: str) -> str:
    """The text of a file in `templates/`, also where the package lies in a zip."""
    return resources.files("bitstorm.report").joinpath("templates", name).read_text("utf-8")
