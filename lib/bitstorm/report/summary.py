"""metrics.json and summary.txt: the numbers of a report for programs and for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bitstorm.core import durable_io
from bitstorm.core.errors import DataError
from bitstorm.core.results import Result
from bitstorm.core.time import duration_ms, parse_instant
from bitstorm.report import style
from bitstorm.report.page_values import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Metrics = Mapping[str, Any]
# So many steps before the origin of a forecast are drawn.
PAST_STEPS = 72


def mark_of(metrics: Metrics) -> style.Mark:
    """The mark of the metrics' data."""
    return style.Mark(metrics["source"], metrics["coin"], metrics["vs_currency"])


def summary_text(metrics: Metrics) -> str:
    """The text of summary.txt, with `n/a` for a value that is missing or not finite."""
    mark = mark_of(metrics)
    sections = [
        ("Verdict", [verdict_sentence(metrics), *grade_sentences(metrics)]),
        ("Data", _pairs(data_facts(metrics))),
        ("Model", _pairs(model_facts(metrics))),
        ("Errors on the test part", _table(error_rows(metrics))),
        ("Interval", [interval_sentence(metrics)]),
        ("Next steps", [*_table(outlook_rows(metrics)), choice_sentence(metrics)]),
        ("Provenance", _pairs(provenance_facts(metrics))),
    ]
    head = [f"Bitstorm report: {mark.subject}"]
    head.append("=" * len(head[0]))
    if mark.banner:
        head += ["", f"*** {mark.banner} ***"]
    body = [line for title, lines in sections for line in ("", title, "-" * len(title), *lines)]
    if mark.attribution:
        body += ["", f"{mark.attribution} ({style.COINGECKO_URL})"]
    return "\n".join([*head, *body]) + "\n"


def data_facts(metrics: Metrics) -> list[tuple[str, str]]:
    """(name, text) of the data."""
    span, latest = _part(metrics, "span"), _part(metrics, "latest")
    points, price = style.count(span.get("grid_points")), latest.get("price")
    latest_price = style.money(price, mark_of(metrics).unit)
    return [
        ("first observation", style.moment(span.get("first"))),
        ("last observation", style.moment(span.get("last"))),
        ("observations", style.count(span.get("rows"))),
        ("grid points", f"{points} of {metrics.get('frequency', style.NONE)}"),
        ("carried forward", style.count(span.get("imputed"))),
        ("cuts (long holes)", style.count(span.get("cuts"))),
        ("latest price", f"{latest_price} at {style.moment(latest.get('time'))}"),
        ("change in 24 h", style.percent(latest.get("change_24h_percent"))),
    ]


def model_facts(metrics: Metrics) -> list[tuple[str, str]]:
    """(name, text) of the training and the test."""
    training, test = _part(metrics, "training"), _part(metrics, "test")
    epochs, best = (style.count(training.get(name)) for name in ("epochs", "best_epoch"))
    return [
        ("target", str(metrics.get("target", style.NONE))),
        (
            "horizon",
            f"{metrics.get('horizon', style.NONE)} × {metrics.get('frequency', style.NONE)}",
        ),
        ("trained on", f"{style.count(training.get('windows'))} windows"),
        ("epochs", f"{epochs}, best {best}"),
        ("training time", style.seconds(training.get("seconds"))),
        ("tested on", f"{style.count(test.get('windows'))} windows"),
        ("test part", f"{style.moment(test.get('first'))} to {style.moment(test.get('last'))}"),
    ]


def error_rows(metrics: Metrics) -> list[tuple[str, str, str]]:
    """The errors as rows of (measure, model, persistence), the heading first."""
    unit = mark_of(metrics).unit
    both = (_part(metrics, "model"), _part(metrics, "persistence"))
    rows = [("", "model", "the price stays as it is")]
    for name in ("RMSE", "MAE"):
        ours, theirs = (style.money(e.get(f"{name.lower()}_usd"), unit) for e in both)
        rows.append((name, ours, theirs))
    for name in ("RMSE", "MAE"):
        ours, theirs = (style.small(e.get(f"{name.lower()}_log_return")) for e in both)
        rows.append((f"{name}, log return", ours, theirs))
    rows.append(("skill, log return", style.score(both[0].get("skill")), "0"))
    rows.append((f"skill, {unit}", style.score(both[0].get("skill_usd")), "0"))
    return rows


def verdict_sentence(metrics: Metrics) -> str:
    """The verdict of metrics.json."""
    return str(metrics.get("verdict") or style.NONE)


def grade_sentences(metrics: Metrics) -> list[str]:
    """A sentence for each grade of the verdict, and one for its data."""
    return [f"{name.capitalize()}: {text}" for name, text in grade_facts(metrics)]


def grade_facts(metrics: Metrics) -> list[tuple[str, str]]:
    """(name, text) of each grade of the verdict, and of its data."""
    details = _part(metrics, "grades").get("details") or {}
    order = ("informative", "more accurate", "worth its costs", "data")
    return [(name, details[name]) for name in order if name in details]


def interval_sentence(metrics: Metrics) -> str:
    """The coverage of the interval on the test part."""
    interval = _part(metrics, "interval")
    return (
        f"The {style.share(interval.get('level'), digits=0)} interval held "
        f"{style.share(interval.get('coverage'))} of the test part's outcomes."
    )


def next_sentence(metrics: Metrics) -> str:
    """The forecast of the next step with its interval."""
    following = _part(metrics, "next")
    names = ("forecast", "lower", "upper", "from_price")
    unit = mark_of(metrics).unit
    forecast, lower, upper, origin = (style.money(following.get(name), unit) for name in names)
    level = style.share(_part(metrics, "interval").get("level"), digits=0)
    return (
        f"{style.moment(following.get('time'))}: {forecast} ({level} interval {lower} to {upper}), "
        f"from {origin}."
    )


def choice_sentence(metrics: Metrics) -> str:
    """Which model forecasts the next steps, and why."""
    outlook = _part(metrics, "outlook")
    return f"Forecast by {outlook.get('model', style.NONE)}: {outlook.get('why', style.NONE)}."


def outlook_rows(metrics: Metrics) -> list[tuple[str, str, str]]:
    """(time, forecast, interval) of some of the next steps, the heading first."""
    level = 100 * metrics["interval"]["level"]
    unit = mark_of(metrics).unit
    steps = _part(metrics, "outlook").get("steps") or []
    shown = [step for step in steps if step["step"] in (1, 3, 6, 12, 24, len(steps))]
    rows = [("", "forecast", f"{level:g} % interval")]
    for step in shown:
        lower, upper = step["intervals"].get(f"{level:g}", (None, None))
        interval = f"{style.money(lower, unit)} to {style.money(upper, unit)}"
        rows.append((style.moment(step["time"]), style.money(step["forecast"], unit), interval))
    return rows


def provenance_facts(metrics: Metrics) -> list[tuple[str, str]]:
    """(name, text) of the source, the snapshots and the training run."""
    snapshot = _part(metrics, "snapshot")
    return [
        ("source", mark_of(metrics).origin),
        ("prices snapshot", str(snapshot.get("prices") or style.NONE)),
        ("indicators snapshot", str(snapshot.get("indicators") or style.NONE)),
        ("training run", str(metrics.get("run") or style.NONE)),
    ]


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write metrics.json like `write_text`, with sorted keys, and null for NaN and infinities."""
    text = json.dumps(plain(metrics), indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_text(path, text)


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of metrics.json. Raises DataError where there is none, or it cannot be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(
            f"there is no {path.name} in {path.parent}: run `bitstorm forecast` first"
        ) from None
    except ValueError as error:
        raise DataError(f"{path} cannot be read ({error}): run `bitstorm forecast` again") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; a reader of `path` sees the old file or the complete new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable_io.replace(path, text.encode())


def _part(metrics: Metrics, name: str) -> Mapping[str, Any]:
    return metrics.get(name) or {}


def _pairs(facts: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in facts)
    return [f"{name:<{width}}  {text}" for name, text in facts]


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [f"{name:<{first}}  {ours:>{second}}  {theirs:>{third}}" for name, ours, theirs in rows]


def fan_of(metrics: Metrics) -> pd.DataFrame:
    """The next steps of metrics.json as `fan_figure` takes them."""
    step_ms, rows = duration_ms(metrics["frequency"]), []
    for step in metrics["outlook"]["steps"]:
        time = parse_instant(step["time"])
        row = {"timestamp": time, "step": step["step"], "forecast": step["forecast"]}
        row |= {"origin": time - step["step"] * step_ms}
        row |= {"origin_price": metrics["next"]["from_price"]}
        for level, bounds in step["intervals"].items():
            row |= dict(zip((f"lower_{level}", f"upper_{level}"), bounds, strict=True))
        rows.append(row)
    return pd.DataFrame(rows).astype({name: float for name in rows[0] if "er_" in name})


@dataclass(frozen=True, repr=False)
class Forecast(Result):
    """Where the results lie, and `metrics` as written."""

    metrics: dict[str, Any]
    forecast_csv: str
    metrics_json: str

    @property
    def indicators(self) -> str:
        """The ID of the snapshot that it reads."""
        return str(self.metrics["snapshot"]["indicators"])

    @property
    def verdict(self) -> str:
        """Whether it is better than persistence on the test part, in a sentence."""
        return verdict_sentence(self.metrics)

    @property
    def table(self) -> pd.DataFrame:
        """The rows of `forecast_csv`, which the next forecast replaces: `timestamp` (Unix ms of the
        target), prices, the interval, and log returns."""
        return pd.read_csv(self.forecast_csv)

    def plot(self, *, theme: style.ThemeName = "light") -> Figure:
        """The next steps with their intervals, and persistence beside them."""
        from bitstorm.report import fan_figure

        past = self.table.tail(PAST_STEPS).rename(columns={"actual": "price"})
        outlook = self.metrics["outlook"]
        return fan_figure(
            fan_of(self.metrics), mark=mark_of(self.metrics), theme=theme, past=past,
            model=outlook["model"],
        )  # fmt: skip

    def plot_test(self, *, theme: style.ThemeName = "light") -> Figure:
        """Forecast and truth on the test part."""
        from bitstorm.report import test_figure

        return test_figure(
            self.table, mark=mark_of(self.metrics), theme=theme,
            level=self.metrics["interval"]["level"], skill=self.metrics["model"]["skill"],
        )  # fmt: skip

    def facts(self) -> dict[str, str]:
        """What it says, in the words of the report's summary."""
        mark = mark_of(self.metrics)
        return {
            "source": mark.banner or mark.attribution or mark.origin,
            "next step": next_sentence(self.metrics),
            "verdict": self.verdict,
            "interval": interval_sentence(self.metrics),
            "run": self.metrics["run"],
            "table": self.forecast_csv,
        }
