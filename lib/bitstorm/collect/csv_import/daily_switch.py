"""CoinGecko's daily series says two things: what its stamps mean changed on 2018-01-30.

From that day on a point stamped D 00:00 UTC is the price at the start of D. Before, it is that near
the end of D, so taken as it stands it knows a day of the future; it is moved to D + 24 h. A point
of those years that is not at midnight names its own moment and stays. The points of 2018-01-29
(moved) and of 2018-01-30 are then one midnight told twice, so the second is left to be refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bitstorm.core.time import DAY_MS

Action = Literal["move", "refuse", "keep"]

SWITCH_MS = 1_517_270_400_000  # 2018-01-30T00:00:00Z
_TOO_EARLY = "before 2018-01-30 a daily stamp of CoinGecko carries the price of the day's end"
_TWIN = "the same midnight as the point of 2018-01-29"


@dataclass(frozen=True)
class Switch:
    """How the points around the switch are taken; `early` and `moved` count those before it.

    `twin` says that both points of the midnight of the switch are there.
    """

    action: Action
    early: int
    moved: int
    twin: bool

    def taken(self, stamp_ms: int) -> tuple[int, str | None]:
        """The moment that a point describes (Unix ms), and why it is refused, None when not."""
        if stamp_ms >= SWITCH_MS:
            is_twin = self.action == "move" and self.twin and stamp_ms < SWITCH_MS + DAY_MS
            return stamp_ms, _TWIN if is_twin else None
        if self.action == "refuse":
            return stamp_ms, _TOO_EARLY
        return (stamp_ms + DAY_MS if self.action == "move" and _at_midnight(stamp_ms) else stamp_ms,
                None)  # fmt: skip

    @property
    def correction(self) -> dict[str, Any] | None:
        """What the sidecar says of it, None when nothing is changed."""
        if self.action == "keep":
            return None
        stated: dict[str, Any] = {"daily_switch": self.action, "before_ms": SWITCH_MS}
        if self.action == "refuse":
            return {**stated, "refused_rows": self.early}
        return {
            **stated,
            "shifted_ms": DAY_MS,
            "shifted_rows": self.moved,
            "refused_rows": int(self.twin),
        }

    @property
    def note(self) -> str:
        """The same in a sentence, for who looks at the import."""
        points = f"{self.early:,} daily points before 2018-01-30 carry the price of the day's end"
        if self.action == "refuse":
            return f"{points}: they are refused (import.daily_switch)"
        if self.action == "keep":
            return f"{points}, a day too early, and are kept so (import.daily_switch)"
        twin = "; that of 2018-01-30 is refused, it repeats the one before it" if self.twin else ""
        return f"{points}: {self.moved:,} of them are moved to it, by 24 h{twin}"


def switch_of(stamps: Iterable[int | None], action: Action) -> Switch | None:
    """How a daily series with these stamps (Unix ms) is taken; None when it is all of one kind."""
    early = moved = 0
    last_early = first_late = False
    for stamp in stamps:
        if stamp is None:
            continue
        if stamp < SWITCH_MS:
            early += 1
            moved += _at_midnight(stamp)
            last_early = last_early or stamp == SWITCH_MS - DAY_MS
        else:
            first_late = first_late or stamp < SWITCH_MS + DAY_MS
    return Switch(action, early, moved, last_early and first_late) if early else None


def _at_midnight(stamp_ms: int) -> bool:
    return stamp_ms % DAY_MS == 0
