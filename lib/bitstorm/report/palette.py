"""Colours that stay apart for colour-blind eyes (after Okabe and Ito), by what they stand for."""

from __future__ import annotations

INK = "#1f2933"
INK_ON_DARK = "#e6e9ee"
QUIET = "#7b8794"
FORECAST = "#1B84C6"  # theirs, lighter: it has to show on a dark ground too
PERSISTENCE = "#E69F00"
WARNING = "#D55E00"
BETTER = "#009E73"

# For the windows, shortest first; further windows start again.
WINDOWS = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#E69F00", FORECAST)


def window_colour(position: int) -> str:
    """The colour of the window at a position (from 0) of the configured windows."""
    return WINDOWS[position % len(WINDOWS)]
