"""Pauses between attempts at something that does not answer."""

from __future__ import annotations

import random

_chance = random.SystemRandom()
"""Source of randomness that no app has seeded and no fork shares."""


def pause_seconds(failures: int, *, first: float, longest: float) -> float:
    """Return a random pause in seconds after *failures* in a row: about *first*, doubling up to *longest*."""
    # At random, so that the processes of a server do not all come back at once.
    return min(longest, first * 2.0 ** min(failures - 1, 32)) * _chance.uniform(0.5, 1)
