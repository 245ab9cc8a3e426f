"""The frame of the dashboard: style, script and small pieces of HTML. All text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bitstorm.report.palette import INK, INK_ON_DARK, WARNING

# Nothing may be fetched: not by the page, not by Plotly.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)

STYLE = f"""
:root {{
  color-scheme: light dark;
  --ground: #f4f6f8; --paper: #ffffff; --ink: {INK}; --quiet: #5b6773; --line: #dde2e8;
}}
@media (prefers-color-scheme: dark) {{
  :root {{
    --ground: #12161b; --paper: #1b2128; --ink: {INK_ON_DARK}; --quiet: #a0abb8; --line: #323b45;
  }}
}}
* {{ box-sizing: border-box; }}
body {{
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}}
main, header, footer {{ max-width: 1200px; margin: 0 auto; padding: 0 16px; }}
header {{ padding-top: 20px; }}
h1 {{ font-size: 1.7rem; line-height: 1.2; margin: 0; }}
h2 {{ font-size: 1.1rem; margin: 0; }}
.quiet {{ color: var(--quiet); }}
.note {{ color: var(--quiet); margin: 4px 0 0; font-size: .92rem; }}
.banner {{
  background: {WARNING}; color: #fff; font-weight: 700; text-align: center; padding: 8px 16px;
  position: sticky; top: 0; z-index: 1000; letter-spacing: .02em;
}}
.cards {{
  display: grid; gap: 12px; margin: 18px 0;
  grid-template-columns: repeat(auto-fit, minmax(160px, 1fr));
}}
.card, section {{
  background: var(--paper); border: 1px solid var(--line); border-radius: 10px; min-width: 0;
}}
.card {{ padding: 12px 14px; }}
.card .name {{ color: var(--quiet); font-size: .85rem; }}
.card .value {{ font-size: 1.3rem; font-weight: 650; line-height: 1.3; overflow-wrap: anywhere; }}
.card .more {{ color: var(--quiet); font-size: .85rem; }}
section {{ padding: 16px; margin: 0 0 16px; overflow: hidden; }}
.pair {{ display: grid; gap: 0 16px; grid-template-columns: repeat(2, minmax(0, 1fr)); }}
@media (max-width: 860px) {{ .pair {{ grid-template-columns: minmax(0, 1fr); }} }}
.chart {{ width: 100%; height: 420px; margin-top: 8px; }}
.verdict {{ font-size: 1.1rem; font-weight: 600; margin: 8px 0; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
th, td {{ padding: 6px 10px; border-bottom: 1px solid var(--line); text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
thead th {{ color: var(--quiet); font-weight: 600; }}
tbody th {{ font-weight: 500; }}
dl {{
  display: grid; grid-template-columns: minmax(120px, max-content) minmax(0, 1fr);
  gap: 4px 16px; margin: 8px 0 0;
}}
dt {{ color: var(--quiet); }}
dd {{ margin: 0; overflow-wrap: anywhere; }}
footer {{ padding-bottom: 32px; font-size: .92rem; }}
a {{ color: inherit; }}
@media (max-width: 480px) {{
  main, header, footer {{ padding-left: 10px; padding-right: 10px; }}
  section {{ padding: 12px 8px; }}
  th, td {{ padding: 6px; font-size: .88rem; }}
  .cards {{ grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; }}
}}
"""

# Draws every figure in the page's colours, and again when the reader turns light or dark. The
# cloud button, on by default, would send the chart and its numbers to Plotly's server.
SCRIPT = """
const dark = matchMedia('(prefers-color-scheme: dark)');
function template() {
  const style = getComputedStyle(document.documentElement);
  const read = name => style.getPropertyValue(name).trim();
  const axis = {
    gridcolor: read('--line'), linecolor: read('--line'), zerolinecolor: read('--line'),
    tickcolor: read('--line'), automargin: true, title: {standoff: 10},
    rangeselector: {
      bgcolor: read('--ground'), activecolor: read('--line'), bordercolor: read('--line'),
      borderwidth: 1, font: {size: 12},
    },
  };
  return {layout: {
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', colorway: [read('--ink')],
    font: {color: read('--ink'), family: 'system-ui, DejaVu Sans, sans-serif', size: 12},
    hoverlabel: {bgcolor: read('--paper'), bordercolor: read('--line'),
                 font: {color: read('--ink')}},
    modebar: {bgcolor: 'rgba(0,0,0,0)', color: read('--quiet'), activecolor: read('--ink')},
    legend: {bgcolor: 'rgba(0,0,0,0)'}, xaxis: axis, yaxis: axis,
  }};
}
function draw() {
  const look = template();
  for (const chart of document.querySelectorAll('.chart')) {
    const figure = JSON.parse(document.getElementById(chart.id + '-data').textContent);
    figure.layout.template = look;
    Plotly.react(chart, figure.data, figure.layout,
                 {responsive: true, displaylogo: false, showTips: false,
                  showSendToCloud: false, plotlyServerURL: '',
                  modeBarButtonsToRemove: ['select2d', 'lasso2d']});
  }
}
dark.addEventListener('change', draw);
draw();
"""


def document(*, title: str, banner: str | None, body: str, plotly_script: str) -> str:
    """The whole file: `body` is HTML, `title` and `banner` are text."""
    strip = f'<div class="banner" role="note">{escape(banner)}</div>\n' if banner else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{strip}{body}\n"
        f"<script>{plotly_script}</script>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def card(name: str, value: str, more: str = "") -> str:
    """A card of the head: what it is, the value, a line below."""
    return (
        f'<div class="card"><div class="name">{escape(name)}</div>'
        f'<div class="value">{escape(value)}</div><div class="more">{escape(more)}</div></div>'
    )


def chart(name: str, figure_json: str, *, label: str) -> str:
    """A figure's place and its data; `name` is the element's ID, `label` is for screen readers."""
    # In a script element only "<" could end the element or open a comment.
    data = figure_json.replace("<", "\\u003c")
    return (
        f'<div class="chart" id="{escape(name)}" role="img" aria-label="{escape(label)}"></div>\n'
        f'<script type="application/json" id="{escape(name)}-data">{data}</script>'
    )


def section(title: str, *parts: str, note: str = "") -> str:
    """A titled box; `parts` are HTML, `note` is text."""
    said = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return f"<section>\n<h2>{escape(title)}</h2>\n{said}{''.join(parts)}\n</section>"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table of texts, the first row its heading, the first column its names."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in rows[0])
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in texts)
        + "</tr>"
        for name, *texts in rows[1:]
    )
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of (name, text)."""
    return (
        "<dl>"
        + "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in pairs)
        + "</dl>"
    )


def paragraph(text: str, *, style: str) -> str:
    """`style` is the name of a class of STYLE."""
    return f'<p class="{escape(style)}">{escape(text)}</p>'
