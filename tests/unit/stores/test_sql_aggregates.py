"""What the SQL stores ask the database to aggregate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aggregation_property import AggregationProperty
from flask_chest.aggregates import (
    AggregateQuery,
    Column,
    Count,
    ErrorRate,
    Histogram,
    Maximum,
    Mean,
    Measure,
    Percentiles,
    Variable,
)
from flask_chest.stores.reference import aggregate
from flask_chest.stores.sql import aggregates, percentiles
from flask_chest.stores.sql.tables import SQLValue
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.stores.sqlite.connections import SQLiteAnswer
from flask_chest.testing.records import make_record

HISTOGRAM = Histogram("duration", 0.001, 0.1)
HISTOGRAMS = (HISTOGRAM, Histogram("duration", 0.01), Histogram(Variable("n"), 1, 3, weighted=False))
RECORDS = [
    make_record(
        route=f"/{number % 7}",
        time_unix_nano=number,
        duration_ns=number * 1_000_000,
        variables={"n": number % 5} if number % 3 else {},
        sample_rate=0.5 if number % 2 else 1.0,
    )
    for number in range(200)
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with closing(SQLiteStore(tmp_path / "chest.db")) as store:
        store.open()
        yield store


def statements_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list to which the statements of answers are appended from now on."""
    asked: list[str] = []
    fetch = SQLiteAnswer.rows

    def rows(session: SQLiteAnswer, sql: str, values: Sequence[SQLValue] = (), /) -> list[tuple[Any, ...]]:
        asked.append(sql)
        return fetch(session, sql, values)

    monkeypatch.setattr(SQLiteAnswer, "rows", rows)
    return asked


class TestManyCells(AggregationProperty):
    """Merges no more cells than it may."""

    @pytest.fixture(autouse=True)
    def _few(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(aggregates, "MOST_CELLS", 3)


class TestPercentilesByBins(AggregationProperty):
    """Finds the percentiles of few records as it does those of many."""

    @pytest.fixture(autouse=True, params=[30_000, 16], ids=["any cells", "few cells"])
    def _few(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("FEWEST_BINS", "MOST_BINS"):
            monkeypatch.setattr(percentiles, name, 4)
        monkeypatch.setattr(percentiles, "FEW", 0)
        monkeypatch.setattr(aggregates, "MOST_CELLS", request.param)


def test_no_group_is_lost_where_more_may_be_shown_than_are_merged(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregates, "MOST_CELLS", 3)
    store.write(RECORDS)
    query = AggregateQuery(measures=(Count(),), by=("route",), top=7)
    assert store.aggregate(query).groups == aggregate(RECORDS, query).groups


@pytest.mark.parametrize("bounds", [(), (0, 50, 120, 190)], ids=["all time", "spans"])
@pytest.mark.parametrize("by", [(), ("route",), ("route", Variable("n"))], ids=["all", "a group", "groups"])
@pytest.mark.parametrize(
    "measures",
    [(Count(),), (HISTOGRAM,), (ErrorRate(), Mean(Variable("n")), Maximum("duration"), *HISTOGRAMS)],
    ids=["a count", "a histogram", "many measures"],
)
def test_what_can_be_added_is_asked_in_one_statement(
    store: SQLiteStore,
    monkeypatch: pytest.MonkeyPatch,
    measures: Sequence[Measure[object]],
    by: Sequence[Column | Variable],
    bounds: Sequence[int],
) -> None:
    store.write(RECORDS)
    asked = statements_of(monkeypatch)
    query = AggregateQuery(measures=tuple(measures), by=tuple(by), bounds=tuple(bounds), top=3)
    assert store.aggregate(query) == aggregate(RECORDS, query)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("measures", "statements"),
    [
        ((Mean(Variable("n")), Percentiles(Variable("n"), 95)), ["mean and bins", "numbers"]),
        ((Percentiles(Variable("n"), 50, 95),), ["bins", "numbers"]),
        ((Percentiles(Variable("n"), 50), Percentiles("duration", 95)), ["count", *["bins", "numbers"] * 2]),
        ((HISTOGRAM, Percentiles("duration", 95)), ["histogram", "bins", "numbers"]),
    ],
    ids=["a mean and a percentile", "percentiles", "two numbers", "a histogram and a percentile"],
)
def test_bins_are_weighed_in_the_statement_of_the_other_measures(
    store: SQLiteStore,
    monkeypatch: pytest.MonkeyPatch,
    measures: Sequence[Measure[object]],
    statements: Sequence[str],
) -> None:
    monkeypatch.setattr(percentiles, "FEW", 0)
    store.write(RECORDS)
    asked = statements_of(monkeypatch)
    query = AggregateQuery(measures=tuple(measures), by=("route",), top=7)
    assert store.aggregate(query) == aggregate(RECORDS, query)
    assert len([sql for sql in asked if "GROUP BY" in sql]) == len(statements)


def test_bins_of_too_many_groups_are_not_weighed_beside_other_measures(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(percentiles, "FEW", 0)
    monkeypatch.setattr(aggregates, "MOST_CELLS", 16)
    store.write(RECORDS)
    asked = statements_of(monkeypatch)
    query = AggregateQuery(measures=(Mean(Variable("n")), Percentiles(Variable("n"), 95)), by=("route",), top=7)
    assert store.aggregate(query) == aggregate(RECORDS, query)
    assert len([sql for sql in asked if "GROUP BY" in sql]) == len(["mean", "bins", "numbers"])
