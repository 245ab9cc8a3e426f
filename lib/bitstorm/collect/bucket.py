"""The bucket of calls: so many tokens, each back a minute after the call that took it.

That way no minute, wherever it begins, sees more calls than the plan allows, while a bucket that
is full still lets them go at once (a year of history is five calls).
"""

from __future__ import annotations

from collections.abc import Sequence

# A second over the minute: calls take unequal time to arrive, and the server counts arrivals.
TOKEN_MS = 61_000
# Nobody queues for longer. What was booked further ahead than this was booked by another clock.
LONGEST_QUEUE_MS = 600_000


def booked(uses: Sequence[int], *, now_ms: int, per_minute: int) -> tuple[int, list[int]]:
    """The moment (Unix ms) at which the next call may leave, and the uses with it among them.

    `uses` are the moments of earlier calls, those that still wait for theirs included. Where the
    clock went back, they lie in the future: they count as made now, so the wait stays a minute.
    """
    settled = sorted(now_ms if use > now_ms + LONGEST_QUEUE_MS else use for use in uses)
    held = [use for use in settled if use > now_ms - TOKEN_MS]
    moment = now_ms
    if len(held) >= per_minute:
        moment = max(now_ms, held[-per_minute] + TOKEN_MS)
    return moment, [*held, moment]
