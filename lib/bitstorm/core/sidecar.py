"""The sidecar of a CSV batch: the facts that `collect` states and `ingest` relies on.

`landing/NAME.csv[.gz]` has the sidecar `landing/NAME.csv[.gz].json`. The sidecar is written first,
so a collected CSV always has one; a CSV that a person dropped in has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bitstorm.core.errors import BatchError, first_line

SUFFIX = ".json"
SIMULATED = "simulated"


class Sidecar(BaseModel):
    """Times are Unix milliseconds UTC; `sha256` and `rows` describe the CSV file.

    `source` is `coingecko`, `csv` or `simulated:SEED`. `granularity_ms` is the typical distance of
    the observations, None where unknown. `corrections` lists the changes to the source's values,
    such as `{"stamp": "open", "shifted_ms": 3600000}`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    rows: int
    sha256: str
    source: str
    coin: str
    vs_currency: str
    granularity_ms: int | None
    first_ms: int | None
    last_ms: int | None
    fetched_at: int
    request: dict[str, Any] = {}
    corrections: list[dict[str, Any]] = []


@dataclass(frozen=True)
class Origin:
    """The source, coin and currency of a workspace."""

    source: str
    coin: str
    vs_currency: str

    @property
    def simulated(self) -> bool:
        return self.source.startswith(SIMULATED)

    def __str__(self) -> str:
        return f"{self.source}, {self.coin}, {self.vs_currency}"


def sidecar_path(batch: Path) -> Path:
    return batch.with_name(batch.name + SUFFIX)


def read_sidecar(batch: Path) -> Sidecar | None:
    """The batch's sidecar, None without one. Raises BatchError when it is not readable."""
    path = sidecar_path(batch)
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        raise BatchError(
            f"the sidecar {path.name} cannot be read ({first_line(error)}); "
            "remove it to ingest the CSV without a sidecar",
            rule="sidecar_readable",
        ) from None
