"""What the dashboard shows, as one dict for JSON: plain values in, plain values out.

Every key is always there; None stands for a back-test or a log that a workspace lacks, and for a
number that is not known. Times are Unix milliseconds in UTC, or texts where a name does not end in
`_ms` or is no `timestamp`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bitstorm.core.time import age_text, duration_ms, iso, parse_instant
from bitstorm.report import style, summary
from bitstorm.report.page_backtest import Backtest, backtest_part, volatility_part
from bitstorm.report.page_values import DIGITS, MOST_TESTED, columns_of, listed, plain
from bitstorm.report.summary import Metrics
from bitstorm.report.thinning import Level

# The rows of the table, of the log, of the gaps and of the batches that the page shows, the newest.
TABLE_ROWS, LOG_ROWS, GAPS, BATCHES = 336, 100, 10, 50
# The forecasts of the log beside the newest one.
EARLIER = 5


@dataclass(frozen=True)
class Grid:
    """The newest indicators: the frequency and the step of the grid, the windows, the `levels` of
    the columns of `series_columns`, the newest rows of all columns, oldest first, and the price a
    day before the newest one, None where there is none."""

    frequency: str
    step_ms: int
    windows: Sequence[int]
    levels: Sequence[Level]
    newest: pd.DataFrame
    day_before: float | None


@dataclass(frozen=True)
class Log:
    """The forecasts log: its score in short (`logged`, `scored`, `waiting`, `verdict`, `coverage`,
    `e_values`, `drift`), and its rows of `forecast_log.with_outcomes`."""

    score: Mapping[str, Any]
    rows: pd.DataFrame


@dataclass(frozen=True)
class Found:
    """What a workspace has. `metrics`, `forecast` and `history` are the content of metrics.json,
    forecast.csv and history.csv; `prices` has `timestamp` and the observed `price` around the
    origin of the forecast; `state` the counts and gaps of the prices; `lineage` the chain from the
    batches to the forecast; `settings` (key, value, origin)."""

    made_ms: int
    metrics: Metrics
    grid: Grid
    forecast: pd.DataFrame
    history: pd.DataFrame
    prices: pd.DataFrame
    state: Mapping[str, Any]
    backtest: Backtest | None
    log: Log | None
    lineage: Mapping[str, Any]
    settings: Sequence[tuple[str, Any, str]]


def page_data(found: Found) -> dict[str, Any]:
    """The content of the page, but for the bytes of the levels."""
    mark, grid = summary.mark_of(found.metrics), found.grid
    data = {
        "made": f"{iso(found.made_ms - found.made_ms % 1000)[:-1]}.{found.made_ms % 1000:03d}Z",
        "title": mark.subject,
        "unit": mark.unit,
        "simulated": mark.simulated,
        "banner": mark.banner,
        "attribution": mark.attribution,
        "origin": mark.origin,
        "verdict": {
            "headline": summary.verdict_sentence(found.metrics),
            "grades": [{"name": n, "text": t} for n, t in summary.grade_facts(found.metrics)],
            "errors": summary.error_rows(found.metrics),
        },
        "now": _now(grid, found.state, mark.unit),
        "windows": list(grid.windows),
        "step_ms": grid.step_ms,
        "frequency": grid.frequency,
        "series": {
            "columns": series_columns(grid.windows, unit=mark.unit),
            "levels": [_level(level, grid.step_ms) for level in grid.levels],
        },
        "volatility": volatility_part(found.metrics, found.backtest),
        "fan": _fan(found),
        "test": _test(found.forecast, found.metrics),
        "training": _training(found.history, found.metrics),
        "backtest": None if found.backtest is None else backtest_part(found.backtest),
        "log": None if found.log is None else _log(found.log, level=_logged_level(found.metrics)),
        "lineage": found.lineage,
        "settings": [settings_row(*row) for row in found.settings],
        "table": _table(grid.newest),
    }
    values: dict[str, Any] = plain(data, digits=DIGITS)
    return values


def series_columns(windows: Sequence[int], *, unit: str) -> list[dict[str, str]]:
    """The columns of the indicators that the page draws over time, in the order of the levels."""
    found = [("price", "price", "price", unit)]
    found += [(f"ma_{w}", f"mean of the last {w}", "average", unit) for w in windows]
    found += [(f"ema_{w}", f"exponential mean, span {w}", "average", unit) for w in windows]
    found += [
        ("bollinger_upper_20", "Bollinger band, upper", "band", unit),
        ("bollinger_lower_20", "Bollinger band, lower", "band", unit),
    ]
    found += [
        (f"volatility_{w}", f"last {w} changes", "volatility", "fraction a step") for w in windows
    ]
    found += [
        ("rsi_14", "RSI 14", "momentum", "0 to 100"),
        ("macd", "MACD", "momentum", unit),
        ("macd_signal", "MACD signal", "momentum", unit),
        ("drawdown", "drawdown", "drawdown", "fraction"),
    ]
    return [dict(zip(("name", "label", "group", "unit"), one, strict=True)) for one in found]


def _level(level: Level, step_ms: int) -> dict[str, Any]:
    return {
        "width": level.width,
        "first_ms": level.first * level.width * step_ms,
        "count": level.count,
        "extremes": level.width > 1,
    }


def _now(grid: Grid, state: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """The newest point of the grid, and the state of the prices."""
    time_ms, price = (grid.newest[name].iloc[-1].item() for name in ("timestamp", "price"))
    change = None if not grid.day_before else 100 * (price / grid.day_before - 1)
    age_ms = state["age_ms"]
    return {
        "price": price,
        "price_text": style.money(price, unit),
        "time_ms": time_ms,
        "time": style.moment(iso(time_ms)),
        "change_24h_percent": change,
        "change_text": style.percent(change),
        "age_text": style.NONE if age_ms is None else f"{age_text(age_ms)} old",
        **state,
    }


def _fan(found: Found) -> dict[str, Any]:
    """The forecast of the next steps, the price before and since, and earlier forecasts."""
    outlook = found.metrics["outlook"]
    steps = [
        {**step, "time": style.moment(step["time"]), "time_ms": parse_instant(step["time"])}
        for step in outlook["steps"]
    ]
    levels = sorted({float(level) for step in steps for level in step["intervals"]})
    step_ms = duration_ms(found.metrics["frequency"])
    origin_ms = steps[0]["time_ms"] - steps[0]["step"] * step_ms
    earlier = [] if found.log is None else _earlier(found.log, _logged_level(found.metrics))
    return {
        "model": outlook["model"],
        "why": outlook["why"],
        "origin_ms": origin_ms,
        "from_price": found.metrics["next"]["from_price"],
        "levels": [int(level) if level.is_integer() else level for level in levels],
        "steps": steps,
        "past": columns_of(found.prices, ["price"]),
        "earlier": [one for one in earlier if one["origin_ms"] != origin_ms][:EARLIER],
    }


def _logged_level(metrics: Metrics) -> int:
    """The level of the log's intervals that the page shows, in percent: the user's, or 80."""
    level = round(100 * metrics["interval"]["level"])
    return level if level in (50, 80, 90, 95) else 80


def _earlier(log: Log, level: int) -> list[dict[str, Any]]:
    """The newest forecasts of the log, the newest first, one for each origin."""
    rows = log.rows.sort_values(["origin", "made_at", "step"])
    found = []
    for origin in sorted(rows["origin"].unique(), reverse=True)[: EARLIER + 1]:
        own = rows[rows["origin"] == origin].drop_duplicates("step")
        columns = ["step", "forecast", f"lower_{level}", f"upper_{level}", "actual"]
        steps = [
            {"time_ms": time, "step": step, "forecast": f, "lower": lo, "upper": up, "actual": a}
            for time, step, f, lo, up, a in own[["timestamp", *columns]].itertuples(index=False)
        ]
        found.append({"origin_ms": origin, "steps": steps})
    return found


def _test(forecast: pd.DataFrame, metrics: Metrics) -> dict[str, Any]:
    """The test part: forecasts, outcomes, and the squared error saved so far."""
    style.require(forecast, style.FORECAST_COLUMNS, of="forecast")
    rows = forecast.assign(saved=style.squared_error_saved(forecast))
    return {
        **columns_of(rows, [*style.LEVELS, "saved"], most=MOST_TESTED),
        "level": metrics["interval"]["level"],
        "skill": metrics["model"]["skill"],
    }


def _training(history: pd.DataFrame, metrics: Metrics) -> dict[str, Any]:
    style.require(history, style.HISTORY_COLUMNS, of="training history")
    return {
        **{name: listed(history[name].to_numpy(np.float64)) for name in style.HISTORY_COLUMNS},
        "epoch": history["epoch"].tolist(),
        "best": metrics["training"]["best_epoch"],
    }


def _log(log: Log, *, level: int) -> dict[str, Any]:
    """The score, the newest forecasts whose time has come, and the steps of the newest one."""
    rows = log.rows[~log.rows["waiting"] | (log.rows["origin"] == log.rows["origin"].max())]
    newest = rows.sort_values(["timestamp", "step"], ascending=False).head(LOG_ROWS)
    shown = []
    for row in newest.to_dict("records"):
        lower, upper, actual = row[f"lower_{level}"], row[f"upper_{level}"], row["actual"]
        known = np.isfinite([lower, upper, actual]).all()
        shown.append(
            {
                "made": style.moment(iso(row["made_at"])),
                "time": style.moment(iso(row["timestamp"])),
                "step": row["step"],
                "forecast": row["forecast"],
                "lower": lower,
                "upper": upper,
                "actual": actual,
                "held": bool(lower <= actual <= upper) if known else None,
            }
        )
    return {**log.score, "level": level, "rows": shown}


_SECRET = re.compile(r"secret|passw|passphrase|token|credential|access[._-]?key|api[._-]?key", re.I)
_USER = re.compile(r"(?<=//)[^/@\s]*@")
_HIDDEN = "***"


def settings_row(key: str, value: Any, origin: str) -> tuple[str, str, str]:
    """(key, value as text, origin), without what a name in it marks as secret, and without the user
    of a URL."""
    if isinstance(value, Mapping):
        value = {k: _HIDDEN if _SECRET.search(f"{k} {v}") else v for k, v in value.items()}
    elif _SECRET.search(f"{key} {value}"):
        value = _HIDDEN
    return key, _USER.sub(f"{_HIDDEN}@", str(value)), _USER.sub(f"{_HIDDEN}@", origin)


def _table(newest: pd.DataFrame) -> dict[str, Any]:
    """The newest rows, the newest first."""
    rows = newest.tail(TABLE_ROWS).iloc[::-1]
    names = [name for name in rows.columns if name != "timestamp"]
    columns = [rows[name].tolist() for name in names]
    times = [iso(time) for time in rows["timestamp"].tolist()]
    return {
        "columns": ["time", *names],
        "rows": [list(row) for row in zip(times, *columns, strict=True)],
    }
