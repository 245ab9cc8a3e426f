"""dashboard.html: what `page` holds, in one file that needs no network.

`templates/dashboard.html` has every text and table; the scripts beside it draw the charts with
Plotly. Nothing is loaded: style sheet, scripts, numbers and Plotly's bundle are inside the file.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from bitstorm.core.time import iso
from bitstorm.report import style

# In the order in which they need each other.
SCRIPTS = ("series.js", "charts.js", "judged.js", "controls.js", "page.js")
# Rows of the table in the page itself; the script pages through the others.
TABLE_ROWS = 25
# The keys of the page that the scripts read. The others are in the page's text alone.
SCRIPT_KEYS = (
    "made", "unit", "simulated", "attribution", "now", "windows", "step_ms", "frequency", "series",
    "volatility", "fan", "test", "training", "backtest", "table",
)  # fmt: skip


def dashboard_html(page: Mapping[str, Any], levels: Sequence[str], *, served: bool = False) -> str:
    """The page as HTML; `page` and `levels` are of `page.page_data`.

    A `served` page looks every half minute whether its server has a newer one. The page's policy
    lets a browser run the page's own scripts only, and fetch nothing; a served page may ask its
    own server.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    pages = Environment(
        loader=FunctionLoader(template),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    plotly = get_plotlyjs().replace("</script", "<\\/script").replace("<!--", "<\\!--")
    script = "\n".join(template(name) for name in SCRIPTS)
    sheet = pages.get_template("dashboard.css").render(style=style)
    policy = [
        "default-src 'none'",
        f"script-src {_hashed(plotly)} {_hashed(script)}",
        f"style-src {_hashed(sheet)}",
        "img-src data: blob:",
        "connect-src 'self'" if served else "connect-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    data = {name: page[name] for name in SCRIPT_KEYS}
    data |= {"served": served, "logged_level": (page["log"] or {}).get("level")}
    return pages.get_template("dashboard.html").render(
        page=page,
        levels=levels,
        style=style,
        cell=_cell,
        moment_of=_moment_of,
        rows_shown=TABLE_ROWS,
        policy=Markup("; ".join(policy)),
        sheet=Markup(sheet),
        plotly=Markup(plotly),
        script=Markup(script),
        data=Markup(_json(data)),
        plotly_sheets=_sheets_of(plotly),
    )


def template(name: str) -> str:
    """The text of a file in `templates/`, also where the package is in a zip file."""
    return resources.files("bitstorm.report").joinpath("templates", name).read_text("utf-8")


def _hashed(text: str) -> str:
    """The source of a Content-Security-Policy that allows an element with exactly this text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _json(value: Any) -> str:
    # In a script element only "<" can end the element or begin a comment.
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _sheets_of(plotly: str) -> list[str]:
    """The ids of the style sheets that Plotly's bundle adds for maps, unless there is an element
    with the id. The policy refuses them, so the page has such elements."""
    return sorted(set(re.findall(r'getElementById\("([0-9a-f]{64})"\)', plotly)))


def _moment_of(time_ms: int) -> str:
    return style.moment(iso(time_ms))


def _cell(value: Any) -> str:
    """A value of the table as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float):
        return str(value)
    return style.amount(value) if math.isfinite(value) else ""
