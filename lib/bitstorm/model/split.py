"""Training, validation and test parts, cut by time: nothing is fitted on what comes after."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Split:
    """The last instants (ms UTC, inclusive) of the training and the validation part.

    A window belongs to the part in which its target lies; the test part is all after that.
    """

    train_until_ms: int
    validate_until_ms: int


def split_by_time(
    *, first_ms: int, last_ms: int, train_share: float, validation_share: float
) -> Split:
    """Shares of the time span from the first to the last point."""
    span = last_ms - first_ms
    return Split(
        # Rounded: 0.7 of 10 steps must not end a millisecond before the seventh.
        train_until_ms=first_ms + round(span * train_share),
        validate_until_ms=first_ms + round(span * (train_share + validation_share)),
    )
