"""How long to leave somebody alone who does not answer."""

from __future__ import annotations

import random

_chance = random.SystemRandom()
"""Source of randomness that no app has seeded and no fork shares."""


def pause_seconds(failures: int, *, first: float, longest: float) -> float:
    """Draw a pause after so many *failures* in a row: about *first*, then twice that, up to *longest*."""
    # At random, so that the processes of a server do not all come back at once.
    return min(longest, first * 2.0 ** min(failures - 1, 32)) * _chance.uniform(0.5, 1)
