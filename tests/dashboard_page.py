"""A page of the dashboard without a workspace: the values that `dashboard_html` takes.

The levels are made here a second time, by reshaping, so that the page is tested against the arrays.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import numpy as np

HOUR = 3_600_000
FIRST = 1_704_067_200_000  # 2024-01-01T00:00:00Z
WINDOWS = (7, 24, 168)
STEPS = 24
POINTS = 1_500
ATTACK = "</script><img src=x onerror=alert(1)><b>bold</b>"
COLUMNS = (
    ("price", "price", "price", "USD"),
    *((f"ma_{w}", f"mean of the last {w}", "average", "USD") for w in WINDOWS),
    *((f"ema_{w}", f"exponential mean, span {w}", "average", "USD") for w in WINDOWS),
    ("bollinger_upper_20", "Bollinger band, upper", "band", "USD"),
    ("bollinger_lower_20", "Bollinger band, lower", "band", "USD"),
    *((f"volatility_{w}", f"last {w} changes", "volatility", "fraction a step") for w in WINDOWS),
    ("rsi_14", "RSI 14", "momentum", "0 to 100"),
    ("macd", "MACD", "momentum", "USD"),
    ("macd_signal", "MACD signal", "momentum", "USD"),
    ("drawdown", "drawdown", "drawdown", "fraction"),
)
HASHES = {
    name: one * 32
    for name, one in zip(
        ("batch", "prices", "indicators", "run"), ("ab", "cd", "ef", "01"), strict=True
    )
}


def moment(time_ms: int, form: str = "%Y-%m-%d %H:%M UTC") -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime(form)


def series(points: int, seed: int = 3) -> dict[str, np.ndarray]:
    """float32 columns of a random walk with a hole of a twentieth of its points."""
    random = np.random.default_rng(seed)
    price = 42_000 * np.exp(np.cumsum(random.normal(0, 0.004, points)))
    values: dict[str, np.ndarray] = {"price": price}
    for name, _, group, unit in COLUMNS[1:]:
        if group in ("average", "band"):
            values[name] = price * np.exp(random.normal(0, 0.002, points))
        elif unit == "0 to 100":
            values[name] = random.uniform(0, 100, points)
        elif group == "momentum":
            values[name] = random.normal(0, 200, points)
        else:
            values[name] = random.uniform(0, 0.01, points)
    values["drawdown"] = price / np.maximum.accumulate(price) - 1
    hole = slice(points // 2, points // 2 + points // 20)
    for place, one in enumerate(values.values()):
        one[hole] = np.nan
        one[:place] = np.nan
    return {name: one.astype(np.float32) for name, one in values.items()}


def levels_of(
    values: dict[str, np.ndarray], *, most: int, step_ms: int, factor: int = 4
) -> tuple[list[dict[str, Any]], list[str]]:
    """What `page.series.levels` says, and the base64 texts."""
    points, width = len(values["price"]), 1
    start = FIRST // step_ms
    described, texts = [], []
    while True:
        first, last = start // width, (start + points - 1) // width
        begin = max(first, last - most + 1)
        low, high = [], []
        for one in values.values():
            whole = np.full((last - first + 1) * width, np.nan, np.float32)
            whole[start - first * width :][:points] = one
            cells = whole.reshape(-1, width)[begin - first :]
            low.append(np.fmin.reduce(cells, axis=1))
            high.append(np.fmax.reduce(cells, axis=1))
        parts = [x for pair in zip(low, high, strict=True) for x in pair] if width > 1 else low
        texts.append(base64.b64encode(np.concatenate(parts).astype("<f4").tobytes()).decode())
        place = {"width": width, "first_ms": begin * width * step_ms, "count": last - begin + 1}
        described.append({**place, "extremes": width > 1})
        if begin == first:
            return described, texts
        width *= factor


def page_of(
    points: int = POINTS, *, most: int = 10_240, step_ms: int = HOUR, text: str | None = None
) -> tuple[dict[str, Any], list[str], dict[str, np.ndarray]]:
    """The page, its levels, and the columns they are of; `text` stands for each text from outside
    where given."""
    values = series(points)
    described, texts = levels_of(values, most=most, step_ms=step_ms)
    last = FIRST + (points - 1) * step_ms
    frequency = "1h" if step_ms == HOUR else "1min"

    def outside(usual: str) -> str:
        return usual if text is None else text

    page: dict[str, Any] = {
        "made": "2024-03-03T12:00:00.000Z",
        "title": outside("Bitcoin in USD"),
        "unit": "USD",
        "simulated": True,
        "banner": outside("SIMULATED market (seed 7): not real prices"),
        "attribution": None,
        "origin": outside("simulated:7 (the built-in simulated market)"),
        "verdict": {
            "headline": outside("No proven worth."),
            "grades": [
                {"name": "informative", "text": f"No. {outside('The e-value is 0.9.')}"},
                {"name": "data", "text": outside("400 forecasts.")},
            ],
            "errors": [
                ["", "model", "the price stays as it is"],
                ["RMSE", "210.50 USD", outside("208.75 USD")],
            ],
        },
        "now": _now(values, last, points),
        "windows": list(WINDOWS),
        "step_ms": step_ms,
        "frequency": frequency,
        "series": {
            "columns": [
                dict(zip(("name", "label", "group", "unit"), (n, outside(lb), g, u), strict=True))
                for n, lb, g, u in COLUMNS
            ],
            "levels": described,
        },
        **_forecasts(values, last, step_ms, outside),
        "backtest": _backtest(last, step_ms, outside, text),
        "log": _log(last, step_ms, outside),
        "lineage": {
            "batches": [{"name": outside("batch.csv"), "sha256": HASHES["batch"], "rows": points}],
            "batch_count": 1,
            "prices": {
                "id": outside("00000001-dd0b2bdc7ad7"),
                "digest": HASHES["prices"],
                "rows": points,
            },
            "indicators": {
                "id": "00000001-d96b6a7bf1b8",
                "digest": HASHES["indicators"],
                "rows": points,
            },
            "run": {"name": outside("20240303T120000Z-d354e3"), "weights_sha256": HASHES["run"]},
            "forecast": {"id": None},
        },
        "settings": [["training.epochs", outside("30"), outside("default")]],
        "table": _table(values, points, step_ms),
    }
    return page, texts, values


def _now(values: dict[str, np.ndarray], last: int, points: int) -> dict[str, Any]:
    price = float(values["price"][-1])
    gap = {"from": "2024-02-01 06:00 UTC", "until": "2024-02-04 08:00 UTC", "slots": 75}
    return {
        "price": price,
        "price_text": f"{price:,.2f} USD",
        "time_ms": last,
        "time": moment(last),
        "change_24h_percent": -1.25,
        "change_text": "-1.25 %",
        "age_text": "1 h 20 min old",
        "age_ms": 4_800_000,
        "rows": points,
        "first": moment(FIRST),
        "last": moment(last),
        "missing": 75,
        "expected": points,
        "gaps": [{**gap, "state": "open"}],
        "gap_count": 1,
        "refused_batches": 0,
        "refused_rows": 2,
        "waiting_batches": 1,
    }


def _forecasts(
    values: dict[str, np.ndarray], last: int, step_ms: int, outside: Any
) -> dict[str, Any]:
    """The parts `volatility`, `fan`, `test` and `training`."""
    random = np.random.default_rng(4)
    price = values["price"].astype(float)
    start = price[-1]
    steps = []
    for step in range(1, STEPS + 1):
        time = last + step * step_ms
        spread = start * 0.004 * np.sqrt(step)
        steps.append(
            {
                "step": step,
                "time_ms": time,
                "time": moment(time),
                "forecast": start + step,
                "intervals": {
                    "50": [start - 0.7 * spread, start + 0.7 * spread],
                    "80": [start - 1.3 * spread, start + 1.3 * spread],
                    "95": [start - 2 * spread, start + 2 * spread] if step < 24 else [None, None],
                },
            }
        )
    origin = last - 12 * step_ms
    earlier = [
        {
            "time_ms": origin + step * step_ms,
            "step": step,
            "forecast": price[-13],
            "lower": price[-13] * (1 - 0.004 * step**0.5),
            "upper": price[-13] * (1 + 0.004 * step**0.5),
            "actual": price[-13 + step] if step <= 12 else None,
        }
        for step in range(1, STEPS + 1)
    ]
    past = list(range(last - 72 * step_ms, last + 1, step_ms))
    test = list(range(last - 400 * step_ms, last + 1, step_ms))
    del test[100:140]  # a hole
    own = np.cumsum(random.normal(0, 20, len(test))) + start
    sigma = 0.004 + np.abs(random.normal(0, 0.001, len(test)))
    return {
        "volatility": {
            "horizon": 24,
            "step_ms": step_ms,
            "past": {
                "timestamp": test,
                "realised": sigma.tolist(),
                "forecast": (sigma * 1.1).tolist(),
            },
            "ahead": [{"time_ms": s["time_ms"], "sigma": 0.004 + 1e-5 * s["step"]} for s in steps],
        },
        "fan": {
            "model": outside("20240303T120000Z-d354e3"),
            "why": outside("promoted: not less accurate than persistence"),
            "origin_ms": last,
            "from_price": start,
            "levels": [50, 80, 95],
            "steps": steps,
            "past": {"timestamp": past, "price": price[-73:].tolist()},
            "earlier": [{"origin_ms": origin, "steps": earlier}],
        },
        "test": {
            "timestamp": test,
            "actual": own.tolist(),
            "forecast": (own + 5).tolist(),
            "persistence": (own - 5).tolist(),
            "lower": (own - 200).tolist(),
            "upper": (own + 200).tolist(),
            "saved": np.cumsum(random.normal(0, 1e-6, len(test))).tolist(),
            "level": 0.8,
            "skill": -0.0123,
        },
        "training": {
            "epoch": [1, 2, 3, 4],
            "loss": [1.2, 1.0, 0.95, 0.93],
            "val_loss": [1.1, 0.97, 0.99, 1.02],
            "best": 2,
        },
    }


def _backtest(last: int, step_ms: int, outside: Any, text: str | None) -> dict[str, Any]:
    day = 24 * step_ms
    random = np.random.default_rng(5)
    times = list(range(last - 700 * step_ms, last + 1, step_ms))
    folds = [
        {
            "number": number,
            "train_from": FIRST,
            "train_until": FIRST + (10 + 5 * number) * day,
            "validate_until": FIRST + (12 + 5 * number) * day,
            "test_from": FIRST + (13 + 5 * number) * day,
            "test_until": FIRST + (18 + 5 * number) * day,
            "skill": 0.001 * number - 0.002,
            "lower": -0.01,
            "upper": 0.01,
            "models": [[outside("network"), 0.001], ["drift", -0.002], ["ema", -4.8]],
            "epochs": 7,
            "seconds": 12.3,
        }
        for number in (1, 2, 3)
    ]
    models = [(name, {"skill": skill.tolist()}) for name, skill in _skills().items()]
    shares = [0.5, 0.8, 0.9, 0.95]
    return {
        "name": outside("20240303T120000Z-e0cdab6a"),
        "models": {name if name == "network" else (text or "") + name: one for name, one in models},
        "folds": folds,
        "coverage": {
            "levels": shares,
            "around": {
                centre: {
                    "overall": [share + shift for share in shares],
                    "terciles": [[share + shift + 0.01 * t for share in shares] for t in range(3)],
                }
                for centre, shift in (("persistence", 0.01), (outside("network"), -0.02))
            },
            "oracle": {"terciles": {"95": [0.02, 0.015, 0.01, 0.008]}},
        },
        "evidence": {
            "timestamp": times,
            "information": np.cumsum(random.normal(0, 0.05, len(times))).tolist(),
            "accuracy": np.cumsum(random.normal(-0.1, 0.05, len(times))).tolist(),
        },
        "needed": 20,
        "facts": [["verdict", outside("No proven worth.")], ["grid", "1h"]],
    }


def _skills() -> dict[str, np.ndarray]:
    steps = np.arange(STEPS)
    return {
        "network": -0.01 + 0.0005 * steps,
        "persistence": 0.0 * steps,
        "drift": -0.001 * steps,
        "ar": -0.002 - 0.0001 * steps,
        "ema": -4.8 + 0.1 * steps,
    }


def _log(last: int, step_ms: int, outside: Any) -> dict[str, Any]:
    rows = [
        {
            "made": moment(last - step_ms),
            "time": moment(last + step * step_ms),
            "step": step + 1,
            "forecast": 42_000.5 + step,
            "lower": 41_900.0,
            "upper": 42_100.0,
            "actual": 42_001.0 if step == 0 else None,
            "held": True if step == 0 else None,
        }
        for step in (1, 0)
    ]
    return {
        "logged": 2,
        "scored": 1,
        "waiting": 1,
        "verdict": outside("Too few forecasts for a verdict."),
        "coverage": [[80, 1, 1.0]],
        "e_values": {"information": 1.02},
        "drift": [],
        "level": 80,
        "rows": rows,
    }


def _table(values: dict[str, np.ndarray], points: int, step_ms: int) -> dict[str, Any]:
    rows: list[list[Any]] = []
    for place in range(points - 1, max(-1, points - 501), -1):
        time = moment(FIRST + place * step_ms, "%Y-%m-%dT%H:%M:%SZ")
        numbers = [float(one[place]) for one in values.values()]
        cells = [number if np.isfinite(number) else None for number in numbers]
        rows.append([time, cells[0], place % 50 == 3, *cells[1:]])
    return {"columns": ["time", "price", "imputed", *list(values)[1:]], "rows": rows}
