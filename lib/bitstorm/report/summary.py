"""metrics.json and summary.txt: the numbers of a report for programs and for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bitstorm.core import durable_io
from bitstorm.core.results import Result
from bitstorm.report.style import (
    COINGECKO_URL,
    NONE,
    Mark,
    count,
    moment,
    money,
    percent,
    score,
    share,
    small,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Metrics = Mapping[str, Any]


def mark_of(metrics: Metrics) -> Mark:
    """The mark of the data that the metrics are of."""
    return Mark(metrics["source"], metrics["coin"], metrics["vs_currency"])


def summary_text(metrics: Metrics) -> str:
    """The whole of summary.txt. A value that is missing or not finite reads `n/a`."""
    mark = mark_of(metrics)
    sections = [
        ("Data", _pairs(data_facts(metrics))),
        ("Model", _pairs(model_facts(metrics))),
        ("Errors on the test part", _table(error_rows(metrics))),
        ("Verdict", _verdict(metrics)),
        ("Interval", [interval_sentence(metrics)]),
        ("Next step", [next_sentence(metrics)]),
        ("Provenance", _pairs(provenance_facts(metrics))),
    ]
    head = [f"Bitstorm report: {mark.subject}"]
    head.append("=" * len(head[0]))
    if mark.banner:
        head += ["", f"*** {mark.banner} ***"]
    body = [line for title, lines in sections for line in ("", title, "-" * len(title), *lines)]
    if mark.attribution:
        body += ["", f"{mark.attribution} ({COINGECKO_URL})"]
    return "\n".join([*head, *body]) + "\n"


def data_facts(metrics: Metrics) -> list[tuple[str, str]]:
    """(name, text) of what the data holds."""
    span, latest = _part(metrics, "span"), _part(metrics, "latest")
    unit = mark_of(metrics).unit
    return [
        ("first observation", moment(span.get("first"))),
        ("last observation", moment(span.get("last"))),
        ("observations", count(span.get("rows"))),
        ("grid points", f"{count(span.get('grid_points'))} of {metrics.get('frequency', NONE)}"),
        ("carried forward", count(span.get("imputed"))),
        ("cuts (long holes)", count(span.get("cuts"))),
        ("latest price", f"{money(latest.get('price'), unit)} at {moment(latest.get('time'))}"),
        ("change in 24 h", percent(latest.get("change_24h_percent"))),
    ]


def model_facts(metrics: Metrics) -> list[tuple[str, str]]:
    """(name, text) of how the model was trained and tested."""
    training, test = _part(metrics, "training"), _part(metrics, "test")
    return [
        ("target", str(metrics.get("target", NONE))),
        ("horizon", f"{metrics.get('horizon', NONE)} × {metrics.get('frequency', NONE)}"),
        ("trained on", f"{count(training.get('windows'))} windows"),
        ("epochs", f"{count(training.get('epochs'))}, best {count(training.get('best_epoch'))}"),
        ("training time", _seconds(training.get("seconds"))),
        ("tested on", f"{count(test.get('windows'))} windows"),
        ("test part", f"{moment(test.get('first'))} to {moment(test.get('last'))}"),
    ]


def error_rows(metrics: Metrics) -> list[tuple[str, str, str]]:
    """The errors as rows of (measure, model, persistence), the heading first."""
    unit = mark_of(metrics).unit
    model, persistence = _part(metrics, "model"), _part(metrics, "persistence")
    rows = [("", "model", "the price stays as it is")]
    for name, key, written in (
        ("RMSE", "rmse_usd", unit),
        ("MAE", "mae_usd", unit),
        ("RMSE, log return", "rmse_log_return", None),
        ("MAE, log return", "mae_log_return", None),
    ):
        both = (model.get(key), persistence.get(key))
        texts = [small(v) if written is None else money(v, written) for v in both]
        rows.append((name, texts[0], texts[1]))
    rows.append(("skill, log return", score(model.get("skill")), "0"))
    rows.append((f"skill, {unit}", score(model.get("skill_usd")), "0"))
    return rows


def verdict_sentence(metrics: Metrics) -> str:
    return str(metrics.get("verdict") or NONE)


def difference_sentence(metrics: Metrics) -> str:
    """How much squared error the model saves against persistence, with its uncertainty."""
    difference = _part(metrics, "difference")
    return (
        "Squared error of persistence less that of the model, in log return (above zero the model "
        f"is better): mean {small(difference.get('mean'))}, "
        f"standard error {small(difference.get('standard_error'))}, "
        f"t = {small(difference.get('t'))}."
    )


def interval_sentence(metrics: Metrics) -> str:
    interval = _part(metrics, "interval")
    return (
        f"The {share(interval.get('level'), digits=0)} interval held "
        f"{share(interval.get('coverage'))} of the test part's outcomes."
    )


def next_sentence(metrics: Metrics) -> str:
    """The forecast of the next step with its interval."""
    following = _part(metrics, "next")
    unit = mark_of(metrics).unit
    level = share(_part(metrics, "interval").get("level"), digits=0)
    return (
        f"{moment(following.get('time'))}: {money(following.get('forecast'), unit)} "
        f"({level} interval {money(following.get('lower'), unit)} to "
        f"{money(following.get('upper'), unit)}), from {money(following.get('from_price'), unit)}."
    )


def provenance_facts(metrics: Metrics) -> list[tuple[str, str]]:
    """(name, text) of where everything came from."""
    snapshot = _part(metrics, "snapshot")
    return [
        ("source", mark_of(metrics).origin),
        ("prices snapshot", str(snapshot.get("prices") or NONE)),
        ("indicators snapshot", str(snapshot.get("indicators") or NONE)),
        ("training run", str(metrics.get("run") or NONE)),
    ]


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write metrics.json: sorted keys, NaN and infinities as null, replaced at one moment."""
    text = json.dumps(_plain(metrics), indent=2, sort_keys=True, allow_nan=False) + "\n"
    write_text(path, text)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; a reader of `path` sees the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    durable_io.replace(path, text.encode())


def _plain(value: Any) -> Any:
    """The value as JSON knows it: NumPy scalars as Python's, what is not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _part(metrics: Metrics, name: str) -> Mapping[str, Any]:
    return metrics.get(name) or {}


def _seconds(value: float | None) -> str:
    return NONE if value is None or not math.isfinite(value) else f"{value:,.1f} s"


def _pairs(facts: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in facts)
    return [f"{name:<{width}}  {text}" for name, text in facts]


def _table(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return [
        f"{name:<{widths[0]}}  {model:>{widths[1]}}  {persistence:>{widths[2]}}"
        for name, model, persistence in rows
    ]


def _verdict(metrics: Metrics) -> list[str]:
    lines = [verdict_sentence(metrics)]
    if _part(metrics, "difference"):
        lines.append(difference_sentence(metrics))
    return lines


# More points than a picture has pixels cannot be seen.
MOST_POINTS = 5_000


def forecast_picture(forecast: pd.DataFrame, metrics: Mapping[str, Any]) -> Figure:
    """The picture of a forecast: the rows of forecast.csv, and its metrics."""
    from bitstorm.report import plots

    # A thinned series has a wider step; the cuts in it are still those of the grid.
    return plots.forecast_figure(
        thinned(forecast),
        mark=mark_of(metrics),
        level=metrics["interval"]["level"],
        skill=metrics["model"]["skill"],
    )


def thinned(forecast: pd.DataFrame) -> pd.DataFrame:
    every = -(-len(forecast) // MOST_POINTS)
    return forecast.iloc[::-1].iloc[::every].iloc[::-1].reset_index(drop=True)


@dataclass(frozen=True, repr=False)
class Forecast(Result):
    """Where the results lie, and `metrics` as written."""

    metrics: dict[str, Any]
    forecast_csv: str
    metrics_json: str

    @property
    def verdict(self) -> str:
        """Whether it is better than persistence on the test part, in a sentence."""
        return verdict_sentence(self.metrics)

    @property
    def table(self) -> pd.DataFrame:
        """The rows of `forecast_csv`, which the next forecast replaces: `timestamp` (Unix ms of the
        target), prices, the interval, and log returns."""
        return pd.read_csv(self.forecast_csv)

    def plot(self) -> Figure:
        """Forecast and truth on the test part, as in the report."""
        return forecast_picture(self.table, self.metrics)

    def facts(self) -> dict[str, str]:
        """What it says, in the words of the report's summary."""
        mark = mark_of(self.metrics)
        return {
            "source": mark.banner or mark.attribution or mark.origin,
            "next step": next_sentence(self.metrics),
            "verdict": self.verdict,
            "difference": difference_sentence(self.metrics),
            "interval": interval_sentence(self.metrics),
            "run": self.metrics["run"],
            "table": self.forecast_csv,
        }
