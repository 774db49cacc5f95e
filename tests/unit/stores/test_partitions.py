"""Partitions by time: which spans there are, and which of them a time needs."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_chest.errors import ConfigurationError
from flask_chest.protocols import PartitionBy
from flask_chest.stores import store_from_uri
from flask_chest.stores.options import check_partition
from flask_chest.stores.sql.partitions import (
    AHEAD_NANO,
    BEYOND,
    LATE,
    Layout,
    Partition,
    early_upper,
    kind_of,
    span_at,
    span_name,
)

MIN, MAX = -(1 << 63), (1 << 63) - 1
NOW = 1_795_910_400_000_000_000 + 45_296_000_000_000
"""Sunday, 2026-11-29 12:34:56 UTC."""
DAY = 86_400_000_000_000
bys = st.sampled_from(get_args(PartitionBy))
times = st.integers(MIN, MAX) | st.integers(NOW - 500 * DAY, NOW + 30 * DAY)


def layout_of(by: PartitionBy, *moments: int) -> Layout:
    """Make the partitions that records of *moments* get in a table that is made now."""
    found = [
        Partition(name="chest_early", lower=MIN, upper=early_upper(NOW, by), kind="early"),
        Partition(name="chest_late", lower=LATE, upper=BEYOND, kind="late"),
    ]
    for moment in moments:
        found += (
            Partition(name=f"chest_{span_name(lower, by)}", lower=lower, upper=upper, kind="span")
            for lower, upper in Layout(found, wanted=by).missing([moment])
        )
    return Layout(found, wanted=by)


@given(moment=times, by=bys)
def test_time_lies_in_its_span_and_spans_follow_one_another(moment: int, by: PartitionBy) -> None:
    lower, upper = span_at(moment, by)
    assert lower <= moment < upper
    assert span_at(upper, by).lower == upper
    assert span_at(lower, by) == (lower, upper)


def test_day_begins_at_midnight_and_week_on_monday() -> None:
    begins: dict[PartitionBy, str] = {"day": "2026-11-29", "week": "2026-11-23"}
    for by, begin in begins.items():
        lower, _ = span_at(NOW, by)
        assert datetime.fromtimestamp(lower / 1e9, UTC).isoformat() == f"{begin}T00:00:00+00:00"
        assert span_name(lower, by)[1:] == begin.replace("-", "")


@given(moments=st.lists(times, max_size=8), by=bys)
def test_partitions_never_overlap_and_take_what_they_were_made_for(moments: list[int], by: PartitionBy) -> None:
    layout = layout_of(by, *moments)
    assert all(layout.takes(moment) for moment in moments)
    bounds = [(each.lower, each.upper) for each in layout.partitions]
    assert all(lower < upper for lower, upper in bounds)
    assert all(one[1] <= other[0] for one, other in pairwise(bounds))
    assert layout.missing(moments) == []
    assert all(kind_of(each.name.removeprefix("chest_")) == each.kind for each in layout.partitions)


@given(moments=st.lists(times, max_size=4), before=times, by=bys)
def test_retention_reaches_no_further_than_asked_and_cuts_no_partition(
    moments: list[int], before: int, by: PartitionBy
) -> None:
    layout = layout_of(by, *moments)
    reach = layout.reach(before)
    assert reach <= before
    cut = [each for each in layout.partitions if each.lower < reach < each.upper]
    assert [each.kind for each in cut] in ([], ["early"], ["late"])
    assert all(each.upper <= reach for each in layout.droppable(reach))


def test_outliers_of_time_share_two_partitions() -> None:
    year = 365 * DAY
    outliers = [0, MIN, MAX, year, NOW - 2 * year, 230 * year]
    assert layout_of("day", *outliers).partitions == layout_of("day").partitions


def test_partitions_are_made_a_week_ahead() -> None:
    layout = layout_of("day")
    assert layout.until(NOW) == NOW
    made = layout_of("day", *layout.ahead(NOW))
    assert made.until(NOW) >= NOW + AHEAD_NANO
    assert made.takes(NOW - DAY)


@pytest.mark.parametrize("by", get_args(PartitionBy))
def test_table_goes_on_with_the_span_it_has(by: PartitionBy) -> None:
    there = layout_of(by, NOW)
    assert Layout(there.partitions, wanted="week" if by == "day" else "day").by == by


def test_span_that_is_not_known_is_refused() -> None:
    with pytest.raises(ConfigurationError, match='partition must be "day", "week" or None, got \'month\''):
        check_partition("month")  # type: ignore[arg-type]  # what is tested


def test_address_of_a_store_without_partitions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="partition is 'day', which is for PostgreSQL, MySQL and"):
        store_from_uri("sqlite:///a.db", root=tmp_path, partition="day")
