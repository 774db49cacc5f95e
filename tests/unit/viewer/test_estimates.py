"""Percentiles that are read from bins: how far they may be from the exact ones."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chest.aggregates import AggregateQuery
from flask_chest.stores.reference import aggregate
from flask_chest.testing.records import make_record
from flask_chest.viewer._estimates import BINS, PS, RATIO, percentiles

SECOND = 1_000_000_000


@given(st.lists(st.floats(0.0005, 57, exclude_min=True), min_size=1, max_size=300))
def test_percentile_is_no_further_off_than_a_bin_is_wide(durations: list[float]) -> None:
    records = [make_record(duration_ns=round(each * SECOND)) for each in durations]
    found = percentiles(aggregate(records, AggregateQuery(measures=(BINS,))).all)
    for p in PS:
        exact = sorted(durations)[ceil(len(durations) * p / 100) - 1]
        estimate = found[p]
        assert estimate is not None
        assert exact / RATIO * 0.99 <= estimate <= exact * RATIO * 1.01


@pytest.mark.parametrize(("duration_ns", "shown"), [(1, BINS.bounds[0]), (3_600 * SECOND, BINS.bounds[-1])])
def test_duration_beyond_all_bounds_is_shown_as_the_last_one(duration_ns: int, shown: float) -> None:
    found = percentiles(aggregate([make_record(duration_ns=duration_ns)], AggregateQuery(measures=(BINS,))).all)
    assert found == dict.fromkeys(PS, shown)


def test_nothing_has_no_percentiles() -> None:
    assert percentiles(aggregate([], AggregateQuery(measures=(BINS,))).all) == dict.fromkeys(PS)
