"""Percentiles of durations from how many requests lie between bounds, which a store adds up in one scan.

Exact ones are ranked in each group, in each span of time and in all, by a sort each: over a day of a busy app
that takes seconds, in which the app's own statements wait for the processor.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from math import ceil, exp, log

from flask_chest.aggregates import Bin, Histogram, Row

PS = (50, 95, 99)
"""The percentiles that are shown."""
RATIO = 1.2
"""A bound by the one before: a percentile that is read between them is at most so far off."""
_LEAST, _MOST = 0.0005, 60.0

BINS = Histogram(
    "duration", *(float(f"{_LEAST * RATIO**number:.3g}") for number in range(ceil(log(_MOST / _LEAST, RATIO))))
)


def percentiles(row: Row) -> Mapping[int, float | None]:
    """Return about where the percentiles of the durations of *row* lie, in seconds; `BINS` was asked for.

    They are the numbers that so many per cent do not exceed; ``None`` where there is none.
    """
    bins = row[BINS]
    reached = list(accumulate([found.requests for found in bins]))
    if not reached or not reached[-1]:
        return dict.fromkeys(PS)
    ranks = {p: ceil(reached[-1] * p / 100) for p in PS}
    places = {p: bisect_left(reached, rank) for p, rank in ranks.items()}
    return {p: _within(bins[at], ranks[p] - reached[at]) for p, at in places.items()}


def _within(found: Bin, rank: int) -> float | None:
    """Return about where the number of a *rank* lies in a bin; the last one's is 0, those before are less."""
    lower, upper, requests = found
    if lower is None or upper is None:  # it is not known how far
        return upper if lower is None else lower
    # Durations are spread over ratios rather than over differences.
    return upper * exp(log(lower / upper) * (0.5 - rank) / requests)
