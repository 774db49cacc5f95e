"""`chest.aggregate`: what is asked in Python, and what is answered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from flask import Flask, g
from hypothesis import given
from hypothesis import strategies as st

from flask_chest import (
    CapabilityMissing,
    ConfigurationError,
    Count,
    Distinct,
    ErrorRate,
    FlaskChest,
    Histogram,
    Maximum,
    Mean,
    Minimum,
    NoScalar,
    Percentiles,
    Store,
    Sum,
    Variable,
)
from flask_chest.aggregates import DURATION_BOUNDS
from flask_chest.extension.aggregation import round_bounds
from flask_chest.protocols import Aggregation
from flask_chest.record import JSONValue
from flask_chest.stores.memory import MemoryStore
from flask_chest.stores.sqlite import SQLiteStore
from flask_chest.testing import make_record

BEGAN = datetime(2026, 11, 23, tzinfo=UTC)
HOUR_NANO = 3_600 * 10**9
TOTAL = Variable("total")
KINDS = ["memory", *(["sqlite"] if issubclass(SQLiteStore, Aggregation) else [])]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store: Store = MemoryStore() if request.param == "memory" else SQLiteStore(tmp_path / "chest.db")
    store.open()
    yield store
    store.close()


@pytest.fixture
def chest(app: Flask, store: Store) -> Iterator[FlaskChest]:
    with closing(FlaskChest(app, store=store, tracked_vars=["total"], strict=True)) as chest:
        yield chest


def write(store: Store, *totals: JSONValue, plan: str = "pro", hours: float = 0) -> None:
    began = round(BEGAN.timestamp() * 10**9 + hours * HOUR_NANO)
    store.write(
        [
            make_record(
                variables={"total": total, "plan": plan},
                time_unix_nano=began + number,
                route="/buy",
                duration_ns=20_000_000,
            )
            for number, total in enumerate(totals)
        ]
    )


def test_row_holds_the_value_of_each_measure(chest: FlaskChest, store: Store) -> None:
    write(store, 10, 20.5, "many", None)
    rate, distinct, middle = ErrorRate(), Distinct(TOTAL), Percentiles("duration", 50, 99)
    row = chest.aggregate(Count(), rate, Sum(TOTAL), Mean(TOTAL), distinct, middle, Minimum(TOTAL)).all
    assert (row.key, row.records, row[Count()], row[rate], row[distinct]) == ((), 4, 4, 0.0, 4)
    assert (row[Sum(TOTAL)], row[Mean(TOTAL)], row[Minimum(TOTAL)]) == (30.5, 15.25, 10.0)
    assert row[middle] == {50: 0.02, 99: 0.02}
    with pytest.raises(KeyError):
        row[Maximum(TOTAL)]


def test_groups_are_by_one_thing_or_several(chest: FlaskChest, store: Store) -> None:
    write(store, 1, 2)
    write(store, 3, plan="free", hours=1)
    plan = Variable("plan")
    assert [row.key for row in chest.aggregate(Count(), by="route").groups] == [("/buy",)]
    assert [row.key for row in chest.aggregate(Count(), by=plan).groups] == [("pro",), ("free",)]
    answer = chest.aggregate(Sum(TOTAL), by=["route", plan, Variable("x")], top=1)
    assert [row.key for row in answer.groups] == [("/buy", "free", NoScalar.ABSENT)]
    assert (answer.others.records, answer.all.records, answer.all[Sum(TOTAL)]) == (2, 3, 6.0)


def test_filters_narrow_what_is_measured(chest: FlaskChest, store: Store) -> None:
    write(store, 1, 2)
    write(store, 3, plan="free", hours=1)
    hour = timedelta(hours=1)
    assert chest.aggregate(Count(), where={"plan": "free"}).all[Count()] == 1
    assert chest.aggregate(Count(), since=BEGAN + hour).all[Count()] == 1
    assert chest.aggregate(Count(), until=BEGAN + hour, route="/buy").all[Count()] == 2
    with pytest.raises(ConfigurationError, match="since must have a time zone"):
        chest.aggregate(Count(), since=datetime(2026, 11, 23))


def test_series_has_a_bucket_for_each_span(chest: FlaskChest, store: Store) -> None:
    write(store, 1, 2, hours=0.25)
    write(store, 3, hours=2)
    answer = chest.aggregate(
        Count(),
        by="route",
        every=timedelta(hours=1),
        since=BEGAN + timedelta(minutes=10),
        until=BEGAN + timedelta(hours=3),
    )
    assert [bucket.all[Count()] for bucket in answer.series] == [2, 0, 1]
    assert [row.key for row in answer.series[1].groups] == [("/buy",)]
    assert answer.series[0].begin_unix_nano == round(BEGAN.timestamp()) * 10**9
    assert answer.all[Count()] == 3
    assert answer.complete
    assert answer.elapsed > timedelta(0)


def test_days_are_those_of_the_zone_of_since(chest: FlaskChest, store: Store) -> None:
    write(store, 1, hours=22.5)
    write(store, 2, hours=23.5)
    since = datetime(2026, 11, 23, tzinfo=ZoneInfo("Europe/Berlin"))
    answer = chest.aggregate(Sum(TOTAL), every=timedelta(days=1), since=since, until=since + timedelta(days=2))
    assert [bucket.all[Sum(TOTAL)] for bucket in answer.series] == [1.0, 2.0]


def test_series_ends_now_unless_it_is_told_otherwise(chest: FlaskChest) -> None:
    since = datetime.now(UTC) - timedelta(hours=2)
    answer = chest.aggregate(Count(), every="auto", since=since)
    last = answer.series[-1]
    until = answer.query.query.until_unix_nano
    assert until is not None
    assert last.begin_unix_nano < until <= last.end_unix_nano


def test_series_needs_a_beginning(chest: FlaskChest) -> None:
    with pytest.raises(ConfigurationError, match="every needs since, as in since="):
        chest.aggregate(Count(), every="auto")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"by": "duration"}, "by takes one of route, method, .*, or a variable as Variable"),
        ({"top": 0}, "top must be from 1 to 1,000, got 0"),
        ({"every": "hourly", "since": BEGAN}, 'every must be a timedelta of more than nothing, or "auto"'),
    ],
)
def test_what_no_store_can_answer_is_refused(chest: FlaskChest, wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        chest.aggregate(Count(), **wrong)  # type: ignore[arg-type]  # as a user may
    with pytest.raises(ConfigurationError, match="aggregate takes measures, as Count"):
        chest.aggregate()


def test_histogram_of_durations_has_the_bounds_of_opentelemetry(chest: FlaskChest, store: Store) -> None:
    write(store, 1, 2)
    histogram = Histogram("duration")
    bins = chest.aggregate(histogram).all[histogram]
    assert [each.upper for each in bins] == [*DURATION_BOUNDS, None]
    assert [each for each in bins if each.requests] == [(0.01, 0.025, 2)]


def test_histogram_of_a_variable_gets_round_bounds_from_its_numbers(chest: FlaskChest, store: Store) -> None:
    write(store, 0, 3, 100, "x")
    write(store, -1_000, plan="free")
    histogram, explicit = Histogram(TOTAL), Histogram(TOTAL, 50)
    answer = chest.aggregate(
        histogram,
        explicit,
        Histogram(Variable("nobody")),
        by=Variable("plan"),
        where={"plan": "pro"},
        every="auto",
        since=BEGAN,
        until=BEGAN + timedelta(hours=1),
    )
    bins = answer.all[histogram]
    assert [each.lower for each in bins[1:]] == [5.0 * number for number in range(22)]
    assert sum(each.requests for each in bins) == 3
    assert answer.groups[0][histogram] == bins
    assert answer.series[0].all[histogram] == bins
    assert answer.all[explicit] == ((None, 50.0, 2), (50.0, None, 1))
    assert answer.all[Histogram(Variable("nobody"))] == ((None, None, 0),)


def test_histogram_whose_bounds_are_those_that_are_chosen_can_be_asked_for_too(
    chest: FlaskChest, store: Store
) -> None:
    write(store, 1)
    chosen, same = Histogram("duration"), Histogram("duration", *DURATION_BOUNDS)
    row = chest.aggregate(chosen, same).all
    assert row[chosen] == row[same]


_ends = st.floats(-1e290, 1e290, allow_subnormal=False)


@given(_ends, _ends)
def test_bounds_are_few_round_numbers_that_hold_all(one: float, other: float) -> None:
    least, greatest = sorted((one, other))
    bounds = round_bounds(least, greatest)
    assert bounds[0] <= least + max(abs(one), abs(other)) * 1e-11
    assert list(bounds) == sorted(set(bounds))
    assert all(map(math.isfinite, bounds))
    assert len(bounds) <= 24
    if len(bounds) > 1:
        assert bounds[-1] >= greatest - abs(greatest) * 1e-11
        assert all(f"{bound:.12g}" == f"{float(f'{bound:.12g}'):.12g}" for bound in bounds)


def test_records_that_were_just_made_are_measured(app: Flask, chest: FlaskChest) -> None:
    @app.get("/")
    def index() -> str:
        g.total = 7
        return "hi"

    client = app.test_client()
    for _ in range(3):
        client.get("/")
    assert chest.aggregate(Sum(TOTAL)).all[Sum(TOTAL)] == 21.0


def test_store_that_cannot_aggregate_says_so(app: Flask) -> None:
    class Simple:
        def __init__(self) -> None:
            self._inner = MemoryStore()
            self.open, self.close, self.status = self._inner.open, self._inner.close, self._inner.status
            self.write, self.query = self._inner.write, self._inner.query

    with (
        closing(FlaskChest(app, store=Simple())) as chest,
        pytest.raises(CapabilityMissing, match="Simple does not implement Aggregation"),
    ):
        chest.aggregate(Count())
