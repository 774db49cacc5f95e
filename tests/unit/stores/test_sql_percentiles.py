"""The fractions by which databases take percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import pytest

from flask_chest.aggregates import AggregateQuery, Percentiles, Variable
from flask_chest.record import Query
from flask_chest.stores.reference import aggregate
from flask_chest.stores.sql import percentiles
from flask_chest.stores.sql.measures import fraction
from flask_chest.stores.sql.percentiles import SAMPLE, Bins, Found, PercentilesByBins, share_of
from flask_chest.stores.sql.written import digits
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record

SIZES = [*range(1, 4_001), *(size + near for size in (10**6, 10**9, 2**40) for near in range(-101, 102))]


@pytest.mark.parametrize("p", range(1, 101))
def test_fraction_has_the_nearest_rank_among_any_number_of_numbers(p: int) -> None:
    share = float(digits(fraction(p)))  # as a database reads it
    assert [n for n in SIZES if ceil(share * n) != (n * p + 99) // 100] == []


def test_share_itself_would_miss_the_nearest_rank() -> None:
    assert ceil(28 / 100 * 25) == 8 != ceil(fraction(28) * 25) == (25 * 28 + 99) // 100


@pytest.mark.parametrize("other", [0.5, 0.0, -1.0], ids=["few different numbers", "zeros", "negative numbers"])
def test_number_that_many_records_have_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: float
) -> None:
    for name, number in {"FEW": 0, "FEWEST_BINS": 8, "MOST_BINS": 8, "MOST": 60}.items():
        monkeypatch.setattr(percentiles, name, number)
    found: list[object] = []
    find = PercentilesByBins.find

    def noted(
        self: PercentilesByBins, measures: Sequence[Percentiles], bins: Bins | None
    ) -> Sequence[Found] | None:
        found.append(find(self, measures, bins))
        return found[-1]  # type: ignore[return-value]  # just put there

    monkeypatch.setattr(PercentilesByBins, "find", noted)
    # Most records have one number, and a percentile more is in one of the two bins of 50 others.
    numbers = [other if place % 4 else 1 + place / 1_000 for place in range(400)]
    records = [make_record(variables={"n": number}, time_unix_nano=place) for place, number in enumerate(numbers)]
    store = SQLiteStore(tmp_path / "chest.db")
    store.open()
    store.write(records)
    query = AggregateQuery(measures=(Percentiles(Variable("n"), 1, 50, 75, 99),), query=Query(limit=None))
    assert store.aggregate(query).all == aggregate(records, query).all
    assert found != [None]
    store.close()


@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 10])
@pytest.mark.parametrize("size", [20_001, 99_999, 240_000])
def test_sample_is_as_large_where_a_cluster_numbers_records_in_steps(size: int, step: int) -> None:
    share = share_of(size)
    sample = [position for position in range(1, 1 + size * step, step) if position % share == 0]
    assert SAMPLE / 3 < len(sample) < SAMPLE * 2
