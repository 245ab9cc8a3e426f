"""The numbers of a made-up back-test, in the forms of its files."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

HOUR, DAY = 3_600_000, 86_400_000
T0 = 1_704_067_200_000  # 2024-01-01T00:00:00Z
LEVELS = [0.5, 0.8, 0.9, 0.95]


def folds() -> tuple[list[dict[str, int]], list[dict[str, float]]]:
    edges = ("train_from_ms", "train_until_ms", "validate_until_ms", "test_from_ms")
    days = [(0, 60, 80, 84, 100), (0, 75, 96, 100, 116)]
    made = [
        {"number": number, **dict(zip((*edges, "test_until_ms"), times, strict=True))}
        for number, times in enumerate(([T0 + day * DAY for day in fold] for fold in days), 1)
    ]
    skills = [
        {"skill": 0.01, "lower": -0.02, "upper": 0.04},
        {"skill": -0.03, "lower": -0.05, "upper": -0.01},
    ]
    return made, skills


def models(**skills: list[float]) -> dict[str, Any]:
    return {
        name: {
            "all": {"pooled": {"skill": 9.0, "rmse_log_return": 9.0, "rows": 1_234}},
            # In the order of the text, as in the file.
            **{
                str(n): {
                    "pooled": {
                        "skill": values[n - 1],
                        "rmse_log_return": 0.01 * math.sqrt(n * (1 - values[n - 1])),
                    }
                }
                for n in sorted(range(1, len(values) + 1), key=str)
            },
        }
        for name, values in skills.items()
    }


def skills(size: float) -> list[float]:
    return [size * n for n in range(1, 12)]


def intervals(*, shift: float = 0.0) -> dict[str, Any]:
    table = {
        "overall": [level + shift for level in LEVELS],
        "terciles": [[level + place / 100 for level in LEVELS] for place in range(3)],
    }
    return {
        "levels": LEVELS,
        "around": {"persistence": table, "network": table, "garch_t": table},
        "origins": 4_321,
        "oracle": {"terciles": {"95": [0.04, 0.03, 0.02, 0.01]}},
    }


def evidence(hours: int) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "timestamp": T0 + HOUR * np.arange(hours),
            "information": np.linspace(0, np.log(1_000), hours),
            "accuracy": np.linspace(0, -np.log(10), hours),
        }
    )
